"""Seconds lost to failures and crashes, from journals and progress files written here by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from study.records.lost_time import compute_lost_seconds
from study.records.progress_file import WorkerProgress, write_progress
from study.records.record import Attempts, Record
from study.records.sweep_folder import SweepFolder, Writer


def journal(folder: SweepFolder, writer: str, *lines: tuple[str, str, int, float, str]) -> None:
    """A journal of lines (event, run, step, time, reason)."""
    folder.journals.mkdir(parents=True, exist_ok=True)
    names = ("event", "run_id", "step", "time", "reason")
    text = "".join(json.dumps(dict(zip(names, line, strict=True))) + "\n" for line in lines)
    (folder.journals / f"{writer}.jsonl").write_text(text)


def progress(folder: SweepFolder, writer: str, run_id: str, *, step: int, time: float) -> None:
    figures = {"epoch": 1, "epochs": 1, "steps": 100, "train_loss": 0.0, "val_accuracy": None}
    rates = {"images_per_second": 1.0, "eta_seconds": 0.0}
    write_progress(folder, Writer.parse(writer), WorkerProgress(run_id, time=time, device="cpu", step=step, **figures, **rates))


def recorded(run_id: str, status: str) -> dict[str, Attempts]:
    return {run_id: Attempts(Record(run_id, status, {}, {}, {}), "here", 1)}  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path)


def test_an_undisturbed_run_lost_nothing_and_one_that_never_began_is_unknown(folder: SweepFolder) -> None:
    """Zero is measured; a run that is in no journal has no entry."""
    journal(folder, "l-0-0", ("start", "", 0, 0.0, ""), ("begin", "a", 0, 1.0, ""), ("end", "a", 0, 9.0, "done"))
    assert compute_lost_seconds(folder, recorded("a", "done")) == {"a": 0.0}


def test_a_failed_attempt_is_lost_completely(folder: SweepFolder) -> None:
    """A failure from second 1 to 9 costs 8 seconds, also if the next attempt succeeds."""
    journal(folder, "l-0-0", ("begin", "a", 0, 1.0, ""), ("end", "a", 0, 9.0, "failed"))
    journal(folder, "m-0-0", ("begin", "a", 0, 20.0, ""), ("end", "a", 0, 50.0, "done"))
    assert compute_lost_seconds(folder, recorded("a", "done")) == {"a": 8.0}


@pytest.mark.parametrize(("saved", "lost"), [(0, 10.0), (50, 5.0), (75, 2.5), (100, 0.0)])
def test_a_crash_loses_the_unsaved_steps(folder: SweepFolder, saved: int, lost: float) -> None:
    """A worker that crashed after 100 steps in 10 seconds loses the share of them that the next one repeats."""
    journal(folder, "l-0-0", ("begin", "a", 0, 0.0, ""))
    progress(folder, "l-0-0", "a", step=100, time=10.0)
    journal(folder, "l-0-1", ("begin", "a", saved, 60.0, ""), ("end", "a", 0, 70.0, "done"))
    assert compute_lost_seconds(folder, recorded("a", "done"))["a"] == pytest.approx(lost)


def test_an_orderly_stop_loses_nothing(folder: SweepFolder) -> None:
    """A preempted worker has saved its state: stopping and resuming is no loss."""
    journal(folder, "l-0-0", ("begin", "a", 0, 0.0, ""), ("stop", "a", 0, 10.0, "signal"), ("exit", "", 0, 11.0, "SIGUSR2"))
    progress(folder, "l-0-0", "a", step=100, time=10.0)
    journal(folder, "l-0-1", ("begin", "a", 100, 60.0, ""), ("end", "a", 0, 70.0, "done"))
    assert compute_lost_seconds(folder, recorded("a", "done")) == {"a": 0.0}


def test_an_active_run_has_lost_nothing_yet(folder: SweepFolder) -> None:
    """The journal shows only with the next attempt that a worker has crashed and isn't just busy."""
    journal(folder, "l-0-0", ("begin", "a", 0, 0.0, ""))
    progress(folder, "l-0-0", "a", step=100, time=10.0)
    assert compute_lost_seconds(folder, {}) == {"a": 0.0}


def test_a_run_recorded_as_failed_after_crashes_lost_all_attempts(folder: SweepFolder) -> None:
    """Three crashes in a row, from the same step on, and a recorded failure: every attempt is lost."""
    for restart in range(3):
        journal(folder, f"l-0-{restart}", ("begin", "a", 0, 100.0 * restart, ""))
        progress(folder, f"l-0-{restart}", "a", step=20, time=100.0 * restart + 4)
    assert compute_lost_seconds(folder, recorded("a", "failed")) == {"a": 12.0}


def test_progress_of_another_run_is_ignored(folder: SweepFolder) -> None:
    """A worker that crashed before the first step of a run left the progress of the run before: nothing was lost."""
    journal(folder, "l-0-0", ("begin", "b", 0, 0.0, ""), ("end", "b", 0, 9.0, "done"), ("begin", "a", 0, 9.0, ""))
    progress(folder, "l-0-0", "b", step=100, time=9.0)
    journal(folder, "l-0-1", ("begin", "a", 0, 60.0, ""), ("end", "a", 0, 70.0, "done"))
    assert compute_lost_seconds(folder, {}) == {"b": 0.0, "a": 0.0}
