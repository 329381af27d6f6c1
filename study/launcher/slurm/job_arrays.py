"""From a launch in the ledger to arrays in Slurm's queue; what Slurm refuses is told in its own words, with the script.

A launch of several ranks is an array of jobs over nodes and GPUs, one worker each; any other has jobs of one GPU.

Arrays are split to what the cluster allows. Where a limit on submitted jobs (QOS, association) lets only a part pass, the
rest is left to the next launch: what was never submitted is owned by nobody.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from study.errors import Problem, UserError
from study.launcher.environment import outside_of_jobs
from study.launcher.slurm.client import job_name
from study.launcher.slurm.profile import Profile
from study.records.ledger import Launch
from study.records.sweep_folder import SweepFolder, write_new
from study.worker.worker_process import Task

NEVER = 1_000_000  # submitit counts time-outs and would stop requeueing at 3
LIMIT = re.compile(r"MaxSubmit|MaxJobs|job submit limit")
"""What Slurm's message says when fewer jobs might pass."""


class Refused(Exception):
    """sbatch took nothing of this; the text is Slurm's own."""


@dataclass(frozen=True)
class Array:
    """Jobs `first` to `first + jobs - 1` of a launch, in Slurm's queue under one id."""

    id: str
    first: int
    jobs: int


@dataclass(frozen=True)
class Submitted:
    """What of a launch is in the queue; `refused` is Slurm's reason why the rest isn't, empty where all is."""

    arrays: tuple[Array, ...]
    left: int  # jobs
    refused: str = ""


def submit(
    folder: SweepFolder, launch: Launch, profile: Profile, *, array_size: int, tell: Callable[[Array], None]
) -> Submitted:
    """Submits a launch's jobs in as few arrays as possible; a UserError where nothing of it is taken.

    An array that breaks a limit on submitted jobs is halved, as Slurm doesn't say how many would pass.
    """
    arrays: list[Array] = []
    first, size = 0, array_size
    while first < launch.jobs:
        size = min(size, launch.jobs - first)
        executor = executor_for(folder, launch, profile, first=first, arrays=-(-launch.jobs // array_size))
        try:
            arrays.append(_submit_array(folder, launch, executor, profile=profile, first=first, jobs=size))
        except Refused as refused:
            if size > 1 and LIMIT.search(str(refused)):
                size //= 2
                continue
            if arrays:
                return Submitted(tuple(arrays), launch.jobs - first, str(refused))
            script = script_text(executor, size)
            raise UserError(Problem(f"Slurm refused this submission:\n{refused}\n--- the script ---\n{script}")) from None
        tell(arrays[-1])
        first += size
    return Submitted(tuple(arrays), 0)


def _submit_array(
    folder: SweepFolder, launch: Launch, executor: SlurmExecutor, *, profile: Profile, first: int, jobs: int
) -> Array:
    """One sbatch call; what submitit wrote for a call that failed is removed again."""
    tasks = [Task(str(folder.path.resolve()), launch.id, first + n, None, profile.cpus_per_task) for n in range(jobs)]
    try:
        with outside_of_jobs(), contextlib.redirect_stderr(io.StringIO()), executor.batch():  # the batch is one array
            submitted = [executor.submit(task) for task in tasks]
    except (FailedJobError, FailedSubmissionError) as error:
        for path in Path(executor.folder).iterdir():
            if re.fullmatch(r"[0-9a-f]{32}\.pkl|\.submission_file_[0-9a-f]{32}\.sh", path.name) and not path.is_symlink():
                path.unlink()
        raise Refused(str(error).strip()) from None
    array = Array(submitted[0].job_id.partition("_")[0], first, jobs)
    note = {"first": first, "jobs": jobs, "job_id": array.id}
    write_new(folder.launches / launch.id / "submissions" / f"{first}.json", note)
    return array


def executor_for(folder: SweepFolder, launch: Launch, profile: Profile, *, first: int, arrays: int) -> SlurmExecutor:
    """submitit's executor with the profile's parameters, the launched code first on the path, signals covered."""
    executor = SlurmExecutor(folder.launches / launch.id / "jobs", max_num_timeout=NEVER, python=covered_python())
    executor.update_parameters(
        job_name=job_name(launch.id, first),
        time=profile.time,
        nodes=profile.nodes if launch.ranks > 1 else 1,
        ntasks_per_node=profile.ranks_per_node if launch.ranks > 1 else profile.workers_per_gpu,
        cpus_per_task=profile.cpus_per_task,
        gpus_per_node=(profile.gpus_per_node if launch.ranks > 1 else min(profile.gpus_per_node, 1)) or None,
        mem=None if profile.mem_gb is None else f"{round(profile.mem_gb * 1024)}MB",
        partition=profile.partition,
        account=profile.account,
        qos=profile.qos,
        constraint=profile.constraint,
        exclude=profile.exclude,
        array_parallelism=max(1, profile.array_parallelism // arrays),
        signal_delay_s=profile.signal_delay_s,
        setup=[*profile.setup, *code_lines(folder, launch), f"export OMP_NUM_THREADS={profile.cpus_per_task}"],
        teardown=aftermath_lines(folder, launch, first=first) if profile.requeue else None,
        srun_args=["--kill-on-bad-exit=1"] if launch.ranks > 1 else [],  # a rank that fails ends the others
        wckey=None,
        additional_parameters={("requeue" if profile.requeue else "no-requeue"): True, **profile.sbatch},
    )
    return executor


def covered_python() -> str:
    """This interpreter, started with signals ignored: until handlers stand, none of them must end the job.

    A preempted job that dies of its signal counts as failed and doesn't come back; one that is still starting when its
    grace period ends does.
    """
    return f"""bash -c 'trap "" USR2 TERM; exec "$0" "$@"' {shlex.quote(sys.executable)}"""


def code_lines(folder: SweepFolder, launch: Launch) -> list[str]:
    """Shell lines that put the launched code first on Python's path, whatever the working folder holds."""
    code = shlex.quote(str((folder.code / launch.code).resolve()))
    return [f"export PYTHONPATH={code}${{PYTHONPATH:+:$PYTHONPATH}} PYTHONSAFEPATH=1"]


def aftermath_lines(folder: SweepFolder, launch: Launch, *, first: int) -> list[str]:
    """Shell lines after the workers: where one died in a run, the job goes back into the queue (`requeue_after_crash`)."""
    words = [sys.executable, "-m", "study.worker.requeue_after_crash", str(folder.path.resolve()), launch.id, str(first)]
    return ["status=$?", f'[ "$status" -eq 0 ] || {shlex.join(words)}', "exit $status"]


def script_text(executor: SlurmExecutor, jobs: int) -> str:
    """The sbatch script as submitit writes it for an array of this many jobs."""
    if jobs > 1:
        executor.parameters["map_count"] = jobs
    return str(executor._make_submission_file_text(executor._submitit_command_str, "dry-run"))
