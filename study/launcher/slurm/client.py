"""Slurm's client commands, called as rarely as possible: one squeue call shows which workers are alive.

A job's name, `study.<launch>.<first>`, holds its launch and the number of its array's first job, so workers are found without
job ids, also those of a launch that was killed right after sbatch. Whether a run is done is never asked of Slurm; only records
say so.
"""

import re
import secrets
import shutil
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from study.errors import Problem, UserError
from study.launcher.environment import clean_slurm_environment

ENDED = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED REVOKED TIMEOUT".split()
)  # states of a job
PING_TIMEOUT_S = 15
COMMAND_TIMEOUT_S = 60
SQUEUE_FORMAT = "%i|%T|%M|%e|%N|%r|%j"
IDS_PER_CALL = 500  # a command line has room for thousands

Controller = Literal["up", "down", "absent"]
Purpose = Literal["next", "report"]
"""Of a dependent job: to launch the next stage, or to write the report."""
PURPOSES: tuple[Purpose, ...] = ("next", "report")


@dataclass(frozen=True)
class Job:
    """One task of an array as squeue shows it. `index` counts the jobs of its launch over all arrays."""

    id: str
    launch: str
    index: int
    state: str
    reason: str
    node: str
    began: bool  # whether it has run since it was last queued
    end: float | None  # seconds since 1970; an estimate while it runs

    @property
    def alive(self) -> bool:
        """Pending, running or completing: its runs are still its own."""
        return self.state not in ENDED

    @property
    def queued(self) -> bool:
        return self.alive and not self.node

    @property
    def pending_reason(self) -> str:
        return "not yet scheduled" if self.reason == "None" else self.reason


@dataclass(frozen=True)
class Queue:
    """The result of one squeue call."""

    jobs: tuple[Job, ...]  # those of workers, of all sweeps
    dependent_jobs: frozenset[str]  # names of those that are alive
    size: int  # jobs of all users


@dataclass(frozen=True)
class ClusterLimits:
    """Array indices must be below `array_size`, and the controller holds `job_count` jobs."""

    array_size: int
    job_count: int


def has_client() -> bool:
    """Whether Slurm's commands are installed here, which doesn't say that a controller answers."""
    return shutil.which("scontrol") is not None and shutil.which("sbatch") is not None


def ping_controller() -> Controller:
    """Whether a Slurm controller answers here, within 15 s."""
    if not has_client():
        return "absent"
    try:
        with clean_slurm_environment():
            ping = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, timeout=PING_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return "down"
    if " is UP" in ping.stdout:
        return "up"
    return "down" if " is DOWN" in ping.stdout else "absent"


def read_limits() -> ClusterLimits:
    """MaxArraySize and MaxJobCount of the running configuration."""
    text = _run("scontrol", "show", "config")
    found = dict(re.findall(r"^(MaxArraySize|MaxJobCount)\s*=\s*(\d+)", text, re.MULTILINE))
    return ClusterLimits(array_size=int(found["MaxArraySize"]), job_count=int(found["MaxJobCount"]))


def job_name(launch_id: str, part: int | Purpose) -> str:
    """Of the array that begins with job `part` of the launch, or of a dependent job."""
    return f"study.{launch_id}.{part}"


def read_queue() -> Queue:
    """All jobs, with one squeue call. Raises UserError if squeue fails.

    squeue fetches all jobs whatever it is asked to show, so filtering by name would not relieve the controller. Ended jobs
    stay visible for MinJobAge (5 minutes by default). Lines begin with a word that no job's name can know: what follows a line
    break in someone's name is none.
    """
    mark = secrets.token_hex(8)
    command = ("squeue", "--noheader", "--array", "--states=all", f"--format={mark}|{SQUEUE_FORMAT}")
    answer = _run(*command, consequence="so it is unknown which workers are alive")
    lines = [line.removeprefix(f"{mark}|") for line in answer.split("\n") if line.startswith(f"{mark}|")]
    jobs, dependent_jobs = [], set()
    for line in lines:
        job_id, state, elapsed, end, node, reason, name = line.rstrip().split("|", 6)
        if match := re.fullmatch(r"study\.(\w+)\.(\d+)", name):
            index, ends = int(match[2]) + int(job_id.partition("_")[2] or 0), float(end) if end.isdigit() else None
            jobs.append(Job(job_id, match[1], index, state, reason, node, began=elapsed != "0:00", end=ends))
        elif state not in ENDED and re.fullmatch(r"study\.\w+\.(next|report)", name):
            dependent_jobs.add(name)
    return Queue(tuple(jobs), frozenset(dependent_jobs), len(lines))


def cancel_jobs(jobs: Collection[Job], *, only_queued: bool = False) -> None:
    """Cancel exactly these jobs; with `only_queued`, none that has started in the meantime."""
    ids = [job.id for job in jobs]
    for first in range(0, len(ids), IDS_PER_CALL):
        _run("scancel", "--quiet", *(["--state=PENDING"] if only_queued else []), *ids[first : first + IDS_PER_CALL])


def cancel_jobs_named(names: Sequence[str]) -> None:
    for name in names:
        _run("scancel", "--quiet", f"--name={name}")


def _run(*command: str, consequence: str = "") -> str:
    """The output of a Slurm command. Raises UserError, with Slurm's own message and its consequence, if it fails."""
    try:
        with clean_slurm_environment():
            answer = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
        message = "" if answer.returncode == 0 else answer.stderr.strip() or f"exit status {answer.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        message = str(error)
    if message:
        raise UserError(Problem(", ".join(part for part in (f"{command[0]} failed", consequence) if part) + f": {message}"))
    return answer.stdout
