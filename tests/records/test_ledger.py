"""Ownership: newest live worker, dead ones own nothing, locks end with their process."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from study.errors import UserError
from study.launcher.liveness import life_of
from study.records.ledger import Launch, all_holders, handed_on, new_launch_id, owners, withdraw, write_launch
from study.records.locks import launcher_sign, no_launch_meanwhile, sweep_lock, worker_sign
from study.records.sweep_folder import SweepFolder


def launch(folder, name, *shares):
    made = Launch(id=name, cluster="local", plan="p", code="c", tasks=len(shares), tasks_per_job=1, device="cpu", provenance={})
    write_launch(folder, made, [[{"run_id": run} for run in share] for share in shares])
    return made


@contextmanager
def holding(path):
    """Another process that holds the lock file until it is killed."""
    hold = f"from study.records.locks import LifeSign; LifeSign(Path({str(path)!r})).hold();"
    with another_process(hold) as process:
        yield process


@contextmanager
def looking(folder):
    """Another process amid a worker's look at the ledger."""
    look = (
        f"from study.records.locks import no_launch_meanwhile as look; from study.records.sweep_folder import SweepFolder;"
        f"lock = look(SweepFolder(Path({str(folder.path)!r}))); lock.__enter__();"
    )
    with another_process(look) as process:
        yield process


@contextmanager
def another_process(does):
    """A process that has done this, until it is killed."""
    program = f"from pathlib import Path; {does} print('held', flush=True); import time; time.sleep(60)"
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
    assert owners(folder, {("a", 0)}, training={}) == {"r0": ("a", 0), "r1": ("a", 0)}
    assert owners(folder, set(), training={}) == {}


def test_the_newest_live_owner_counts(tmp_path):
    """Of two live workers that hold a run the one of the later launch owns it; the older one is told so."""
    folder = SweepFolder(tmp_path)
    launch(folder, "a", ["r0", "r1"])
    launch(folder, "b", ["r1"])
    assert owners(folder, {("a", 0), ("b", 0)}, training={})["r1"] == ("b", 0)
    assert handed_on(folder, "a") == {"r1"}
    assert handed_on(folder, "b") == set()


def test_a_killed_process_drops_its_lock(tmp_path):
    """kill -9 of the holder frees the sign at once: nothing stale can block a sweep."""
    folder = SweepFolder(tmp_path)
    launch(folder, "a", ["r0"], ["r1"])
    with holding(worker_sign(folder, ("a", 1)).path) as process:
        assert life_of(folder).working == {("a", 1)}
        process.kill()
        process.wait()
        assert life_of(folder).working == set()


def test_a_living_launcher_covers_its_workers_start(tmp_path):
    """Between the ledger entry and the workers' own locks the launcher's lock speaks for all of them."""
    folder = SweepFolder(tmp_path)
    launch(folder, "a", ["r0"], ["r1"])
    with holding(launcher_sign(folder, "a").path):
        assert life_of(folder).working == {("a", 0), ("a", 1)}


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


def test_workers_do_not_wait_for_each_other_but_for_a_launch(tmp_path):
    """Any number of workers look at the ledger at once; a launch keeps them out, and they keep a launch out."""
    folder = SweepFolder(tmp_path)
    with no_launch_meanwhile(folder), looking(folder), pytest.raises(UserError), sweep_lock(folder, patience_s=0.3):
        pass
    with holding(folder.lock), pytest.raises(UserError), no_launch_meanwhile(folder, patience_s=0.3):
        pass


def test_a_withdrawn_run_is_owned_until_it_is_let_go_of(tmp_path):
    """What is cancelled belongs to nobody, but for the run that its worker is still at."""
    folder = SweepFolder(tmp_path)
    launch(folder, "a", ["r0", "r1", "r2"])
    withdraw(folder, "a", ["r0", "r1"])
    withdraw(folder, "a", ["r1"])
    assert set(owners(folder, {("a", 0)}, training={("a", 0): "r1"})) == {"r1", "r2"}
    assert set(owners(folder, {("a", 0)}, training={("a", 0): "r2"})) == {"r2"}


def test_whoever_was_given_a_run_is_known(tmp_path):
    """Traces of a run are sought with its holders alone, whether they live or not."""
    folder = SweepFolder(tmp_path)
    launch(folder, "a", ["r0", "r1"], ["r2"])
    launch(folder, "b", ["r1"])
    assert all_holders(folder, {"r1"}) == {("a", 0), ("b", 0)}


def test_a_later_launch_has_a_greater_id(tmp_path):
    """Also within a second, and also where this host's clock is an hour late: the newest launch counts."""
    folder = SweepFolder(tmp_path)
    ids = []
    for _ in range(3):
        ids.append(new_launch_id(folder))
        launch(folder, ids[-1], ["r0"])
    assert ids == sorted(set(ids)) and all(name.isalnum() for name in ids)
    ahead = time.strftime("%Y%m%dt%H%M%S", time.gmtime(time.time() + 3600)) + "x0000"
    launch(folder, ahead, ["r0"])
    assert new_launch_id(folder) > ahead
