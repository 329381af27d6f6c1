"""How runs are executed is decided once for a sweep and a kind of device, and changes only where it is asked for, and told."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from study.launcher import execution
from study.launcher.execution import decide_execution, describe_execution
from study.records.ledger import Execution, Launch, read_launch, write_launch
from study.records.sweep_folder import SweepFolder


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    monkeypatch.setattr(execution, "_can_compile_kernels", lambda: True)


def launch(folder: SweepFolder, name: str, *, device="cpu", threads: int, asked: int | None = None, here=True) -> Launch:
    """Decide and write a launch; returned as it is read again."""
    now, first = decide_execution(folder, device, threads=threads, asked=asked, here=here)
    made = Launch(name, "local", "p", "c", 1, 1, device="auto", provenance={}, execution=now, first_execution=first)
    write_launch(folder, made, [[]])
    back = read_launch(folder, name)
    assert back == replace(made, track=back.track)
    return back


def record(folder: SweepFolder) -> None:
    folder.records.mkdir()
    (folder.records / "a-0-0.jsonl").touch()


def test_the_first_launch_decides_for_all_that_follow(tmp_path):
    """Whatever a later launch would choose, also from a newer benchmark; another kind of device has its own."""
    folder = SweepFolder(tmp_path)
    first = launch(folder, "a", threads=2)
    assert first.execution == Execution("cpu", threads=2, benchmark=None, kernels=True)
    folder.benchmarks.mkdir()
    (folder.benchmarks / "2026.json").touch()
    record(folder)
    later = launch(folder, "b", threads=16, here=False)
    assert later.execution == first.execution and later.changes == ()
    other = launch(folder, "c", device="cuda", threads=4)
    assert other.execution == Execution("cuda", threads=4, benchmark="2026.json") and other.changes == ()
    assert [line.partition(":")[0] for line in describe_execution(folder)] == [
        "execution on cpu, kept for all launches",
        "execution on cuda, kept for all launches",
    ]


def test_a_change_is_asked_for_and_told_from_then_on(tmp_path):
    """Changes are counted from the recorded runs' execution, so that going back to it is exact again."""
    folder = SweepFolder(tmp_path)
    launch(folder, "a", threads=2)
    assert launch(folder, "b", threads=1, asked=3).changes == ()  # nothing was recorded yet
    record(folder)
    assert launch(folder, "c", threads=1, asked=4).changes == ("threads: 3 -> 4",)
    assert launch(folder, "d", threads=1).changes == ("threads: 3 -> 4",)
    assert launch(folder, "e", threads=1, asked=3).changes == ()


def test_launches_of_earlier_versions_have_decided_nothing(tmp_path):
    """Their entries are read; the next launch decides."""
    folder = SweepFolder(tmp_path)
    launch(folder, "a", threads=2)
    path = folder.launches / "a/launch.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in document.items() if "execution" not in key}))
    assert read_launch(folder, "a").execution is None
    assert launch(folder, "b", threads=5).threads == 5
