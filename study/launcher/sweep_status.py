"""The status of every planned run, from files and one squeue call. Reading changes nothing.

A run without a record that no live worker owns is missing, whatever Slurm says of its job.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from study.launcher.liveness import Liveness
from study.launcher.slurm.client import Job
from study.records.journal import FINISHED, LastState
from study.records.ledger import WorkerId, read_assignees, read_cancelled, read_launches
from study.records.looks import TakenLook, read_looks
from study.records.progress_file import WorkerProgress, read_latest_progress
from study.records.rank_failures import read_rank_failures
from study.records.record import Attempts, read_records
from study.records.sweep_folder import SweepFolder


@dataclass(frozen=True)
class RunningRun:
    run_id: str
    worker: WorkerId
    progress: WorkerProgress | None  # None until the worker has written its first progress of this run
    age_seconds: float  # since the worker's last progress or journal entry
    job: str
    node: str
    log: str


@dataclass(frozen=True)
class MissingRuns:
    """Missing runs that were last assigned to one worker, and why that worker is gone."""

    runs: tuple[str, ...]
    reason: str
    log: str


@dataclass(frozen=True)
class SweepStatus:
    """Every planned run in exactly one group."""

    done: tuple[str, ...]
    diverged: tuple[str, ...]
    failed: tuple[Attempts, ...]
    running: tuple[RunningRun, ...]
    queued: tuple[str, ...]  # owned by a live or pending worker, not begun
    settling: tuple[str, ...]  # their worker has just ended, and its files may not be visible yet
    missing: tuple[MissingRuns, ...]
    pending_jobs: Mapping[str, int]  # in Slurm's queue, by Slurm's reason
    has_next_stage_job: bool
    looks: tuple[TakenLook, ...] = ()  # those taken, where seeds come in stages

    @property
    def missing_run_ids(self) -> tuple[str, ...]:
        return tuple(run_id for group in self.missing for run_id in group.runs)

    @property
    def total(self) -> int:
        groups = (self.done, self.diverged, self.failed, self.running, self.queued, self.settling, self.missing_run_ids)
        return sum(map(len, groups))

    @property
    def is_active(self) -> bool:
        return bool(self.running or self.queued or self.settling)


def compute_sweep_status(folder: SweepFolder, planned: Sequence[str], liveness: Liveness) -> SweepStatus:
    recorded = read_records(folder.records)
    by_status: dict[str, list[str]] = defaultdict(list)
    for run_id in planned:
        if run_id in recorded:
            by_status[recorded[run_id].record.status].append(run_id)
    owners, running = liveness.owners(folder), find_running_runs(folder, liveness)
    unrecorded = [run_id for run_id in planned if run_id not in recorded]
    missing = [run_id for run_id in unrecorded if run_id not in owners and run_id not in running]
    return SweepStatus(
        done=tuple(by_status["done"]),
        diverged=tuple(by_status["diverged"]),
        failed=tuple(recorded[run_id] for run_id in by_status["failed"]),
        running=tuple(running[run_id] for run_id in unrecorded if run_id in running),
        queued=tuple(run_id for run_id in unrecorded if owners.get(run_id) in liveness.alive and run_id not in running),
        settling=tuple(run_id for run_id in unrecorded if owners.get(run_id) in liveness.settling),
        missing=explain_missing_runs(folder, missing, liveness),
        pending_jobs=Counter(job.pending_reason for job in liveness.jobs if job.queued),
        has_next_stage_job=any(name.endswith(".next") for name in liveness.dependent_jobs),
        looks=tuple(read_looks(folder)),
    )


def find_running_runs(folder: SweepFolder, liveness: Liveness) -> dict[str, RunningRun]:
    """By run id, the runs that live workers have begun and not ended."""
    jobs, latest = liveness.jobs_by_worker(folder), read_latest_progress(folder)
    running: dict[str, RunningRun] = {}
    for worker, state in liveness.last_states.items():
        job, last = jobs.get(worker), latest.get(worker)
        if worker not in liveness.alive or (job and job.queued):
            continue
        for run_id in state.open_runs:
            progress = last if last and last.run_id == run_id else None
            running[run_id] = RunningRun(
                run_id=run_id,
                worker=worker,
                progress=progress,
                age_seconds=time.time() - (progress or state.entry).time,
                job=job.id if job else "",
                node=job.node if job else "",
                log=state.entry.log,
            )
    return running


def explain_missing_runs(folder: SweepFolder, missing: Sequence[str], liveness: Liveness) -> tuple[MissingRuns, ...]:
    """Missing runs grouped by the reason that they are missing, in plan order."""
    launches = {launch.id: launch for launch in read_launches(folder)}
    last_assignees: dict[str, WorkerId] = {}
    for launch_id in launches:
        last_assignees |= read_assignees(folder, launch_id)
    jobs, cancelled = liveness.jobs_by_worker(folder), {launch_id: read_cancelled(folder, launch_id) for launch_id in launches}
    rank_failures = read_rank_failures(folder, set(missing))
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for run_id in missing:
        worker = last_assignees.get(run_id)
        if worker is None:
            key = ("not launched yet", "")
        elif run_id in cancelled[worker[0]]:
            key = ("cancelled", "")
        elif run_id in rank_failures:
            key = (f"{rank_failures[run_id].message}; the next launch records it", rank_failures[run_id].log)
        elif (state := liveness.last_states.get(worker)) is not None:
            key = (_exit_reason(state, jobs.get(worker)), state.entry.log)
        elif launches[worker[0]].cluster == "local":
            key = ("the launch ended before its worker had started", "")
        else:
            key = _explain_no_start(folder, worker[0], jobs.get(worker))
        groups[key].append(run_id)
    return tuple(MissingRuns(tuple(run_ids), reason, log) for (reason, log), run_ids in groups.items())


def _exit_reason(state: LastState, job: Job | None) -> str:
    slurm_state = f"; its Slurm job {job.id} is {job.state}" if job else ""
    last = state.entry
    if last.event == "refused":
        return f"its worker refused: {last.reason}"
    if last.event == "halt":
        return f"its worker ended: {last.reason}{slurm_state}"
    if last.event == "exit" and last.reason == FINISHED:
        return f"its worker finished without recording it{slurm_state}"
    if last.event == "exit":
        return f"its worker checkpointed and exited after {last.reason}{slurm_state}"
    if state.open_runs:
        return f"its worker crashed while training {', '.join(state.open_runs)}{slurm_state}"
    return f"its worker crashed between runs{slurm_state}"


def _explain_no_start(folder: SweepFolder, launch_id: str, job: Job | None) -> tuple[str, str]:
    """Why a worker on Slurm has never started, and the log of its job if there is one."""
    place = folder.launches / launch_id
    if not list((place / "submissions").glob("*.json")):
        return "its worker was never submitted", ""
    if job is None:
        return "its worker never started", ""
    log = place / "jobs" / f"{job.id}_0_log.err"
    return f"its worker never started; its Slurm job {job.id} is {job.state}", str(log) if log.exists() else ""
