"""Locks show who is alive and keep launches apart, in optimized Python too, which executes no assert and has no docstrings."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from study.errors import UserError, describe_refusal
from study.records import locks
from study.records.locks import launcher_lock, sweep_lock, worker_lock
from study.records.sweep_folder import SweepFolder

HOLDER = """\
import sys
from pathlib import Path
from study.records import locks
from study.records.locks import launcher_lock, sweep_lock, worker_lock
from study.records.sweep_folder import SweepFolder
folder = SweepFolder(Path(sys.argv[1]))
worker_lock(folder, ("launch", 0)).acquire()
launcher_lock(folder, "launch").acquire()
with sweep_lock(folder):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("options", [[], ["-OO"]])
def test_a_lock_is_held_as_long_as_its_process_lives(tmp_path, options):
    """Another process sees it, can't acquire it, and can as soon as the first is killed."""
    folder = SweepFolder(tmp_path)
    program = [sys.executable, *options, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        assert worker_lock(folder, ("launch", 0)).is_held() and launcher_lock(folder, "launch").is_held()
        assert not worker_lock(folder, ("launch", 1)).is_held()
        with pytest.raises(UserError, match="another live process"):
            worker_lock(folder, ("launch", 0)).acquire()
        with pytest.raises(UserError, match=f"process {holder.pid}"), sweep_lock(folder, timeout_s=0):
            pass
        holder.kill()
    assert not worker_lock(folder, ("launch", 0)).is_held() and not launcher_lock(folder, "launch").is_held()
    with sweep_lock(folder, timeout_s=0):
        pass


def test_whether_a_lock_is_held_can_be_asked_by_all_at_once(tmp_path, monkeypatch):
    """One who asks doesn't look like a holder to another, and needs no permission to write."""
    lock = worker_lock(SweepFolder(tmp_path), ("launch", 0))
    lock.path.parent.mkdir(parents=True)
    lock.path.touch()
    lock.path.chmod(0o444)
    descriptor = os.open(lock.path, os.O_RDONLY)
    modes: list[object] = []
    monkeypatch.setattr(locks, "open", lambda path, mode="r", **_: modes.append(mode) or os.fdopen(descriptor), raising=False)
    program = f"import fcntl; fcntl.lockf(f := open({str(lock.path)!r}), fcntl.LOCK_SH); print('asked', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "asked\n"
        assert not lock.is_held() and modes == ["r"]
        other.kill()


def test_a_disk_without_locks_is_named(tmp_path, monkeypatch):
    """The system's reason reaches the user with the file and the operation."""
    monkeypatch.setattr(fcntl, "lockf", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks available")))
    with pytest.raises(OSError, match="No locks") as caught, sweep_lock(SweepFolder(tmp_path)):
        pass
    assert describe_refusal(caught.value) == f"cannot lock {tmp_path / 'lock'}: No locks available"


def test_commands_explain_themselves_without_docstrings():
    """`python -OO` removes what their descriptions are taken from."""
    program = [sys.executable, "-OO", "-m", "study.status", "--help"]
    assert "usage:" in subprocess.run(program, capture_output=True, text=True, check=True).stdout
