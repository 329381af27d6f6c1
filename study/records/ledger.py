"""The ledger says who owns a run: the newest live worker whose share holds it; dead workers own nothing.

A launch is written here before its jobs are submitted, under the sweep's lock. Whether a worker is alive is asked elsewhere
(one squeue call, or the lock file that a local worker holds). A worker that starts looks here for a moment in which no launch
decides, shows that it lives and drops what a newer launch was given. So whichever of the two comes first, the other
sees it, and no run is trained by two live workers.

What is cancelled is withdrawn from one launch: its workers pass the run over, or let go of it at their next step.
"""

from __future__ import annotations

import calendar
import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from study.errors import Problem, UserError
from study.records.sweep_folder import LEAVE_LAUNCH, MEND_LAUNCH, SweepFolder, read_kept, write_new

Cluster = Literal["local", "slurm"]
Worker = tuple[str, int]
"""A launch id and a task number: the owner of one share."""

ID_TIME = "%Y%m%dt%H%M%S"
LOOK_EVERY_S = 5.0


@dataclass(frozen=True)
class Launch:
    """One launch's immutable entry: `launches/<id>/launch.json`."""

    id: str
    cluster: Cluster
    plan: str
    code: str
    tasks: int
    tasks_per_job: int  # several workers may share one job's GPU
    device: str
    provenance: Mapping[str, Any]
    track: Sequence[str] = ()  # trackers that its workers tell of their runs; launches before there were any have none
    deterministic: bool = False  # on a GPU: only algorithms that give the same bits each time
    ranks: int = 1  # processes that train one run together: the tasks of a worker's job

    @property
    def jobs(self) -> int:
        return -(-self.tasks // self.tasks_per_job)

    def workers_of(self, job: int) -> set[Worker]:
        """The workers of the launch's job of this number."""
        first = job * self.tasks_per_job
        return {(self.id, task) for task in range(first, min(first + self.tasks_per_job, self.tasks))}


def new_launch_id(folder: SweepFolder) -> str:
    """Unique and greater than every id before it, also where this host's clock is late: `20261122t143501x9f3a`.

    It begins with its time in UTC and holds only letters and digits, as a job's name needs. Under the sweep's lock.
    """
    before = [calendar.timegm(time.strptime(other.partition("x")[0], ID_TIME)) for other in folder.launch_ids()[-1:]]
    moment = max([time.time(), *(other + 1 for other in before)])
    return time.strftime(ID_TIME, time.gmtime(moment)) + "x" + secrets.token_hex(2)


def write_launch(folder: SweepFolder, launch: Launch, shares: list[list[dict[str, Any]]]) -> None:
    """The shares first, `launch.json` last: a launch exists only when it is whole."""
    assert launch.tasks == len(shares)
    place = folder.launches / launch.id
    for task, share in enumerate(shares):
        write_new(place / "shares" / f"{task}.json", share)
    write_new(place / "runs.json", [[planned["run_id"] for planned in share] for share in shares])
    write_new(place / "launch.json", asdict(launch))


def read_launch(folder: SweepFolder, launch_id: str) -> Launch:
    path = folder.launches / launch_id / "launch.json"
    document = read_kept(path, mend=MEND_LAUNCH)
    try:
        return Launch(**document)
    except TypeError:
        rule = f"this launch was written by another version of the project: use that version; or, {LEAVE_LAUNCH}"
        raise UserError(Problem(rule, place=str(path))) from None


def read_launches(folder: SweepFolder) -> list[Launch]:
    """All of them, oldest first."""
    return [read_launch(folder, launch_id) for launch_id in folder.launch_ids()]


def read_share(folder: SweepFolder, worker: Worker) -> list[dict[str, Any]]:
    """The planned runs that a worker was given, whole, in the order it trains them."""
    path = folder.launches / worker[0] / "shares" / f"{worker[1]}.json"
    share: list[dict[str, Any]] = read_kept(path, mend=MEND_LAUNCH)
    return share


def holders(folder: SweepFolder, launch_id: str) -> dict[str, Worker]:
    """Which worker of a launch was given a run, for all of its runs: one file, however many workers there are."""
    shares = read_kept(folder.launches / launch_id / "runs.json", mend=MEND_LAUNCH)
    return {run_id: (launch_id, task) for task, share in enumerate(shares) for run_id in share}


def all_holders(folder: SweepFolder, run_ids: Set[str]) -> set[Worker]:
    """Every worker that was ever given one of these runs: only they can have left traces of them."""
    given = (holders(folder, launch_id) for launch_id in folder.launch_ids())
    return {worker for launch in given for run_id, worker in launch.items() if run_id in run_ids}


def owners(folder: SweepFolder, alive: Set[Worker], *, training: Mapping[Worker, Collection[str]]) -> dict[str, Worker]:
    """For each run that a live worker owns, that worker: the newest, where several hold it.

    `training` is what workers are at: a withdrawn run is owned until its worker has let go of it.
    """
    owned: dict[str, Worker] = {}
    for launch_id in sorted({launch for launch, _ in alive}):
        gone = withdrawn(folder, launch_id)
        for run_id, worker in holders(folder, launch_id).items():
            if worker in alive and (run_id not in gone or run_id in training.get(worker, ())):
                owned[run_id] = worker
    return owned


def handed_on(folder: SweepFolder, launch_id: str) -> set[str]:
    """The run ids that launches newer than `launch_id` were given."""
    newer = [other for other in folder.launch_ids() if other > launch_id]
    return {run_id for other in newer for run_id in holders(folder, other)}


def withdraw(folder: SweepFolder, launch_id: str, run_ids: Iterable[str]) -> None:
    """Takes runs away from a launch. Under the sweep's lock."""
    place = folder.launches / launch_id / "withdrawn"
    write_new(place / f"{len(list(place.glob('*.json')))}.json", sorted(run_ids))


def withdrawn(folder: SweepFolder, launch_id: str) -> set[str]:
    """The run ids that were taken away from a launch."""
    paths = (folder.launches / launch_id / "withdrawn").glob("*.json")
    return {run_id for path in paths for run_id in read_kept(path, mend=MEND_LAUNCH)}


@dataclass
class Withdrawals:
    """What was withdrawn from a launch, as its worker sees it: looked up every few seconds, since folders may be far away."""

    folder: SweepFolder
    launch_id: str
    _known: set[str] = field(default_factory=set)
    _next_look: float = 0.0

    def include(self, run_id: str, *, now: bool = False) -> bool:
        if now or time.monotonic() >= self._next_look:
            self._known = withdrawn(self.folder, self.launch_id)
            self._next_look = time.monotonic() + LOOK_EVERY_S
        return run_id in self._known
