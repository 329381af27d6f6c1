"""Deaths are counted from what workers wrote before they died, and only those without progress."""

from __future__ import annotations

import pytest

from study.records.journal import Journal, deaths_without_progress, read_journals
from study.records.sweep_folder import SweepFolder, Writer


def entries(tmp_path, *lives):
    """Writes one journal per life, a list of (event, step), and reads all of them back."""
    folder = SweepFolder(tmp_path)
    for restart, life in enumerate(lives):
        journal = Journal(folder, Writer("launch", 0, restart))
        journal.note("start")
        for event, step in life:
            journal.note(event, run_id="run", step=step)
        journal.close()
    return read_journals(folder)


@pytest.mark.parametrize(
    ("lives", "deaths"),
    [
        ([], 0),
        ([[("begin", 0), ("end", 0)]], 0),
        ([[("begin", 0)]], 1),
        ([[("begin", 0)], [("begin", 0)], [("begin", 0)]], 3),
        ([[("begin", 0), ("stop", 0)], [("begin", 0), ("stop", 0)], [("begin", 0), ("stop", 0)]], 0),
        ([[("begin", 0)], [("begin", 0)], [("begin", 40)]], 1),
        ([[("begin", 0)], [("begin", 40)], [("begin", 40)]], 2),
    ],
    ids=["nothing", "ended", "one death", "three deaths", "preempted thrice", "progress", "stuck later"],
)
def test_deaths_without_progress(tmp_path, lives, deaths):
    """A begin with no end and no stop in the same life is a death; a later step starts the count anew."""
    assert deaths_without_progress(entries(tmp_path, *lives), "run") == deaths


def test_another_runs_deaths_dont_count(tmp_path):
    """The count is per run."""
    assert deaths_without_progress(entries(tmp_path, [("begin", 0)]), "other") == 0
