"""Job arrays for the workers of a launch, submitted with submitit and split to what the cluster allows.

In a launch of several ranks each job is one worker on several nodes or GPUs; in any other launch, its workers share one GPU.
"""

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
from study.launcher.environment import clean_slurm_environment
from study.launcher.slurm.client import job_name
from study.launcher.slurm.profile import Profile
from study.records.ledger import Launch
from study.records.sweep_folder import SweepFolder, write_new
from study.worker.task import Task

MAX_TIMEOUTS = 1_000_000  # submitit would stop requeueing after 3 time limits
SUBMISSION_LIMIT = re.compile(r"MaxSubmit|MaxJobs|job submit limit")
"""Slurm's message when a smaller array might pass."""


class _Rejected(Exception):
    """sbatch failed; the text is Slurm's own."""


@dataclass(frozen=True)
class JobArray:
    """Jobs `first` to `first + jobs - 1` of a launch, in Slurm's queue under one id."""

    id: str
    first: int
    jobs: int


@dataclass(frozen=True)
class Submission:
    """The submitted part of a launch; `message` is Slurm's reason to reject the rest, empty if there is none."""

    launch: Launch
    arrays: tuple[JobArray, ...]
    rejected: int = 0  # jobs
    message: str = ""


def submit_arrays(
    folder: SweepFolder, launch: Launch, profile: Profile, *, array_size: int, report: Callable[[JobArray], None]
) -> Submission:
    """Submit a launch's jobs in as few arrays as possible. Raises UserError, with the script, if Slurm rejects all of them.

    Jobs that a limit on submissions (QOS, association) rejects are left to the next launch: their runs are unassigned.
    """
    arrays: list[JobArray] = []
    first, size = 0, array_size
    while first < launch.jobs:
        size = min(size, launch.jobs - first)
        executor = make_executor(folder, launch, profile, first=first, arrays=-(-launch.jobs // array_size))
        try:
            arrays.append(_submit_array(folder, launch, executor, first=first, jobs=size))
        except _Rejected as error:
            if size > 1 and SUBMISSION_LIMIT.search(str(error)):
                size //= 2  # Slurm doesn't say how many jobs would pass
                continue
            if arrays:
                return Submission(launch, tuple(arrays), launch.jobs - first, str(error))
            script = format_script(executor, size)
            raise UserError(Problem(f"Slurm rejected this submission:\n{error}\n--- the script ---\n{script}")) from None
        report(arrays[-1])
        first += size
    return Submission(launch, tuple(arrays))


def _submit_array(folder: SweepFolder, launch: Launch, executor: SlurmExecutor, *, first: int, jobs: int) -> JobArray:
    tasks = [Task(str(folder.path.resolve()), launch.id, first + n, None) for n in range(jobs)]
    try:
        with clean_slurm_environment(), contextlib.redirect_stderr(io.StringIO()), executor.batch():  # one array
            submitted = [executor.submit(task) for task in tasks]
    except (FailedJobError, FailedSubmissionError) as error:
        for path in Path(executor.folder).iterdir():  # what submitit wrote before sbatch failed
            if re.fullmatch(r"[0-9a-f]{32}\.pkl|\.submission_file_[0-9a-f]{32}\.sh", path.name) and not path.is_symlink():
                path.unlink()
        raise _Rejected(str(error).strip()) from None
    array = JobArray(submitted[0].job_id.partition("_")[0], first, jobs)
    document = {"first": first, "jobs": jobs, "job_id": array.id}
    write_new(folder.launches / launch.id / "submissions" / f"{first}.json", document)
    return array


def make_executor(folder: SweepFolder, launch: Launch, profile: Profile, *, first: int, arrays: int) -> SlurmExecutor:
    """submitit's executor for one of the launch's arrays, with the profile's parameters and the launched code."""
    distributed = launch.ranks > 1
    # Signals are ignored until the worker has installed its handlers: a preempted job that dies of its signal counts as failed
    # and isn't requeued; one that is still starting at the end of its grace period is.
    python = f"""bash -c 'trap "" USR2 TERM; exec "$0" "$@"' {shlex.quote(sys.executable)}"""
    executor = SlurmExecutor(folder.launches / launch.id / "jobs", max_num_timeout=MAX_TIMEOUTS, python=python)
    requeue = [sys.executable, "-m", "study.worker.requeue_after_crash", str(folder.path.resolve()), launch.id, str(first)]
    teardown = ["status=$?", f'[ "$status" -eq 0 ] || {shlex.join(requeue)}', "exit $status"]
    executor.update_parameters(
        job_name=job_name(launch.id, first),
        time=profile.time,
        nodes=profile.nodes if distributed else 1,
        ntasks_per_node=profile.ranks_per_node if distributed else profile.workers_per_gpu,
        cpus_per_task=profile.cpus_per_task,
        gpus_per_node=(profile.gpus_per_node if distributed else min(profile.gpus_per_node, 1)) or None,
        mem=None if profile.mem_gb is None else f"{round(profile.mem_gb * 1024)}MB",
        partition=profile.partition,
        account=profile.account,
        qos=profile.qos,
        constraint=profile.constraint,
        exclude=profile.exclude,
        array_parallelism=max(1, profile.array_parallelism // arrays),
        signal_delay_s=profile.signal_delay_s,
        setup=[*profile.setup, *export_code_path(folder, launch), f"export OMP_NUM_THREADS={launch.threads}"],
        teardown=teardown if profile.requeue else None,
        # Tasks get the script's environment, also with `export: NONE`. A rank that fails ends the others.
        srun_args=["--export=ALL", *(["--kill-on-bad-exit=1"] if distributed else [])],
        wckey=None,
        additional_parameters={("requeue" if profile.requeue else "no-requeue"): True, **profile.sbatch},
    )
    return executor


def export_code_path(folder: SweepFolder, launch: Launch) -> list[str]:
    """Shell lines that put the launched code first on Python's path, whatever the working directory contains."""
    code = shlex.quote(str((folder.code / launch.code).resolve()))
    return [f"export PYTHONPATH={code}${{PYTHONPATH:+:$PYTHONPATH}} PYTHONSAFEPATH=1"]


def format_script(executor: SlurmExecutor, jobs: int) -> str:
    """The sbatch script that submitit writes for an array of this many jobs."""
    if jobs > 1:
        executor.parameters["map_count"] = jobs
    return str(executor._make_submission_file_text(executor._submitit_command_str, "dry-run"))
