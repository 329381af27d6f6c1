"""Slurm, asked as little as possible: one squeue call says who lives, sbatch takes whole arrays.

A job's name carries its launch and the number of its first task, `study.<launch>.<first>`, so ownership needs no job ids: a
launch that died between sbatch and its own notes is seen all the same. Nothing here rests on submitit's or sacct's idea of
"done"; only records say what is done.
"""

from __future__ import annotations

import datetime
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from study.cluster.journal import Entry
from study.cluster.ledger import Launch, Worker
from study.cluster.profile import Profile
from study.cluster.worker import Task
from study.errors import Problem, UserError
from study.records.folder import SweepFolder, write_new

NEVER = 1_000_000  # submitit counts time-outs and would stop requeueing at 3
SETTLING_S = 120  # shared file systems show a finished job's files late
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
         "REVOKED", "TIMEOUT"}
ASK_TIMEOUT_S = 60


@dataclass(frozen=True)
class JobState:
    """One array task as squeue shows it: `worker` is its first worker. `ended` is in local time, None while alive."""

    job_id: str
    worker: Worker
    state: str
    reason: str
    ended: datetime.datetime | None


@dataclass(frozen=True)
class Limits:
    """What the cluster allows: array indices run below `array_size`."""

    array_size: int
    job_count: int


def controller_answers(*, patience_s: float = 3.0) -> bool:
    """Whether a Slurm controller is there: `sbatch` on the PATH alone says nothing."""
    if shutil.which("scontrol") is None or shutil.which("sbatch") is None:
        return False
    try:
        answer = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, timeout=patience_s, check=False)
    except subprocess.TimeoutExpired:
        return False
    return answer.returncode == 0 and " is UP" in answer.stdout


def limits() -> Limits:
    """MaxArraySize and MaxJobCount from the running configuration."""
    text = _asked(["scontrol", "show", "config"])
    found = dict(re.findall(r"^(MaxArraySize|MaxJobCount)\s*=\s*(\d+)", text, re.MULTILINE))
    return Limits(array_size=int(found["MaxArraySize"]), job_count=int(found["MaxJobCount"]))


def job_name(launch_id: str, first: int) -> str:
    return f"study.{launch_id}.{first}"


def job_states(names: Sequence[str]) -> list[JobState]:
    """Every array task of these job names, with one squeue call; a UserError where squeue fails.

    Jobs that ended stay visible for MinJobAge (5 minutes by default); older ones are not in the answer.
    """
    if not names:
        return []
    command = ["squeue", "--noheader", "--array", "--states=all", f"--name={','.join(names)}", "--format=%i|%j|%T|%e|%r"]
    return [_job_state(line) for line in _asked(command).splitlines() if line.strip()]


def _job_state(line: str) -> JobState:
    job_id, name, state, end, reason = line.strip().split("|", 4)
    _, launch, first = name.rsplit(".", 2)
    index = int(job_id.partition("_")[2] or 0)
    ended = None
    if state in ENDED and end not in ("N/A", "NONE", "Unknown", ""):
        ended = datetime.datetime.fromisoformat(end)
    return JobState(job_id, (launch, int(first) + index), state, reason, ended)


def alive_workers(
    jobs: Sequence[JobState], launches: Sequence[Launch], entries: Sequence[Entry], *, now: datetime.datetime
) -> set[Worker]:
    """The workers that live or may still show files: in the queue, running, or ended less than two minutes ago.

    A worker whose journal says that it finished its share needs no settling.
    """
    finished = {(e.writer.launch, e.writer.task) for e in entries if e.event == "exit" and e.reason == "share finished"}
    per_job = {launch.id: launch.tasks_per_job for launch in launches}
    alive: set[Worker] = set()
    for job in jobs:
        launch, index = job.worker
        settled = job.ended is not None and (now - job.ended).total_seconds() > SETTLING_S
        tasks = {(launch, index * per_job[launch] + rank) for rank in range(per_job[launch])}
        if job.state not in ENDED:
            alive |= tasks
        elif not settled:
            alive |= tasks - finished
    return alive


def submission_names(folder: SweepFolder, launches: Sequence[Launch]) -> list[str]:
    """The names of all jobs that launches may have submitted, as each launch decided them before it did."""
    return [job_name(launch.id, first) for launch in launches for first in array_starts(launch)]


def array_starts(launch: Launch) -> range:
    """The first job of each array of a launch: no array is longer than the cluster allowed when it was launched."""
    jobs = -(-launch.tasks // launch.tasks_per_job)
    return range(0, jobs, launch.array_size or jobs)


def submit(folder: SweepFolder, launch: Launch, profile: Profile, *, first: int, jobs: int) -> str:
    """Submits one array of `jobs` tasks from task `first` on; returns Slurm's id. A UserError carries Slurm's words."""
    executor = executor_for(folder, launch, profile, first=first)
    tasks = [Task(str(folder.path.resolve()), launch.id, first + n, None, profile.cpus_per_task) for n in range(jobs)]
    try:
        with executor.batch():  # submitit makes one array of what is submitted inside
            submitted = [executor.submit(task) for task in tasks]
    except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
        script = script_text(executor, jobs)
        raise UserError(Problem(f"Slurm refused this submission: {error}\n--- the script ---\n{script}")) from None
    job_id = submitted[0].job_id.partition("_")[0]
    note = {"first": first, "jobs": jobs, "job_id": job_id}
    write_new(folder.launches / launch.id / "submissions" / f"{first}.json", note)
    return str(job_id)


def executor_for(folder: SweepFolder, launch: Launch, profile: Profile, *, first: int) -> SlurmExecutor:
    """submitit's executor with the profile's parameters, the launched code first on the path, signals covered."""
    executor = SlurmExecutor(folder.launches / launch.id / "jobs", max_num_timeout=NEVER, python=covered_python())
    code = (folder.code / launch.code).resolve()
    setup = [*profile.setup, f"export PYTHONPATH={code}:$PYTHONPATH PYTHONSAFEPATH=1",
             f"export OMP_NUM_THREADS={profile.cpus_per_task}"]
    executor.update_parameters(
        job_name=job_name(launch.id, first),
        time=profile.time,
        nodes=1,
        ntasks_per_node=profile.workers_per_gpu,
        cpus_per_task=profile.cpus_per_task,
        gpus_per_node=profile.gpus_per_node or None,
        mem=None if profile.mem_gb is None else f"{round(profile.mem_gb * 1024)}MB",
        partition=profile.partition,
        account=profile.account,
        qos=profile.qos,
        constraint=profile.constraint,
        exclude=profile.exclude,
        array_parallelism=profile.array_parallelism,
        signal_delay_s=profile.signal_delay_s,
        setup=setup,
        additional_parameters={("requeue" if profile.requeue else "no-requeue"): True, **profile.sbatch},
    )
    return executor


def covered_python() -> str:
    """This interpreter, started with USR2 ignored: until a handler stands, a preemption signal must not kill it."""
    return f"""bash -c 'trap "" USR2; exec "$0" "$@"' {sys.executable}"""


def script_text(executor: SlurmExecutor, jobs: int) -> str:
    """The sbatch script as submitit writes it."""
    if jobs > 1:
        executor.parameters["map_count"] = jobs
    return str(executor._make_submission_file_text(executor._submitit_command_str, "dry-run"))


def cancel(job_ids: Sequence[str]) -> None:
    """scancel of exactly these jobs or array tasks."""
    if job_ids:
        _asked(["scancel", *job_ids])


def _asked(command: list[str]) -> str:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=ASK_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(Problem(f"{command[0]} gave no answer, so nobody knows what is alive: {error}")) from None
    if answer.returncode:
        raise UserError(Problem(f"{command[0]} failed, so nobody knows what is alive: {answer.stderr.strip()}"))
    return answer.stdout


def profile_path(given: str | None) -> Path:
    """The profile that was named, or the repository's default."""
    return Path(given) if given else Path("slurm/default.yaml")
