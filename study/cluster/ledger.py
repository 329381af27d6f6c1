"""The ledger says who owns a run: the newest live worker whose share holds it; dead workers own nothing.

A launch is written here before its jobs are submitted, under the sweep's lock. Whether a worker is alive is asked elsewhere
(one squeue call, or the lock file that a local worker holds). A worker that starts takes the lock for a moment, shows that
it lives and drops what a newer launch was given in the meantime. So whichever of the two comes first, the other sees it,
and no run is trained by two live workers.

Locks are POSIX record locks (`fcntl.lockf`): they end with their process, however it ends, and NFS knows them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from study.errors import Problem, UserError
from study.records.folder import SweepFolder, write_new

Cluster = Literal["local", "slurm"]
Worker = tuple[str, int]
"""A launch id and a task number: the owner of one share."""


@dataclass(frozen=True)
class Launch:
    """One launch's immutable entry: `launches/<id>/launch.json`."""

    id: str
    cluster: Cluster
    plan: str
    code: str
    tasks: int
    tasks_per_job: int  # several workers may share one job's GPU
    array_size: int  # jobs in one array at most; 0 where there are no arrays
    device: str
    provenance: Mapping[str, Any]


def new_launch_id() -> str:
    """Sorts by time (UTC) and is unique: `20261122t143501x9f3a`; letters and digits, fit for a job name."""
    return time.strftime("%Y%m%dt%H%M%S", time.gmtime()) + "x" + secrets.token_hex(2)


def write_launch(folder: SweepFolder, launch: Launch, shares: list[list[dict[str, Any]]]) -> None:
    """The shares first, `launch.json` last: a launch exists only when it is whole."""
    assert launch.tasks == len(shares)
    for task, share in enumerate(shares):
        write_new(share_path(folder, (launch.id, task)), share)
    write_new(folder.launches / launch.id / "launch.json", asdict(launch))


def read_launch(folder: SweepFolder, launch_id: str) -> Launch:
    return Launch(**json.loads((folder.launches / launch_id / "launch.json").read_text(encoding="utf-8")))


def share_path(folder: SweepFolder, worker: Worker) -> Path:
    return folder.launches / worker[0] / "shares" / f"{worker[1]}.json"


def read_share(folder: SweepFolder, worker: Worker) -> list[dict[str, Any]]:
    """The planned runs that a worker owns, in the order it trains them."""
    share: list[dict[str, Any]] = json.loads(share_path(folder, worker).read_text(encoding="utf-8"))
    return share


def owners(folder: SweepFolder, alive: Set[Worker]) -> dict[str, Worker]:
    """For each run that a live worker owns, that worker: the newest, where several hold it."""
    owned: dict[str, Worker] = {}
    for worker in sorted(alive):
        if share_path(folder, worker).exists():
            owned |= {planned["run_id"]: worker for planned in read_share(folder, worker)}
    return owned


def handed_on(folder: SweepFolder, launch_id: str) -> set[str]:
    """The run ids that launches newer than `launch_id` were given."""
    newer = [other for other in folder.launch_ids() if other > launch_id]
    return {
        planned["run_id"]
        for other in newer
        for task in range(read_launch(folder, other).tasks)
        for planned in read_share(folder, (other, task))
    }


@contextlib.contextmanager
def sweep_lock(folder: SweepFolder, *, patience_s: float = 60.0) -> Iterator[None]:
    """Holds the sweep's lock; a UserError names who has it when it can't be had in time."""
    folder.path.mkdir(parents=True, exist_ok=True)
    give_up = time.monotonic() + patience_s
    with open(folder.lock, "a+", encoding="utf-8") as file:
        while not try_lock(file.fileno()):
            if time.monotonic() > give_up:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise UserError(Problem(f"another launch holds this sweep's lock ({holder})", place=str(folder.lock)))
            time.sleep(0.1)
        file.truncate(0)
        file.write(f"host {socket.gethostname()}, process {os.getpid()}")
        file.flush()
        yield


def try_lock(descriptor: int) -> bool:
    """Takes the record lock of an open file if nobody else has it."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


@dataclass(frozen=True)
class LifeSign:
    """A lock file held as long as this process lives; others see by it that the worker (or launcher) is alive.

    A process must not ask `held()` of a sign that it holds itself: closing a file drops its own POSIX locks on it.
    """

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


def worker_sign(folder: SweepFolder, worker: Worker) -> LifeSign:
    return LifeSign(folder.launches / worker[0] / "workers" / f"{worker[1]}.lock")


def launcher_sign(folder: SweepFolder, launch_id: str) -> LifeSign:
    """Held by a local launch from before its ledger entry until its workers have ended: covers their start-up."""
    return LifeSign(folder.launches / launch_id / "launcher.lock")


def alive_locally(folder: SweepFolder) -> set[Worker]:
    """The workers of local launches that live on any host that shares this file system."""
    alive: set[Worker] = set()
    for launch_id in folder.launch_ids():
        launch = read_launch(folder, launch_id)
        if launch.cluster != "local":
            continue
        started = launcher_sign(folder, launch_id).held()
        workers = [(launch_id, task) for task in range(launch.tasks)]
        alive |= {worker for worker in workers if started or worker_sign(folder, worker).held()}
    return alive
