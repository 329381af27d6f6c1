"""Ownership: newest live worker, dead ones own nothing, locks end with their process."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from study.cluster.ledger import (
    Launch,
    alive_locally,
    handed_on,
    launcher_sign,
    new_launch_id,
    owners,
    sweep_lock,
    worker_sign,
    write_launch,
)
from study.errors import UserError
from study.records.folder import SweepFolder


def launch(folder, name, *shares):
    made = Launch(id=name, cluster="local", plan="p", code="c", tasks=len(shares), tasks_per_job=1, array_size=0,
                  device="cpu", provenance={})
    write_launch(folder, made, [[{"run_id": run} for run in share] for share in shares])
    return made


@contextmanager
def holding(path):
    """Another process that holds the lock file until it is killed."""
    program = (f"from pathlib import Path; from study.cluster.ledger import LifeSign; LifeSign(Path({str(path)!r})).hold();"
               "print('held', flush=True); import time; time.sleep(60)")
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
    """A run belongs to the live worker whose share holds it, and to nobody once that worker is dead."""
    folder = SweepFolder(tmp_path)
    launch(folder, "a", ["r0", "r1"], ["r2"])
    assert owners(folder, {("a", 0)}) == {"r0": ("a", 0), "r1": ("a", 0)}
    assert owners(folder, set()) == {}


def test_the_newest_live_owner_counts(tmp_path):
    """Of two live workers that hold a run the one of the later launch owns it; the older one is told so."""
    folder = SweepFolder(tmp_path)
    launch(folder, "a", ["r0", "r1"])
    launch(folder, "b", ["r1"])
    assert owners(folder, {("a", 0), ("b", 0)})["r1"] == ("b", 0)
    assert handed_on(folder, "a") == {"r1"}
    assert handed_on(folder, "b") == set()


def test_a_killed_process_drops_its_lock(tmp_path):
    """kill -9 of the holder frees the sign at once: nothing stale can block a sweep."""
    folder = SweepFolder(tmp_path)
    launch(folder, "a", ["r0"], ["r1"])
    with holding(worker_sign(folder, ("a", 1)).path) as process:
        assert alive_locally(folder) == {("a", 1)}
        process.kill()
        process.wait()
        assert alive_locally(folder) == set()


def test_a_living_launcher_covers_its_workers_start(tmp_path):
    """Between the ledger entry and the workers' own locks the launcher's lock speaks for all of them."""
    folder = SweepFolder(tmp_path)
    launch(folder, "a", ["r0"], ["r1"])
    with holding(launcher_sign(folder, "a").path):
        assert alive_locally(folder) == {("a", 0), ("a", 1)}


def test_a_launch_without_its_entry_does_not_exist(tmp_path):
    """launch.json is written last: a launcher killed between shares and entry has launched nothing."""
    folder = SweepFolder(tmp_path)
    launch(folder, "a", ["r0"])
    (folder.launches / "a" / "launch.json").unlink()
    assert folder.launch_ids() == []


def test_the_sweeps_lock_excludes_and_names_its_holder(tmp_path):
    """A second launch waits, then says who is in its way."""
    folder = SweepFolder(tmp_path)
    with holding(folder.lock), pytest.raises(UserError, match="another launch holds"), sweep_lock(folder, patience_s=0.3):
        pass
    with sweep_lock(folder, patience_s=0.3):
        assert "process" in folder.lock.read_text()


def test_launch_ids_sort_by_time():
    """A later launch has a greater id, also when it is unique by chance only."""
    first = new_launch_id()
    time.sleep(1.1)
    assert first < new_launch_id()
    assert first.isalnum()
