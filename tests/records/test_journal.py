"""Crashes are counted from the journals of crashed workers, and only those with no progress."""

from __future__ import annotations

import pytest

from study.records.journal import Journal, count_crashes, read_journals
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
