"""POSIX record locks that end with their process, however it ends, and show other hosts who is alive.

`fcntl.lockf` works over NFS. A process must not test a lock that it holds itself: closing any descriptor of a file drops
the process's own locks on it. Whether a lock is held is asked with a shared lock, for which reading is enough: the sweep may
be someone else's, or on a read-only disk.
"""

import contextlib
import fcntl
import os
import random
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from study.atomic_io import make_folder, refusal
from study.errors import Problem, UserError
from study.records.sweep_folder import SweepFolder

ASKED_AT_ONCE = 20
LAUNCH_TIMEOUT_S = 60.0
WORKER_TIMEOUT_S = 3600.0  # a launch of thousands of workers holds the lock until the last array is submitted


@contextlib.contextmanager
def sweep_lock(folder: SweepFolder, *, timeout_s: float = LAUNCH_TIMEOUT_S) -> Iterator[None]:
    """Hold the sweep's lock exclusively. Raises UserError, naming the holder, if it can't be acquired in time."""
    with contextlib.ExitStack() as held:
        with refusal("lock", folder.lock):
            make_folder(folder.path)
            file = held.enter_context(open(folder.lock, "a+", encoding="utf-8"))
            _acquire(file.fileno(), fcntl.LOCK_EX, timeout_s=timeout_s, path=folder.lock)
            file.truncate(0)
            file.write(f"host {socket.gethostname()}, process {os.getpid()}")
            file.flush()
        yield


@contextlib.contextmanager
def shared_sweep_lock(folder: SweepFolder, *, timeout_s: float = WORKER_TIMEOUT_S) -> Iterator[None]:
    """Exclude launches, but not other workers: what is done inside comes wholly before or after any launch's assignment."""
    with contextlib.ExitStack() as held:
        with refusal("lock", folder.lock):
            file = held.enter_context(open(folder.lock, "a+", encoding="utf-8"))
            _acquire(file.fileno(), fcntl.LOCK_SH, timeout_s=timeout_s, path=folder.lock)
        yield


def _acquire(descriptor: int, kind: int, *, timeout_s: float, path: Path) -> None:
    deadline = time.monotonic() + timeout_s
    while not _try_lock(descriptor, kind):
        if time.monotonic() > deadline:
            holder = path.read_text(encoding="utf-8", errors="replace").strip() or "unknown"
            raise UserError(Problem(f"another launch holds this sweep's lock ({holder})", place=str(path)))
        time.sleep(random.uniform(0.05, 0.5))  # at random, so that many waiting workers don't retry in step


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.lockf(descriptor, kind | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


@dataclass(frozen=True)
class ProcessLock:
    """A lock file held while a local worker or launch is alive."""

    path: Path

    def acquire(self) -> None:
        """Hold the lock until this process ends. Raises UserError if another live process holds it."""
        with refusal("lock", self.path):
            make_folder(self.path.parent)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)  # never closed: the system does that at the end
            for _ in range(ASKED_AT_ONCE):
                if _try_lock(descriptor, fcntl.LOCK_EX):
                    return
                time.sleep(random.uniform(0.01, 0.1))  # someone may just be asking whether the lock is held
        raise UserError(Problem("another live process holds this lock, so this one ends", place=str(self.path)))

    def is_held(self) -> bool:
        """Whether another live process holds the lock."""
        if not self.path.exists():
            return False
        with refusal("lock", self.path), open(self.path, encoding="utf-8") as file:
            return not _try_lock(file.fileno(), fcntl.LOCK_SH)


def worker_lock(folder: SweepFolder, worker: tuple[str, int]) -> ProcessLock:
    """Held by a local worker."""
    return ProcessLock(folder.launches / worker[0] / "workers" / f"{worker[1]}.lock")


def launcher_lock(folder: SweepFolder, launch_id: str) -> ProcessLock:
    """Held by a local launch from before its ledger entry until its workers have ended, which covers their start-up."""
    return ProcessLock(folder.launches / launch_id / "launcher.lock")
