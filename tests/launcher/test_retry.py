"""A retried run may crash its worker as often as one that is trained for the first time."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from study.records.journal import Journal
from study.records.ledger import Launch, ShareEntry, write_launch
from study.records.plan_file import PlannedEntry
from study.records.record import Record
from study.records.sweep_folder import JsonLinesWriter, SweepFolder, Writer
from study.worker.signals import Stop
from study.worker.worker_process import _make_worker


@dataclass
class FakeTrainer:
    """Records the calls of the worker."""

    calls: list[str] = field(default_factory=list)

    def saved_step(self, run_id: str) -> int:
        return 0

    def train(self, entry: ShareEntry, **_: object) -> Record:
        self.calls.append("train")
        return record("done", "second")

    def make_failure(self, entry: ShareEntry, *, reason: str, log: str) -> Record:
        self.calls.append(reason)
        return record("failed", "second")

    def remove_checkpoints(self, run_id: str) -> None:
        self.calls.append("remove checkpoints")


def record(status: Any, launch: str) -> Record:
    return Record("vit-s0", status, run={}, cost={}, match={}, provenance={"launch": launch})


def calls_after(folder: SweepFolder, *, crashes: dict[str, int], failed: tuple[str, ...], retry: bool) -> list[str]:
    """The calls of a worker of the second launch, after so many crashes in each launch and these failures."""
    share = [ShareEntry(PlannedEntry("vit-s0", run={}, cost={}, match={}), retry=retry)]
    for launch in ("first", "second"):
        entry = Launch(launch, "slurm", "plan", "code", tasks=1, tasks_per_job=1, device="cpu", provenance={})
        write_launch(folder, entry, [share])
        for restart in range(crashes[launch]):
            journal = Journal(folder, Writer(launch, 0, restart))
            journal.write("start")
            journal.write("begin", run_id="vit-s0")
            journal.close()
    for launch in failed:
        lines = JsonLinesWriter(folder.records / f"{launch}-0-0.jsonl")
        lines.append(record("failed", launch).to_json())
        lines.close()
    writer, trainer = Writer("second", 0, 9), FakeTrainer()
    with closing(Journal(folder, writer)) as journal:
        worker = _make_worker(folder, writer, journal, share=share, log="", stop=Stop())
        worker.train_share(share, trainer)  # type: ignore[arg-type]
        if worker._records is not None:
            worker._records.close()
    return trainer.calls


@pytest.mark.parametrize(
    ("second", "failed", "retry", "calls"),
    [
        (0, ("first",), True, ["train", "remove checkpoints"]),
        (2, ("first",), True, ["train", "remove checkpoints"]),
        (3, ("first",), True, ["crashed its worker 3 times with no progress"]),
        (3, ("first", "second"), True, ["remove checkpoints"]),
        (0, ("first", "second"), True, ["remove checkpoints"]),
        (0, ("first",), False, ["remove checkpoints"]),
        (0, (), False, ["crashed its worker 3 times with no progress"]),
    ],
    ids=["fresh", "two crashes", "three crashes", "failed again", "failed by an exception", "not retried", "first try"],
)
def test_a_retry_has_three_crashes_of_its_own(tmp_path: Path, second, failed, retry, calls):
    """Crashes and failures before the launch that retries the run don't count; its own count as usual."""
    found = calls_after(SweepFolder(tmp_path), crashes={"first": 3, "second": second}, failed=failed, retry=retry)
    assert found == calls
