"""Slurm, asked as little as possible: one squeue call says who lives, whatever the number of jobs.

A job's name carries its launch and the number of its first worker's job, `study.<launch>.<first>`, so ownership needs no
job ids: a launch that died between sbatch and its own notes is seen all the same. Nothing here rests on submitit's or
sacct's idea of "done"; only records say what is done.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from study.errors import Problem, UserError
from study.launcher.environment import outside_of_jobs

ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}
PING_TIMEOUT_S = 3
ASK_TIMEOUT_S = 60
COLUMNS = "%i|%T|%M|%e|%N|%r|%j"
IDS_PER_CALL = 500  # a command line has room for thousands

Controller = Literal["up", "down", "absent"]
Following = Literal["final", "report"]
"""What a job is for that follows a launch's workers."""
FOLLOWING: tuple[Following, ...] = ("final", "report")  # the first submits the second


@dataclass(frozen=True)
class Job:
    """One task of an array as squeue shows it. `index` counts the jobs of its launch over all arrays."""

    id: str
    launch: str
    index: int
    state: str
    reason: str
    node: str
    began: bool  # whether it ever ran since it was last queued
    end: float | None  # seconds since 1970; a forecast while it runs

    @property
    def alive(self) -> bool:
        """Queued, running or on its way out: its runs are its own."""
        return self.state not in ENDED

    @property
    def queued(self) -> bool:
        return self.alive and not self.node

    @property
    def why_queued(self) -> str:
        """Slurm's reason, or that it has none yet."""
        return "not looked at yet" if self.reason == "None" else self.reason


@dataclass(frozen=True)
class Queue:
    """What one squeue call told: the workers' jobs of this project's launches, the names of the living jobs that follow
    them, and how many jobs the controller holds at all."""

    jobs: tuple[Job, ...]
    followers: frozenset[str]
    size: int


@dataclass(frozen=True)
class Limits:
    """What the cluster allows: indices of an array stay below `array_size`, the controller holds `job_count` jobs."""

    array_size: int
    job_count: int


def controller() -> Controller:
    """Whether a Slurm controller answers here: `sbatch` on the PATH alone says nothing."""
    if shutil.which("scontrol") is None or shutil.which("sbatch") is None:
        return "absent"
    try:
        with outside_of_jobs():
            ping = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, timeout=PING_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return "down"
    if " is UP" in ping.stdout:
        return "up"
    return "down" if " is DOWN" in ping.stdout else "absent"


def limits() -> Limits:
    """MaxArraySize and MaxJobCount from the running configuration."""
    text = asked("scontrol", "show", "config")
    found = dict(re.findall(r"^(MaxArraySize|MaxJobCount)\s*=\s*(\d+)", text, re.MULTILINE))
    return Limits(array_size=int(found["MaxArraySize"]), job_count=int(found["MaxJobCount"]))


def job_name(launch_id: str, first: int) -> str:
    return f"study.{launch_id}.{first}"


def follower_name(launch_id: str, following: Following) -> str:
    return f"study.{launch_id}.{following}"


def queue() -> Queue:
    """Every job there is, with one squeue call; a UserError where squeue fails.

    squeue fetches all jobs whatever it is asked to show, so a filter by name would spare the controller nothing. Jobs that
    ended stay visible for MinJobAge (5 minutes by default).
    """
    command = ("squeue", "--noheader", "--array", "--states=all", f"--format={COLUMNS}")
    lines = asked(*command, so="so nobody knows what is alive").splitlines()
    jobs = [_job(line) for line in lines]
    followers = frozenset(name for name in map(_follower, lines) if name is not None)
    return Queue(tuple(job for job in jobs if job is not None), followers, len(lines))


def _job(line: str) -> Job | None:
    """The job of a line, or None where its name is none that a launch gives to its workers."""
    job_id, state, elapsed, end, node, reason, name = line.split("|", 6)
    match = re.fullmatch(r"study\.(\w+)\.(\d+)", name.strip())
    if match is None:
        return None
    index = int(match[2]) + int(job_id.partition("_")[2] or 0)
    return Job(job_id, match[1], index, state, reason, node, began=elapsed != "0:00", end=float(end) if end.isdigit() else None)


def _follower(line: str) -> str | None:
    """The name of a line's job if it follows a launch's workers and has not ended."""
    _, state, *_, name = line.split("|", 6)
    return name.strip() if state not in ENDED and re.fullmatch(r"study\.\w+\.(final|report)", name.strip()) else None


def cancel(jobs: Collection[Job], *, only_queued: bool = False) -> None:
    """scancel of exactly these; with `only_queued` none that has started in the meantime."""
    ids = [job.id for job in jobs]
    for first in range(0, len(ids), IDS_PER_CALL):
        asked("scancel", "--quiet", *(["--state=PENDING"] if only_queued else []), *ids[first : first + IDS_PER_CALL])


def cancel_named(names: Sequence[str]) -> None:
    """scancel by job name; names that no job has are passed over."""
    for name in names:
        asked("scancel", "--quiet", f"--name={name}")


def asked(*command: str, so: str = "") -> str:
    """The answer of one of Slurm's commands; a UserError with its own words where it fails, and what follows from that."""
    try:
        with outside_of_jobs():
            answer = subprocess.run(command, capture_output=True, text=True, timeout=ASK_TIMEOUT_S, check=False)
        told = "" if answer.returncode == 0 else answer.stderr.strip() or f"exit status {answer.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        told = str(error)
    if told:
        raise UserError(Problem(", ".join(part for part in (f"{command[0]} failed", so) if part) + f": {told}"))
    return answer.stdout
