"""A launch on Slurm: what nobody alive owns goes into the queue, as few arrays as the cluster's limits allow.

Nothing is submitted unless squeue has said who is alive. Everything that decides happens under the sweep's lock.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass

from rich.console import Console

from study.errors import Problem, UserError
from study.launcher.assignment import ToDo, by_ranks, check_batches, enter, new_launch, to_do
from study.launcher.liveness import Life, life_of
from study.launcher.progress_view import LaunchView
from study.launcher.run_filter import Selection
from study.launcher.slurm import client as slurm
from study.launcher.slurm.dependent_jobs import Follower, final_stage, reporting, submit_follower
from study.launcher.slurm.job_arrays import Array, Submitted, executor_for, script_text, submit
from study.launcher.slurm.profile import Profile
from study.launcher.sweep_status import standing
from study.planning.planned_run import PlannedRun
from study.planning.sweep_plan import Plan
from study.planning.trials import trials_without_outcome
from study.records.ledger import Launch, read_launches
from study.records.locks import sweep_lock
from study.records.record import read_records
from study.records.sweep_folder import SweepFolder

LOOK_EVERY_S = 2.0
ASK_EVERY_S = 30.0  # one squeue call
TAKING_BACK_S = 30.0


@dataclass(frozen=True)
class Asked:
    """A launch as it was asked for."""

    plan: Plan
    folder: SweepFolder
    selection: Selection
    profile: Profile
    workers: int
    rebalance: bool = False
    settled: bool = False
    report: bool = False
    wait: bool = False

    @property
    def final_stage_follows(self) -> bool:
        """Whether a job is to launch the final runs: they wait for trials, all of which were asked for, and nobody stays."""
        return bool(self.plan.pending) and not self.wait and not self.selection.where and self.selection.limit is None

    def check(self) -> None:
        """Raises UserError where sweep and profile contradict each other."""
        if self.plan.sweep.device == "cuda" and not self.profile.gpus_per_node:
            raise UserError(Problem("the sweep says device: cuda, the profile asks for no GPU", key="gpus_per_node", value=0))
        check_batches(self.plan.whole, self.profile.ranks)


@dataclass(frozen=True)
class Placed:
    """A launch in Slurm's queue, and what of it Slurm took."""

    launch: Launch
    submitted: Submitted


def launch(asked: Asked, console: Console) -> int:
    """Submits what is left, then tells, reports and waits as asked; the exit status."""
    asked.check()
    limits = slurm.limits()
    with sweep_lock(asked.folder):
        life = life_of(asked.folder, ask_slurm=True)
        if asked.rebalance:
            life = _take_back(asked.folder, life, console)
        if asked.settled:
            life = life.settled()
        left = to_do(asked.plan, asked.folder, life=life, selection=asked.selection)
        console.print(f"{asked.plan.sweep.name}: {left.told()}", highlight=False)
        placed = _placed(asked, left, limits=_with_room(limits, life), console=console) if left.runs else []
    if not placed:
        console.print("Nothing is left to start.")
    _add_follower(asked, placed, life, console)
    if asked.wait and placed:
        entered = frozenset(one.launch.id for one in placed)
        return _wait(asked, entered, [planned.run_id for planned in left.runs], console)
    return 0


def show_scripts(asked: Asked, console: Console) -> int:
    """What a launch would submit; writes and submits nothing."""
    asked.check()
    limits = slurm.limits()
    life = life_of(asked.folder, ask_slurm=True)
    left = to_do(asked.plan, asked.folder, life=life, selection=asked.selection)
    console.print(f"{asked.plan.sweep.name}: {left.told()}", highlight=False)
    for ranks, runs in by_ranks(left.runs, asked.profile.ranks):
        draft = _draft(asked, runs, _with_room(limits, life), ranks=ranks)
        arrays = -(-draft.jobs // limits.array_size)
        size = min(draft.jobs, limits.array_size)
        workers = f"{draft.tasks} workers" + (f" of {ranks} ranks" if ranks > 1 else "")
        told = f"{draft.jobs} jobs, {workers}, {arrays} calls of sbatch; the script of the first:"
        console.print(told + "\n", highlight=False)
        executor = executor_for(asked.folder, draft, asked.profile, first=0, arrays=arrays)
        console.print(script_text(executor, size), highlight=False, markup=False, soft_wrap=True)
    return 0


def _with_room(limits: slurm.Limits, life: Life) -> slurm.Limits:
    """The limits with as many jobs as the controller can still take: it stays below MaxJobCount."""
    room = limits.job_count - 1 - life.queue_size
    if room < 1:
        raise UserError(Problem(f"Slurm holds {life.queue_size:,} jobs already and takes {limits.job_count:,} (MaxJobCount)"))
    return slurm.Limits(limits.array_size, room)


def _draft(asked: Asked, runs: Sequence[PlannedRun], limits: slurm.Limits, *, ranks: int) -> Launch:
    """A launch with as many workers as were asked for, as there are runs, and as Slurm takes."""
    per_job = asked.profile.workers_per_gpu if ranks == 1 else 1
    workers = min(asked.workers, len(runs), limits.job_count * per_job)
    return new_launch(asked.plan, asked.folder, cluster="slurm", workers=workers, workers_per_job=per_job, ranks=ranks)


def _placed(asked: Asked, left: ToDo, *, limits: slurm.Limits, console: Console) -> list[Placed]:
    """Submits what is left, a launch for each number of ranks, as long as Slurm takes all."""
    placed: list[Placed] = []
    room = limits.job_count
    for ranks, runs in by_ranks(left.runs, asked.profile.ranks):
        if room < 1 or any(one.submitted.left for one in placed):
            console.print(f"{len(runs)} runs of {ranks} ranks are left for the next launch", highlight=False)
            break
        placed.append(_submitted(asked, runs, ranks=ranks, limits=slurm.Limits(limits.array_size, room), console=console))
        room -= placed[-1].launch.jobs
    return placed


def _submitted(asked: Asked, runs: Sequence[PlannedRun], *, ranks: int, limits: slurm.Limits, console: Console) -> Placed:
    """Enters a launch of these runs and submits it; tells what Slurm took and what it didn't."""
    draft = _draft(asked, runs, limits, ranks=ranks)
    if draft.jobs == limits.job_count and draft.tasks < min(asked.workers, len(runs)):
        console.print(f"Slurm takes {limits.job_count:,} more jobs (MaxJobCount): {draft.tasks:,} workers.", highlight=False)
    entered = enter(draft, asked.plan, asked.folder, runs=runs)

    def tell(array: Array) -> None:
        jobs = (f"{array.jobs} jobs" if array.jobs > 1 else "1 job") + (f" of {ranks} ranks" if ranks > 1 else "")
        console.print(f"submitted {array.id}: {jobs}, launch {entered.id}", highlight=False)

    done = submit(asked.folder, entered, asked.profile, array_size=limits.array_size, tell=tell)
    if done.left:
        console.print(
            f"Slurm took no more; {done.left} of {entered.jobs} jobs are left for the next launch:\n{done.refused}",
            highlight=False,
            markup=False,
        )
    return Placed(entered, done)


def _take_back(folder: SweepFolder, life: Life, console: Console) -> Life:
    """Cancels the sweep's jobs that have not started; their runs are nobody's then."""
    waiting = [job for job in life.jobs if job.queued]
    slurm.cancel(waiting, only_queued=True)
    give_up = time.monotonic() + TAKING_BACK_S
    while True:
        now = life_of(folder, ask_slurm=True)
        still = {job.id for job in now.jobs if job.queued}
        if not still & {job.id for job in waiting} or time.monotonic() > give_up:
            console.print(f"took back {len(waiting) - len(still)} jobs that had not started", highlight=False)
            return now
        time.sleep(1)


def _add_follower(asked: Asked, placed: Sequence[Placed], life: Life, console: Console) -> None:
    """The dependent job, if there is to be one: after the arrays of this launch and what was under way before, however they
    end.

    A final stage that is still to come brings the report with it.
    """
    waiting = {name for name in life.followers if name.endswith(".final")}
    if not (asked.report or (asked.final_stage_follows and (placed or not waiting))):
        return
    under_way = {job.id.partition("_")[0] for job in life.jobs if job.alive}
    after = sorted(under_way.union(array.id for one in placed for array in one.submitted.arrays))
    if not after and asked.final_stage_follows:
        return  # a trial failed, or was not selected: there is nothing to wait for
    if not after:
        words = " ".join(reporting(asked.folder).words)
        console.print(f"nothing is under way, so the report need not wait: python {words}", highlight=False)
        return
    newest = placed[-1].launch if placed else read_launches(asked.folder)[-1]
    follower = _follower(asked, newest)
    if asked.final_stage_follows:
        slurm.cancel_named(sorted(waiting))  # it knew neither of these arrays nor of this report
    try:
        job_id = submit_follower(asked.folder, newest, asked.profile, follower, after=after)
    except UserError as error:  # the workers are in the queue all the same
        console.print(f"{error.summary()}\ntype the launch again later", highlight=False, markup=False)
        return
    told = f"the {len(asked.plan.pending)} final runs" if follower.following == "final" else "the report"
    console.print(f"submitted {job_id}: {told}, when these have ended: {', '.join(after)}", highlight=False)


def _follower(asked: Asked, newest: Launch) -> Follower:
    """What comes next: the final stage where its runs wait for trials, else the report."""
    if not asked.final_stage_follows:
        return reporting(asked.folder)
    return final_stage(asked.folder, newest, asked.plan.sweep, asked.profile, workers=asked.workers, report=asked.report)


def await_trials(plan: Plan, folder: SweepFolder, console: Console) -> None:
    """Returns when every trial is recorded, or when no trial's worker may still show its files."""
    while waited_for := trials_without_outcome(plan, read_records(folder.records)):
        life = _asked_again(folder)
        if life and not {trial.run_id for trial in waited_for} & life.owners(folder).keys():
            return
        console.print(f"{len(waited_for)} trials are still settling or under way", highlight=False)
        time.sleep(ASK_EVERY_S)


def _wait(asked: Asked, entered: Set[str], run_ids: Sequence[str], console: Console) -> int:
    """Shows progress until every run is recorded or nobody is left to train it; tells what is missing then."""
    with LaunchView(asked.folder, entered, frozenset(run_ids), console) as view:
        try:
            _watch(view, asked.folder, entered)
        except KeyboardInterrupt:
            view.say("The jobs go on.")
            raise
    at_end = standing(asked.folder, run_ids, life_of(asked.folder))
    for gap in at_end.gaps:
        console.print(f"{len(gap.runs)} runs are missing: {gap.reason}", highlight=False, markup=False)
    return 1 if at_end.missing or at_end.failed else 0


def _watch(view: LaunchView, folder: SweepFolder, entered: Set[str]) -> None:
    """Looks at files often and at the queue seldom."""
    next_ask, told = 0.0, ""
    while not view.recorded >= view.run_ids:
        view.update()
        if time.monotonic() >= next_ask and (life := _asked_again(folder)):
            next_ask = time.monotonic() + ASK_EVERY_S
            if not entered & {launch_id for launch_id, _ in life.working | life.settling}:
                return
            if (now := _jobs_told(life, entered)) != told:
                view.say(told := now)
        time.sleep(LOOK_EVERY_S)


def _asked_again(folder: SweepFolder) -> Life | None:
    """Who is alive, or None where Slurm gives no answer just now: waiting goes on."""
    try:
        return life_of(folder)
    except UserError:
        return None


def _jobs_told(life: Life, entered: Set[str]) -> str:
    """How many of these launches' jobs run and wait, and what for."""
    jobs = [job for job in life.jobs if job.launch in entered and job.alive]
    waiting = Counter(job.why_queued for job in jobs if job.queued)
    reasons = ", ".join(f"{reason} {count}" for reason, count in waiting.most_common())
    return f"jobs: {len(jobs) - waiting.total()} running, {waiting.total()} queued" + (f" ({reasons})" if reasons else "")
