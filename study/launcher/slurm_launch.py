"""A launch on Slurm: runs that no live worker owns are submitted in as few job arrays as the cluster's limits allow.

Nothing is submitted unless squeue has shown which workers are alive. All decisions are made under the sweep's lock.
"""

import os
import time
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from rich.console import Console

from study.errors import Problem, UserError
from study.launcher.assignment import LaunchRequest, RemainingRuns, assign_runs, check_batch_sizes, draft_launch, find_remaining
from study.launcher.execution import decide_execution, print_changes
from study.launcher.liveness import Liveness, check_liveness
from study.launcher.progress_view import LaunchView
from study.launcher.slurm import client as slurm
from study.launcher.slurm.dependent_jobs import make_next_stage_job, make_report_job, submit_dependent_job
from study.launcher.slurm.job_arrays import JobArray, Submission, format_script, make_executor, submit_arrays
from study.launcher.slurm.profile import Profile
from study.launcher.sweep_status import compute_sweep_status
from study.planning.planned_run import PlannedRun
from study.planning.stages import describe_next_stage, list_awaited
from study.planning.sweep_plan import Plan
from study.records.ledger import DeviceKind, Launch, read_launches
from study.records.locks import sweep_lock
from study.records.record import read_records
from study.records.sweep_folder import SweepFolder

FILE_POLL_S = 2.0
QUEUE_POLL_S = 30.0  # one squeue call
CANCEL_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class SlurmRequest(LaunchRequest):
    """A launch with what can be requested on Slurm alone."""

    profile: Profile
    rebalance: bool
    settled: bool
    report: bool
    wait: bool

    @property
    def worker_count(self) -> int:
        return self.workers or self.profile.workers

    @property
    def device(self) -> DeviceKind:
        return "cuda" if self.profile.gpus_per_node and self.plan.sweep.device != "cpu" else "cpu"

    def check(self) -> None:
        """Raise UserError if sweep and profile contradict each other."""
        if self.plan.sweep.device == "cuda" and not self.profile.gpus_per_node:
            rule = "the sweep has device: cuda, but the profile requests no GPU"
            raise UserError(Problem(rule, key="gpus_per_node", value=0))
        check_batch_sizes(self.plan.whole, self.profile.ranks)


def launch_on_slurm(request: SlurmRequest) -> int:
    """Submit the remaining runs, and wait for them if requested; the exit status."""
    request.check()
    limits = slurm.read_limits()
    with sweep_lock(request.folder):
        liveness = check_liveness(request.folder, query_slurm=True)
        if request.rebalance:
            liveness = _cancel_queued_jobs(request.folder, liveness, request.console)
        if request.settled:
            liveness = replace(liveness, settling=frozenset())  # the file system shows files at once
        remaining = find_remaining(request, liveness)
        submitted = _submit_all(request, remaining, limits, liveness) if remaining.runs else []
    if not submitted:
        request.console.print("Nothing is left to start.")
    _submit_dependent_job(request, submitted, liveness)
    if request.wait and submitted:
        launch_ids = {each.launch.id for each in submitted}
        return _wait(request.folder, launch_ids, [planned.run_id for planned in remaining.runs], request.console)
    return 0


def print_scripts(request: SlurmRequest) -> int:
    """Print what a launch would submit; writes and submits nothing."""
    request.check()
    limits = slurm.read_limits()
    liveness = check_liveness(request.folder, query_slurm=True)
    remaining = find_remaining(request, liveness)
    for ranks, runs in _group_by_ranks(remaining.runs, request.profile.ranks):
        draft = _draft(request, runs, _subtract_queue(limits, liveness), ranks=ranks)
        arrays = -(-draft.jobs // limits.array_size)
        workers = f"{draft.tasks} workers" + (f" of {ranks} ranks" if ranks > 1 else "")
        request.console.print(f"{draft.jobs} jobs, {workers}, {arrays} sbatch calls; the script of the first:\n")
        executor = make_executor(request.folder, draft, request.profile, first=0, arrays=arrays)
        request.console.print(format_script(executor, min(draft.jobs, limits.array_size)))
    return 0


def _group_by_ranks(runs: Sequence[PlannedRun], ranks: int) -> list[tuple[int, tuple[PlannedRun, ...]]]:
    """Runs that one process trains, and runs that `ranks` processes train together: each group is a launch of its own."""
    groups: dict[int, list[PlannedRun]] = {}
    for planned in runs:
        groups.setdefault(ranks if planned.run.train.distributed == "ddp" else 1, []).append(planned)
    return [(size, tuple(groups[size])) for size in sorted(groups)]


def _subtract_queue(limits: slurm.ClusterLimits, liveness: Liveness) -> slurm.ClusterLimits:
    """The limits with the number of jobs that the controller still accepts: it stays below MaxJobCount."""
    room = limits.job_count - 1 - liveness.queue_size
    if room < 1:
        raise UserError(Problem(f"Slurm's queue is full: it holds {liveness.queue_size:,} jobs (MaxJobCount)"))
    return replace(limits, job_count=room)


def _draft(request: SlurmRequest, runs: Sequence[PlannedRun], limits: slurm.ClusterLimits, *, ranks: int) -> Launch:
    per_job = request.profile.workers_per_gpu if ranks == 1 else 1
    workers = min(request.worker_count, len(runs), limits.job_count * per_job)
    threads = request.profile.cpus_per_task
    return draft_launch(
        request.plan,
        request.folder,
        cluster="slurm",
        workers=workers,
        execution=decide_execution(request.folder, request.device, threads=threads, asked=request.threads, here=False),
        workers_per_job=per_job,
        ranks=ranks,
    )


def _submit_all(
    request: SlurmRequest, remaining: RemainingRuns, limits: slurm.ClusterLimits, liveness: Liveness
) -> list[Submission]:
    """Submit one launch for each number of ranks, until Slurm rejects jobs."""
    submitted: list[Submission] = []
    limits = _subtract_queue(limits, liveness)
    for ranks, runs in _group_by_ranks(remaining.runs, request.profile.ranks):
        if limits.job_count < 1 or any(each.rejected for each in submitted):
            request.console.print(f"{len(runs)} runs of {ranks} ranks are left for the next launch")
            break
        submitted.append(_submit(request, runs, ranks=ranks, limits=limits))
        limits = replace(limits, job_count=limits.job_count - submitted[-1].launch.jobs)
    return submitted


def _submit(request: SlurmRequest, runs: Sequence[PlannedRun], *, ranks: int, limits: slurm.ClusterLimits) -> Submission:
    console = request.console
    draft = _draft(request, runs, limits, ranks=ranks)
    if draft.jobs == limits.job_count and draft.tasks < min(request.worker_count, len(runs)):
        console.print(f"Slurm accepts {limits.job_count:,} more jobs (MaxJobCount): launching {draft.tasks:,} workers.")
    launch = assign_runs(draft, request.plan, request.folder, runs=runs)
    print_changes(launch, console)
    if launch.threads != request.profile.cpus_per_task:
        kept = f"each worker uses {launch.threads} threads, as the sweep's first launch decided"
        console.print(f"{kept}, not cpus_per_task: {request.profile.cpus_per_task}; --threads N changes this")

    def report(array: JobArray) -> None:
        jobs = (f"{array.jobs} jobs" if array.jobs > 1 else "1 job") + (f" of {ranks} ranks" if ranks > 1 else "")
        console.print(f"submitted {array.id}: {jobs}, launch {launch.id}")

    submission = submit_arrays(request.folder, launch, request.profile, array_size=limits.array_size, report=report)
    if submission.rejected:
        left = f"Slurm rejected further submissions; {submission.rejected} of {launch.jobs} jobs are left for the next launch:"
        console.print(f"{left}\n{submission.message}")
    return submission


def _cancel_queued_jobs(folder: SweepFolder, liveness: Liveness, console: Console) -> Liveness:
    """Cancel the sweep's jobs that have not started, which leaves their runs unassigned."""
    queued = [job for job in liveness.jobs if job.queued]
    slurm.cancel_jobs(queued, only_queued=True)
    deadline = time.monotonic() + CANCEL_TIMEOUT_S
    while True:
        now = check_liveness(folder, query_slurm=True)
        still = {job.id for job in now.jobs if job.queued}
        if not still & {job.id for job in queued} or time.monotonic() > deadline:
            console.print(f"cancelled {len(queued) - len(still)} pending jobs")
            return now
        time.sleep(1)


def _submit_dependent_job(request: SlurmRequest, submitted: Sequence[Submission], liveness: Liveness) -> None:
    """Submit the next stage or the report, if requested, after the jobs of this launch and those alive before it."""
    own_job = os.environ.get("SLURM_JOB_NAME")  # this launch may be such a job, which must not cancel itself
    waiting = {name for name in liveness.dependent_jobs if name.endswith(".next") and name != own_job}
    # A dependent job launches what follows if all runs before it are requested, and this command won't wait for them.
    further = bool(request.plan.awaited) and not request.wait and not request.run_filter.is_partial
    if not (request.report or (further and (submitted or not waiting))):
        return
    active = {job.id.partition("_")[0] for job in liveness.jobs if job.alive}
    after = sorted(active.union(array.id for each in submitted for array in each.arrays))
    if not after:  # then a next stage has no runs to wait for: one has failed, or was not selected
        if not further:
            words = " ".join(make_report_job(request.folder).words)
            request.console.print(f"no jobs are active, so the report need not wait: python {words}")
        return
    newest = submitted[-1].launch if submitted else read_launches(request.folder)[-1]
    job = make_report_job(request.folder)
    if further:  # the next stage submits the report
        plan, profile = request.plan, request.profile
        job = make_next_stage_job(
            request.folder, newest, plan.sweep, profile, workers=request.worker_count, report=request.report
        )
        slurm.cancel_jobs_named(sorted(waiting))  # an earlier one, which doesn't wait for the new arrays
    try:
        job_id = submit_dependent_job(request.folder, newest, request.profile, job, after=after)
    except UserError as error:  # the workers have been submitted all the same
        request.console.print(f"{error.summary()}\nrun the launch again later")
        return
    what = describe_next_stage(request.plan) if further else "the report"
    request.console.print(f"submitted {job_id}: {what}, after these jobs have ended: {', '.join(after)}")


def await_stage(plan: Plan, folder: SweepFolder, console: Console) -> None:
    """Return when every awaited run has an outcome, or when no worker owns those that have none."""
    while unrecorded := list_awaited(plan, read_records(folder.records)):
        liveness = _try_check_liveness(folder)
        if liveness and not {planned.run_id for planned in unrecorded} & liveness.owners(folder).keys():
            return
        console.print(f"{len(unrecorded)} {'trials' if plan.pending else 'runs'} are still running or settling")
        time.sleep(QUEUE_POLL_S)


def _wait(folder: SweepFolder, launch_ids: Set[str], run_ids: Sequence[str], console: Console) -> int:
    """Show progress until every run is recorded or no live worker has it; prints what is missing then."""
    with LaunchView(folder, launch_ids, frozenset(run_ids), console) as view:
        try:
            _watch(view)
        except KeyboardInterrupt:
            console.print("The jobs continue.")
            raise
    status = compute_sweep_status(folder, run_ids, check_liveness(folder))
    for group in status.missing:
        console.print(f"{len(group.runs)} runs are missing: {group.reason}")
    return 1 if status.missing or status.failed else 0


def _watch(view: LaunchView) -> None:
    next_query, printed = 0.0, ""
    while not view.recorded >= view.run_ids:
        view.update()
        if time.monotonic() >= next_query and (liveness := _try_check_liveness(view.folder)):
            next_query = time.monotonic() + QUEUE_POLL_S
            if not view.launch_ids & {launch_id for launch_id, _ in liveness.alive | liveness.settling}:
                return
            if (counts := _describe_jobs(liveness, view.launch_ids)) != printed:
                view.console.print(printed := counts)
        time.sleep(FILE_POLL_S)


def _try_check_liveness(folder: SweepFolder) -> Liveness | None:
    """None while Slurm doesn't answer, which doesn't end the waiting."""
    try:
        return check_liveness(folder)
    except UserError:
        return None


def _describe_jobs(liveness: Liveness, launch_ids: Set[str]) -> str:
    jobs = [job for job in liveness.jobs if job.launch in launch_ids and job.alive]
    queued = Counter(job.pending_reason for job in jobs if job.queued)
    reasons = ", ".join(f"{reason} {count}" for reason, count in queued.most_common())
    return f"jobs: {len(jobs) - queued.total()} running, {queued.total()} queued" + (f" ({reasons})" if reasons else "")
