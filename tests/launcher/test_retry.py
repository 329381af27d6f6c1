"""A run that is tried again has as many deaths to go as one that is tried for the first time, and no more."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from study.records.journal import Journal
from study.records.ledger import Launch, write_launch
from study.records.record import Record
from study.records.sweep_folder import Lines, SweepFolder, Writer
from study.worker.signals import Stop
from study.worker.worker_process import _ready

RUN = {"run_id": "vit-s0"}


@dataclass
class Witness:
    """Stands for the trainer: notes what the worker asks of it."""

    asked: list[str] = field(default_factory=list)

    def saved_step(self, run_id: str) -> int:
        return 0

    def train(self, planned: dict[str, Any], **_: object) -> Record:
        self.asked.append("train")
        return record("done", "second")

    def failure(self, planned: dict[str, Any], *, reason: str, log: str) -> Record:
        self.asked.append(reason)
        return record("failed", "second")

    def forget(self, run_id: str) -> None:
        self.asked.append("forget")


def record(status: Any, launch: str) -> Record:
    return Record("vit-s0", status, run={}, cost={}, match={}, provenance={"launch": launch})


def asked_of(folder: SweepFolder, *, deaths: dict[str, int], failed: tuple[str, ...], retry: bool) -> list[str]:
    """What a worker of the second launch does with the run after so many deaths in each launch and these failures."""
    share = [{**RUN, "retry": retry}]
    for launch in ("first", "second"):
        entry = Launch(launch, "slurm", "plan", "code", tasks=1, tasks_per_job=1, device="cpu", provenance={})
        write_launch(folder, entry, [share])
        for life in range(deaths[launch]):
            journal = Journal(folder, Writer(launch, 0, life))
            journal.note("start")
            journal.note("begin", run_id="vit-s0")
            journal.close()
    for launch in failed:
        lines = Lines(folder.records / f"{launch}-0-0.jsonl")
        lines.append(record("failed", launch).to_json())
        lines.close()
    writer, witness = Writer("second", 0, 9), Witness()
    with closing(Journal(folder, writer)) as journal:
        worker = _ready(folder, writer, journal, share=share, log="", stop=Stop())
        worker.train_share(share, witness)  # type: ignore[arg-type]
        if worker._records is not None:
            worker._records.close()
    return witness.asked


@pytest.mark.parametrize(
    ("second", "failed", "retry", "asked"),
    [
        (0, ("first",), True, ["train", "forget"]),
        (2, ("first",), True, ["train", "forget"]),
        (3, ("first",), True, ["took its worker down 3 times without getting further"]),
        (3, ("first", "second"), True, ["forget"]),
        (0, ("first", "second"), True, ["forget"]),
        (0, ("first",), False, ["forget"]),
        (0, (), False, ["took its worker down 3 times without getting further"]),
    ],
    ids=["fresh", "two deaths", "three deaths", "failed again", "failed by an exception", "not tried again", "first try"],
)
def test_a_retry_has_three_deaths_of_its_own(tmp_path: Path, second, failed, retry, asked):
    """Deaths and failures before the launch that tries the run again don't count; its own count as they always do."""
    told = asked_of(SweepFolder(tmp_path), deaths={"first": 3, "second": second}, failed=failed, retry=retry)
    assert told == asked
