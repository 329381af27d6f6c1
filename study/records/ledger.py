"""The ledger in `launches/`: which launch assigned which runs to which worker, and so who may train a run now.

A run belongs to the newest live worker that it was assigned to. Each launch writes its entry before it submits a job, under
the sweep's lock, and never changes it. The ledger doesn't know who is alive; `study.launcher.liveness` does.
"""

import calendar
import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic_core import to_json

from study.config.documents import STORED, Name, parse_document, read_document
from study.config.options import Variant
from study.config.sweep import MAX_RUNS
from study.errors import Problem, UserError
from study.records.plan_file import PlannedEntry
from study.records.sweep_folder import DISCARD_LAUNCH, LAUNCH_HINT, SweepFolder, write_new

Cluster = Literal["local", "slurm"]
DeviceKind = Literal["cpu", "cuda"]
WorkerId = tuple[str, int]
"""A launch id and a task number: the worker that one share is assigned to."""

ID_TIME = "%Y%m%dt%H%M%S"
CANCELLATION_POLL_S = 5.0


@dataclass(frozen=True)
class Execution:
    """How runs are executed on one kind of device, as far as a launch decides it: all of it changes last bits."""

    __pydantic_config__ = STORED
    device: DeviceKind
    threads: Annotated[int, Field(ge=1)]  # of each worker
    benchmark: str | None  # the file of the sweep that says which variants are fastest; None: layouts by rule
    kernels: bool | None = None  # whether CPU kernels are compiled; None: as each worker's machine allows

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s'[: self.threads != 1]} per worker"
        variants = f"the fastest variants of {self.benchmark}" if self.benchmark else "memory layouts by rule"
        return ", ".join([threads, variants, *([] if self.kernels is None else [_KERNELS[self.kernels]])])


_KERNELS = {True: "compiled CPU kernels", False: "no compiled CPU kernels"}


@dataclass(frozen=True)
class Launch:
    """One launch's immutable entry, `launches/<id>/launch.json`."""

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")  # what a worker doesn't know it would not do
    id: Name
    cluster: Cluster
    plan: Name
    code: Name
    tasks: Annotated[int, Field(ge=0, le=MAX_RUNS)]
    tasks_per_job: Annotated[int, Field(ge=1, le=MAX_RUNS)]  # workers that share one job's GPU
    device: str
    provenance: Mapping[str, Any]
    plugins: tuple[str, ...] = ()  # names of files beside the copied package
    track: Sequence[str] = ()  # experiment trackers that its workers log to
    deterministic: bool = False  # on a GPU: only algorithms that give the same bits each time
    ranks: Annotated[int, Field(ge=1, le=MAX_RUNS)] = 1  # processes that train one run together: the tasks of a worker's job
    execution: Execution | None = None  # None in launches before 0.2.0, and in those without workers
    first_execution: Execution | None = None  # of the sweep's first recorded runs

    @property
    def threads(self) -> int:
        """The threads of each worker."""
        assert self.execution is not None, "a launch with workers has decided how they execute"
        return self.execution.threads

    @property
    def changes(self) -> tuple[str, ...]:
        """How this launch executes runs otherwise than the sweep's first launch on this kind of device did."""
        if self.execution is None or self.first_execution is None:
            return ()
        now, first = asdict(self.execution), asdict(self.first_execution)
        return tuple(f"{name}: {first[name]} -> {now[name]}" for name in now if first[name] != now[name])

    @property
    def jobs(self) -> int:
        return -(-self.tasks // self.tasks_per_job)

    def workers_of(self, job: int) -> set[WorkerId]:
        """The workers in the launch's job of this number."""
        first = job * self.tasks_per_job
        return {(self.id, task) for task in range(first, min(first + self.tasks_per_job, self.tasks))}


@dataclass(frozen=True)
class ShareEntry:
    """A run in a worker's share. `retry` says to train it although an earlier launch recorded it as failed.

    `variant` is the fastest one of its architecture, as benchmarked on one model of device, `device_name`.
    """

    planned: PlannedEntry
    retry: bool = False
    variant: Variant | None = None
    device_name: str = ""

    @property
    def run_id(self) -> str:
        return self.planned.run_id

    def to_json(self) -> dict[str, Any]:
        variant = {"device_name": self.device_name, **self.variant.model_dump()} if self.variant else None
        return {**self.planned.to_json(), "retry": self.retry, "variant": variant}

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> "ShareEntry":
        """From what `to_json` gave, as another process sent it."""
        return parse_document(to_json(document), _ShareDocument, place="a share", hint=LAUNCH_HINT).restore()


class _MeasuredVariant(Variant):
    device_name: str = ""


@dataclass(frozen=True)
class _ShareDocument(PlannedEntry):
    """A share's entry as it is written."""

    retry: bool = False
    variant: _MeasuredVariant | None = None

    def restore(self) -> ShareEntry:
        planned = PlannedEntry(**{each.name: getattr(self, each.name) for each in fields(PlannedEntry)})
        found = self.variant and Variant(memory_layout=self.variant.memory_layout, compiled=self.variant.compiled)
        return ShareEntry(planned, self.retry, found, self.variant.device_name if self.variant else "")


def new_launch_id(folder: SweepFolder) -> str:
    """A unique id like `20261122t143501x9f3a`: its time in UTC, then letters and digits only, as in a job's name.

    To be called under the sweep's lock.
    """
    before = []
    for other in folder.launch_ids()[-1:]:
        with suppress(ValueError):  # a folder that no launch has named
            before.append(calendar.timegm(time.strptime(other.partition("x")[0], ID_TIME)))
    moment = max([time.time(), *(other + 1 for other in before)])  # after every launch, even if this host's clock is slow
    return time.strftime(ID_TIME, time.gmtime(moment)) + "x" + secrets.token_hex(2)


def write_launch(folder: SweepFolder, launch: Launch, shares: Sequence[Sequence[ShareEntry]]) -> None:
    """Write a launch's entry and shares. `launch.json` comes last: a launch exists only when it is complete."""
    assert launch.tasks == len(shares)
    place = folder.launches / launch.id
    for task, share in enumerate(shares):
        write_new(share_path(folder, (launch.id, task)), [entry.to_json() for entry in share])
    write_new(place / "runs.json", [[entry.run_id for entry in share] for share in shares])
    write_new(place / "launch.json", asdict(launch))


def read_launch(folder: SweepFolder, launch_id: str) -> Launch:
    launch = read_document(folder.launches / launch_id / "launch.json", Launch, hint=LAUNCH_HINT)
    if launch.id != launch_id:
        rule = f"this launch is of another folder: {DISCARD_LAUNCH}"
        raise UserError(Problem(rule, str(folder.launches / launch_id / "launch.json"), "id", launch.id))
    return launch


def read_launches(folder: SweepFolder) -> list[Launch]:
    """All launches, oldest first."""
    return [read_launch(folder, launch_id) for launch_id in folder.launch_ids()]


def read_submitted_jobs(folder: SweepFolder, launch_id: str) -> list[str]:
    """The ids of the job arrays that Slurm accepted of a launch, in order; none of a local one."""
    paths = sorted((folder.launches / launch_id / "submissions").glob("*.json"), key=lambda path: int(path.stem))
    return [read_document(path, _Submission, hint=LAUNCH_HINT).job_id for path in paths]


@dataclass(frozen=True)
class _Submission:
    __pydantic_config__ = STORED
    job_id: str


def share_path(folder: SweepFolder, worker: WorkerId) -> Path:
    """The file of a worker's share."""
    return folder.launches / worker[0] / "shares" / f"{worker[1]}.json"


def read_share(folder: SweepFolder, worker: WorkerId) -> list[ShareEntry]:
    """The runs assigned to a worker, in the order in which it trains them."""
    return [entry.restore() for entry in read_document(share_path(folder, worker), list[_ShareDocument], hint=LAUNCH_HINT)]


def read_assignees(folder: SweepFolder, launch_id: str) -> dict[str, WorkerId]:
    """By run id, the worker that a launch assigned the run to; one file, however many workers there are."""
    shares = read_document(folder.launches / launch_id / "runs.json", list[list[str]], hint=LAUNCH_HINT)
    return {run_id: (launch_id, task) for task, share in enumerate(shares) for run_id in share}


def read_all_assignees(folder: SweepFolder, run_ids: Set[str]) -> set[WorkerId]:
    """Every worker that any of these runs was ever assigned to: no other can have recorded anything about them."""
    assigned = (read_assignees(folder, launch_id) for launch_id in folder.launch_ids())
    return {worker for launch in assigned for run_id, worker in launch.items() if run_id in run_ids}


def resolve_owners(
    folder: SweepFolder, alive: Set[WorkerId], *, training: Mapping[WorkerId, Collection[str]]
) -> dict[str, WorkerId]:
    """By run id, the worker that may train the run now. `training` are the runs that workers are training."""
    owners: dict[str, WorkerId] = {}
    for launch_id in sorted({launch for launch, _ in alive}):  # oldest first, so that the newest assignment counts
        cancelled = read_cancelled(folder, launch_id)
        for run_id, worker in read_assignees(folder, launch_id).items():
            if worker not in alive:  # the runs of a dead worker are unassigned
                continue
            if run_id in cancelled and run_id not in training.get(worker, ()):  # a worker owns its run until it has stopped
                continue
            owners[run_id] = worker
    return owners


def read_reassigned(folder: SweepFolder, launch_id: str) -> set[str]:
    """The run ids that launches newer than `launch_id` have assigned."""
    newer = [other for other in folder.launch_ids() if other > launch_id]
    return {run_id for other in newer for run_id in read_assignees(folder, other)}


def cancel_runs(folder: SweepFolder, launch_id: str, run_ids: Iterable[str]) -> None:
    """Cancel runs of a launch. To be called under the sweep's lock."""
    place = folder.launches / launch_id / "withdrawn"
    write_new(place / f"{len(list(place.glob('*.json')))}.json", sorted(run_ids))


def read_cancelled(folder: SweepFolder, launch_id: str) -> set[str]:
    """The run ids of a launch that were cancelled."""
    paths = (folder.launches / launch_id / "withdrawn").glob("*.json")
    return {run_id for path in paths for run_id in read_document(path, list[str], hint=LAUNCH_HINT)}


@dataclass
class Cancellations:
    """The cancelled runs of a worker's launch, read again every few seconds, since the file system may be slow."""

    folder: SweepFolder
    launch_id: str
    _known: set[str] = field(default_factory=set)
    _next_read: float = 0.0

    def include(self, run_id: str, *, reread: bool = False) -> bool:
        if reread or time.monotonic() >= self._next_read:
            self._known = read_cancelled(self.folder, self.launch_id)
            self._next_read = time.monotonic() + CANCELLATION_POLL_S
        return run_id in self._known
