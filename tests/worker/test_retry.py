"""A retried run may crash its worker as often as one that is trained for the first time."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from fake_trainer import FakeTrainer
from specimens import RUN

from study.records.journal import Journal
from study.records.ledger import Launch, ShareEntry, write_launch
from study.records.plan_file import PlannedEntry
from study.records.sweep_folder import JsonLinesWriter, SweepFolder, Writer
from study.worker.signals import Stop
from study.worker.worker_process import make_worker


def calls_after(folder: SweepFolder, *, crashes: dict[str, int], failed: tuple[str, ...], retry: bool) -> list[str]:
    """The calls of a worker of the second launch, after so many crashes in each launch and these failures."""
    share = [ShareEntry(PlannedEntry("vit-s0", run=RUN, cost={}, match={}), retry=retry)]
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
        lines.append(FakeTrainer(launch=launch).record("vit-s0", "failed").to_json())
        lines.close()
    writer, trainer = Writer("second", 0, 9), FakeTrainer(launch="second")
    with closing(Journal(folder, writer)) as journal:
        worker = make_worker(folder, writer, journal, share=share, log="", stop=Stop())
        worker.train_share(share, trainer)  # type: ignore[arg-type]
    return trainer.calls


@pytest.mark.parametrize(
    ("second", "failed", "retry", "calls"),
    [
        (0, ("first",), True, ["train vit-s0", "remove checkpoints of vit-s0"]),
        (2, ("first",), True, ["train vit-s0", "remove checkpoints of vit-s0"]),
        (3, ("first",), True, ["vit-s0 crashed its worker 3 times with no progress"]),
        (3, ("first", "second"), True, ["remove checkpoints of vit-s0"]),
        (0, ("first", "second"), True, ["remove checkpoints of vit-s0"]),
        (0, ("first",), False, ["remove checkpoints of vit-s0"]),
        (0, (), False, ["vit-s0 crashed its worker 3 times with no progress"]),
    ],
    ids=["fresh", "two crashes", "three crashes", "failed again", "failed by an exception", "not retried", "first try"],
)
def test_a_retry_has_three_crashes_of_its_own(tmp_path: Path, second, failed, retry, calls):
    """Crashes and failures before the launch that retries the run don't count; its own count as usual."""
    found = calls_after(SweepFolder(tmp_path), crashes={"first": 3, "second": second}, failed=failed, retry=retry)
    assert found == calls
