"""Ownership: the newest live worker owns a run, dead workers own nothing, locks end with their process."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from specimens import RUN

from study.errors import UserError
from study.launcher.liveness import check_liveness
from study.records.ledger import (
    Launch,
    ShareEntry,
    cancel_runs,
    new_launch_id,
    read_all_assignees,
    read_reassigned,
    resolve_owners,
    write_launch,
)
from study.records.locks import launcher_lock, shared_sweep_lock, sweep_lock, worker_lock
from study.records.plan_file import PlannedEntry
from study.records.sweep_folder import SweepFolder


def entry(run_id):
    return ShareEntry(PlannedEntry(run_id, run=RUN, cost={}, match={}))


def launch(folder, name, *shares):
    made = Launch(id=name, cluster="local", plan="p", code="c", tasks=len(shares), tasks_per_job=1, device="cpu", provenance={})
    write_launch(folder, made, [[entry(run_id) for run_id in share] for share in shares])
    return made


@contextmanager
def holding(path):
    """Another process that holds the lock file until it is killed."""
    hold = f"from study.records.locks import ProcessLock; ProcessLock(Path({str(path)!r})).acquire();"
    with another_process(hold) as process:
        yield process


@contextmanager
def looking(folder):
    """Another process that holds the lock of a worker that reads the ledger."""
    look = (
        f"from study.records.locks import shared_sweep_lock as look; from study.records.sweep_folder import SweepFolder;"
        f"lock = look(SweepFolder(Path({str(folder.path)!r}))); lock.__enter__();"
    )
    with another_process(look) as process:
        yield process


@contextmanager
def another_process(code):
    """A process that has run a line of code, until it is killed."""
    program = f"from pathlib import Path; {code} print('held', flush=True); import time; time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_only_live_workers_own(tmp_path):
    """A run belongs to the live worker whose share has it, and is unassigned once that worker is dead."""
    folder = SweepFolder(tmp_path)
    launch(folder, "a", ["r0", "r1"], ["r2"])
    assert resolve_owners(folder, {("a", 0)}, training={}) == {"r0": ("a", 0), "r1": ("a", 0)}
    assert resolve_owners(folder, set(), training={}) == {}


def test_the_newest_live_owner_counts(tmp_path):
    """Of two live workers with the same run, the one of the later launch owns it; the older one sees the reassignment."""
    folder = SweepFolder(tmp_path)
    launch(folder, "a", ["r0", "r1"])
    launch(folder, "b", ["r1"])
    assert resolve_owners(folder, {("a", 0), ("b", 0)}, training={})["r1"] == ("b", 0)
    assert read_reassigned(folder, "a") == {"r1"}
    assert read_reassigned(folder, "b") == set()


def test_a_killed_process_drops_its_lock(tmp_path):
    """kill -9 of the holder frees the lock at once: nothing stale can block a sweep."""
    folder = SweepFolder(tmp_path)
    launch(folder, "a", ["r0"], ["r1"])
    with holding(worker_lock(folder, ("a", 1)).path) as process:
        assert check_liveness(folder).alive == {("a", 1)}
        process.kill()
        process.wait()
        assert check_liveness(folder).alive == set()


def test_a_live_launcher_covers_its_workers_start(tmp_path):
    """Between the ledger entry and the workers' own locks, the launcher's lock counts for all of them."""
    folder = SweepFolder(tmp_path)
    launch(folder, "a", ["r0"], ["r1"])
    with holding(launcher_lock(folder, "a").path):
        assert check_liveness(folder).alive == {("a", 0), ("a", 1)}


def test_a_launch_without_its_entry_does_not_exist(tmp_path):
    """launch.json is written last: a launcher killed between shares and entry has launched nothing."""
    folder = SweepFolder(tmp_path)
    launch(folder, "a", ["r0"])
    (folder.launches / "a" / "launch.json").unlink()
    assert folder.launch_ids() == []


def test_the_sweep_lock_excludes_and_names_its_holder(tmp_path):
    """A second launch waits, then names the holder."""
    folder = SweepFolder(tmp_path)
    with holding(folder.lock), pytest.raises(UserError, match="another launch holds"), sweep_lock(folder, timeout_s=0.3):
        pass
    with sweep_lock(folder, timeout_s=0.3):
        assert "process" in folder.lock.read_text()


def test_workers_do_not_wait_for_each_other_but_for_a_launch(tmp_path):
    """Any number of workers read the ledger at once; a launch excludes them, and they exclude a launch."""
    folder = SweepFolder(tmp_path)
    with shared_sweep_lock(folder), looking(folder), pytest.raises(UserError), sweep_lock(folder, timeout_s=0.3):
        pass
    with holding(folder.lock), pytest.raises(UserError), shared_sweep_lock(folder, timeout_s=0.3):
        pass


def test_a_cancelled_run_is_owned_until_its_worker_has_stopped(tmp_path):
    """Cancelled runs are unassigned, except for the run that the worker is still training."""
    folder = SweepFolder(tmp_path)
    launch(folder, "a", ["r0", "r1", "r2"])
    cancel_runs(folder, "a", ["r0", "r1"])
    cancel_runs(folder, "a", ["r1"])
    assert set(resolve_owners(folder, {("a", 0)}, training={("a", 0): "r1"})) == {"r1", "r2"}
    assert set(resolve_owners(folder, {("a", 0)}, training={("a", 0): "r2"})) == {"r2"}


def test_all_assignees_of_a_run_are_known(tmp_path):
    """Journals and records of a run are read from its assignees only, whether they are alive or not."""
    folder = SweepFolder(tmp_path)
    launch(folder, "a", ["r0", "r1"], ["r2"])
    launch(folder, "b", ["r1"])
    assert read_all_assignees(folder, {"r1"}) == {("a", 0), ("b", 0)}


def test_a_later_launch_has_a_greater_id(tmp_path):
    """Also within a second, and also if this host's clock is an hour slow: the newest launch counts."""
    folder = SweepFolder(tmp_path)
    ids = []
    for _ in range(3):
        ids.append(new_launch_id(folder))
        launch(folder, ids[-1], ["r0"])
    assert ids == sorted(set(ids)) and all(name.isalnum() for name in ids)
    ahead = time.strftime("%Y%m%dt%H%M%S", time.gmtime(time.time() + 3600)) + "x0000"
    launch(folder, ahead, ["r0"])
    assert new_launch_id(folder) > ahead
