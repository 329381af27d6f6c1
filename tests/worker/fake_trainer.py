"""Stands in for the trainer in tests of the worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from specimens import RUN

from study.records.ledger import ShareEntry
from study.records.record import Record, Result, Status


@dataclass
class FakeTrainer:
    """Records its calls. Runs end with `status`; `meanwhile` is called while each of them trains."""

    status: Status = "done"
    launch: str = "launch"
    meanwhile: Callable[[str], object] = lambda run_id: None
    calls: list[str] = field(default_factory=list)

    def saved_step(self, run_id: str) -> int:
        return 0

    def train(self, entry: ShareEntry, *, stop: Callable[[], bool], log: str) -> Record | None:
        self.meanwhile(entry.run_id)
        if stop():
            return None
        self.calls.append(f"train {entry.run_id}")
        return self.record(entry.run_id, self.status)

    def make_failure(self, entry: ShareEntry, *, reason: str, log: str) -> Record:
        self.calls.append(f"{entry.run_id} {reason}")
        return self.record(entry.run_id, "failed")

    def remove_checkpoints(self, run_id: str) -> None:
        self.calls.append(f"remove checkpoints of {run_id}")

    def record(self, run_id: str, status: Status) -> Record:
        result = Result(val_accuracy=0.5) if status == "done" else Result()
        return Record(run_id, status, RUN, {}, {}, result, reason="at step 1", provenance={"launch": self.launch})
