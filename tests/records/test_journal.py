"""Crashes are counted from the journals of crashed workers, and only those with no progress."""

from __future__ import annotations

import os

import pytest

from study.errors import UserError
from study.records.journal import Journal, count_crashes, read_journals
from study.records.progress_file import WorkerProgress, read_latest_progress, write_progress
from study.records.record import read_records
from study.records.sweep_folder import SweepFolder, Writer


def entries(tmp_path, *processes):
    """Write one journal per process, a list of (event, step), and read all of them back."""
    folder = SweepFolder(tmp_path)
    for restart, events in enumerate(processes):
        journal = Journal(folder, Writer("launch", 0, restart))
        journal.write("start")
        for event, step in events:
            journal.write(event, run_id="run", step=step)
        journal.close()
    return read_journals(folder)


@pytest.mark.parametrize(
    ("processes", "crashes"),
    [
        ([], 0),
        ([[("begin", 0), ("end", 0)]], 0),
        ([[("begin", 0)]], 1),
        ([[("begin", 0)], [("begin", 0)], [("begin", 0)]], 3),
        ([[("begin", 0), ("stop", 0)], [("begin", 0), ("stop", 0)], [("begin", 0), ("stop", 0)]], 0),
        ([[("begin", 0)], [("begin", 0)], [("begin", 40)]], 1),
        ([[("begin", 0)], [("begin", 40)], [("begin", 40)]], 2),
    ],
    ids=["nothing", "ended", "one crash", "three crashes", "preempted thrice", "progress", "stuck later"],
)
def test_crashes_are_counted_per_step(tmp_path, processes, crashes):
    """A begin with no end and no stop by the same process is a crash; a later step restarts the count."""
    assert count_crashes(entries(tmp_path, *processes), "run") == crashes


def test_crashes_of_another_run_dont_count(tmp_path):
    """The count is per run."""
    assert count_crashes(entries(tmp_path, [("begin", 0)]), "other") == 0


WRONG_LINES = (
    "null",
    "[]",
    "1",
    "{",
    "\\xff",
    "[" * 100_000,
    "{}",
    '{"event": 1}',
    '{"event": "begin", "run_id": [], "step": 0}',
)


@pytest.mark.parametrize("line", WRONG_LINES, ids=range(len(WRONG_LINES)))
@pytest.mark.parametrize("place", ["journals", "records"])
def test_a_line_of_another_shape_is_named(tmp_path, line, place):
    """Right syntax and wrong shape is a mistake with file and line, in journals and records alike."""
    entries(tmp_path, [("begin", 0)])
    path = tmp_path / place / "launch-0-1.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text(line + "\n")
    with pytest.raises(UserError, match=f"{place}/launch-0-1.jsonl:1: "):
        read_journals(SweepFolder(tmp_path)) if place == "journals" else read_records(tmp_path / place)


@pytest.mark.parametrize("place", ["journals", "records"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "dead link"])
def test_what_is_no_file_is_named(tmp_path, place, kind):
    """A pipe would hang."""
    path = tmp_path / place / "launch-0-1.jsonl"
    path.parent.mkdir()
    os.mkfifo(path) if kind == "pipe" else path.mkdir() if kind == "folder" else path.symlink_to("nowhere")
    with pytest.raises(UserError, match=r"launch-0-1\.jsonl: this file (is missing|can't be read)"):
        read_journals(SweepFolder(tmp_path)) if place == "journals" else read_records(tmp_path / place)


def test_files_with_other_names_count_for_nothing(tmp_path):
    """A user's copy beside a journal or a progress file is no other worker."""
    folder, before = SweepFolder(tmp_path), entries(tmp_path, [("begin", 0)])
    for name in ("copy of launch-0-0 (1)", "a", "launch-0-x", "-"):
        (folder.journals / f"{name}.jsonl").write_text("null\n")
        folder.progress.mkdir(exist_ok=True)
        (folder.progress / f"{name}.json").write_text("null")
    assert read_journals(folder) == before and read_latest_progress(folder) == {}


@pytest.mark.parametrize("content", ["", "null", "[]", "{", "{}", "[" * 100_000, '{"run_id": "a"}'], ids=range(7))
def test_damaged_progress_is_no_progress(tmp_path, content):
    """It is only shown: the others' is shown still."""
    folder = SweepFolder(tmp_path)
    progress = WorkerProgress("a", 1.0, "cpu", 1, 2, 3, 4, 0.5, None, 6.0, 7.0)
    write_progress(folder, Writer("launch", 0, 0), progress)
    (folder.progress / "launch-1-0.json").write_text(content)
    assert read_latest_progress(folder) == {("launch", 0): progress}
