"""Seconds lost to failures and deaths, from journals and progress files written here by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from study.records.lost_time import lost_seconds
from study.records.record import Attempts, Record
from study.records.sweep_folder import SweepFolder


def journal(folder: SweepFolder, writer: str, *lines: tuple[str, str, int, float, str]) -> None:
    """A journal of lines (event, run, step, time, reason)."""
    folder.journals.mkdir(parents=True, exist_ok=True)
    names = ("event", "run_id", "step", "time", "reason")
    text = "".join(json.dumps(dict(zip(names, line, strict=True))) + "\n" for line in lines)
    (folder.journals / f"{writer}.jsonl").write_text(text)


def progress(folder: SweepFolder, writer: str, run_id: str, *, step: int, time: float) -> None:
    folder.progress.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {"run_id": run_id, "step": step, "time": time}
    (folder.progress / f"{writer}.json").write_text(json.dumps(document))


def recorded(run_id: str, status: str) -> dict[str, Attempts]:
    return {run_id: Attempts(Record(run_id, status, {}, {}, {}), "here", 1)}  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path)


def test_an_undisturbed_run_lost_nothing_and_one_that_nobody_began_is_unknown(folder: SweepFolder) -> None:
    """Zero is measured; what no journal knows has no entry."""
    journal(folder, "l-0-0", ("start", "", 0, 0.0, ""), ("begin", "a", 0, 1.0, ""), ("end", "a", 0, 9.0, "done"))
    assert lost_seconds(folder, recorded("a", "done")) == {"a": 0.0}


def test_a_failed_attempt_is_lost_whole(folder: SweepFolder) -> None:
    """A failure from second 1 to 9 costs 8 seconds, also where the next attempt succeeds."""
    journal(folder, "l-0-0", ("begin", "a", 0, 1.0, ""), ("end", "a", 0, 9.0, "failed"))
    journal(folder, "m-0-0", ("begin", "a", 0, 20.0, ""), ("end", "a", 0, 50.0, "done"))
    assert lost_seconds(folder, recorded("a", "done")) == {"a": 8.0}


@pytest.mark.parametrize(("saved", "lost"), [(0, 10.0), (50, 5.0), (75, 2.5), (100, 0.0)])
def test_a_death_loses_what_was_not_saved(folder: SweepFolder, saved: int, lost: float) -> None:
    """A worker that took 100 steps in 10 seconds and died loses the share of them that the next one starts before."""
    journal(folder, "l-0-0", ("begin", "a", 0, 0.0, ""))
    progress(folder, "l-0-0", "a", step=100, time=10.0)
    journal(folder, "l-0-1", ("begin", "a", saved, 60.0, ""), ("end", "a", 0, 70.0, "done"))
    assert lost_seconds(folder, recorded("a", "done"))["a"] == pytest.approx(lost)


def test_an_orderly_stop_loses_nothing(folder: SweepFolder) -> None:
    """A preempted worker has saved its state: stopping and going on is no loss."""
    journal(folder, "l-0-0", ("begin", "a", 0, 0.0, ""), ("stop", "a", 0, 10.0, "signal"), ("exit", "", 0, 11.0, "SIGUSR2"))
    progress(folder, "l-0-0", "a", step=100, time=10.0)
    journal(folder, "l-0-1", ("begin", "a", 100, 60.0, ""), ("end", "a", 0, 70.0, "done"))
    assert lost_seconds(folder, recorded("a", "done")) == {"a": 0.0}


def test_a_run_under_way_has_lost_nothing_yet(folder: SweepFolder) -> None:
    """Whether a worker that has begun a run is dead or busy, the journal can't tell before somebody begins it anew."""
    journal(folder, "l-0-0", ("begin", "a", 0, 0.0, ""))
    progress(folder, "l-0-0", "a", step=100, time=10.0)
    assert lost_seconds(folder, {}) == {"a": 0.0}


def test_a_run_given_up_after_deaths_lost_all_of_them(folder: SweepFolder) -> None:
    """Three deaths in a row, from the same step on, and a failure on record: every attempt is lost."""
    for life in range(3):
        journal(folder, f"l-0-{life}", ("begin", "a", 0, 100.0 * life, ""))
        progress(folder, f"l-0-{life}", "a", step=20, time=100.0 * life + 4)
    assert lost_seconds(folder, recorded("a", "failed")) == {"a": 12.0}


def test_progress_of_another_run_is_no_evidence(folder: SweepFolder) -> None:
    """A worker that died before the first step of a run left the progress of the one before: nothing was lost of this one."""
    journal(folder, "l-0-0", ("begin", "b", 0, 0.0, ""), ("end", "b", 0, 9.0, "done"), ("begin", "a", 0, 9.0, ""))
    progress(folder, "l-0-0", "b", step=100, time=9.0)
    journal(folder, "l-0-1", ("begin", "a", 0, 60.0, ""), ("end", "a", 0, 70.0, "done"))
    assert lost_seconds(folder, {}) == {"b": 0.0, "a": 0.0}
