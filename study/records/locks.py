"""Locks that end with their process, however it ends; others see by them who is alive, on any host that shares the folder.

They are POSIX record locks (`fcntl.lockf`), which NFS knows. A process must not ask whether it holds a lock itself:
closing any descriptor of a file drops the process's own POSIX locks on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from study.errors import Problem, UserError
from study.records.sweep_folder import SweepFolder

LAUNCH_PATIENCE_S = 60.0
WORKER_PATIENCE_S = 3600.0  # a launch of thousands of workers holds the lock until the last array is submitted


@contextlib.contextmanager
def sweep_lock(folder: SweepFolder, *, patience_s: float = LAUNCH_PATIENCE_S) -> Iterator[None]:
    """Alone with the sweep's ledger; a UserError names who holds its lock when it can't be had in time."""
    folder.path.mkdir(parents=True, exist_ok=True)
    with open(folder.lock, "a+", encoding="utf-8") as file:
        _wait_for(file.fileno(), fcntl.LOCK_EX, patience_s=patience_s, path=folder.lock)
        file.truncate(0)
        file.write(f"host {socket.gethostname()}, process {os.getpid()}")
        file.flush()
        yield


@contextlib.contextmanager
def no_launch_meanwhile(folder: SweepFolder, *, patience_s: float = WORKER_PATIENCE_S) -> Iterator[None]:
    """What is done inside comes before or after any launch's decision, never amid it. Workers don't wait for each other."""
    with open(folder.lock, "a+", encoding="utf-8") as file:
        _wait_for(file.fileno(), fcntl.LOCK_SH, patience_s=patience_s, path=folder.lock)
        yield


def _wait_for(descriptor: int, kind: int, *, patience_s: float, path: Path) -> None:
    give_up = time.monotonic() + patience_s
    while not try_lock(descriptor, kind):
        if time.monotonic() > give_up:
            holder = path.read_text(encoding="utf-8").strip() or "unknown"
            raise UserError(Problem(f"another launch holds this sweep's lock ({holder})", place=str(path)))
        time.sleep(random.uniform(0.05, 0.5))  # apart, so that many who wait don't ask in step


def try_lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Takes the record lock of an open file if nobody is in the way."""
    try:
        fcntl.lockf(descriptor, kind | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


@dataclass(frozen=True)
class LifeSign:
    """A lock file held as long as a process lives: a local worker's or launcher's."""

    path: Path

    def hold(self) -> None:
        """Takes the lock for the rest of this process's life; an assertion if another live process has it.

        The descriptor is never closed: the system does that when the process ends, however it ends.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        assert try_lock(descriptor), f"{self.path} is held by another live process"

    def held(self) -> bool:
        """Whether a live process (another one than this) holds it."""
        if not self.path.exists():
            return False
        with open(self.path, "a", encoding="utf-8") as file:
            return not try_lock(file.fileno())


def worker_sign(folder: SweepFolder, worker: tuple[str, int]) -> LifeSign:
    """Held by a local worker."""
    return LifeSign(folder.launches / worker[0] / "workers" / f"{worker[1]}.lock")


def launcher_sign(folder: SweepFolder, launch_id: str) -> LifeSign:
    """Held by a local launch from before its ledger entry until its workers have ended: covers their start-up."""
    return LifeSign(folder.launches / launch_id / "launcher.lock")
