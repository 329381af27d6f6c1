"""python -m study.cancel SWEEP [--where COLUMN=VALUE]: cancel queued or running runs of this sweep.

Jobs of other sweeps are never touched. Records and checkpoints are kept, so a later launch resumes the runs.

A worker with other runs keeps training: it skips cancelled runs, and checkpoints and leaves the one in training. It reads the
cancellation from the ledger, so this works for local workers too.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from study.cli.arguments import add_json_option, format_command, suggest_launch, sweep_folder, sweep_parser
from study.cli.console import open_console, pluralize, print_json
from study.config.sweep import Sweep
from study.config.sweep_file import read_sweep
from study.errors import Problem, UserError, and_more, handle_user_errors
from study.launcher.liveness import Liveness, check_liveness
from study.launcher.run_filter import match_runs, parse_where
from study.launcher.slurm import client as slurm
from study.records.ledger import CANCELLATION_POLL_S, WorkerId, cancel_runs
from study.records.locks import sweep_lock
from study.records.plan_file import load_plan, read_plan
from study.records.record import read_records
from study.records.sweep_folder import SweepFolder

MAX_SHOWN = 8
STOP_TIMEOUT_S = 30.0  # a local worker notices within CANCELLATION_POLL_S, and stops at its step's end


@handle_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = sweep_parser("cancel", __doc__)
    parser.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE", help="only runs with this value")
    parser.add_argument("--yes", action="store_true", help="don't ask for confirmation")
    add_json_option(parser)
    arguments = parser.parse_intermixed_args(argv)
    sweep, console = read_sweep(arguments.sweep, arguments.overrides, with_plugins=False), open_console(for_json=arguments.json)
    folder, where = sweep_folder(arguments, sweep.name), parse_where(arguments.where)
    with suggest_launch(sweep, runs=arguments.runs):
        load_plan(folder)
    plans = [read_plan(path, hint="restore it, or move it away") for path in sorted(folder.plans.glob("*.json"))]
    wanted = match_runs((entry for plan in plans for entry in plan.runs), where)  # of every launch of the sweep
    liveness = check_liveness(folder)
    proposed = propose_cancellation(folder, wanted, liveness)
    dependent_jobs = [] if where else sorted(liveness.dependent_jobs)
    if not (proposed.runs or dependent_jobs):
        console.print(f"{sweep.name}: no matching runs are queued or running.")
        return _finish(sweep, Cancellation({}, (), 0, 0), as_json=arguments.json)
    what = ", ".join([*([_describe(proposed)] if proposed.runs else []), *(f"job {name}" for name in dependent_jobs)])
    console.print(f"{sweep.name}: to be cancelled: {what}")
    for line in and_more(sorted(proposed.run_ids), MAX_SHOWN):
        console.print(f"  {line}")
    if not (arguments.yes or (sys.stdin.isatty() and not arguments.json)):
        raise UserError(Problem("no terminal to confirm on; use --yes", "command line", "--yes"))
    if not arguments.yes and input("Cancel these? [y/N] ").strip().lower() not in ("y", "yes"):
        console.print("Nothing was cancelled.")
        return 1
    slurm.cancel_jobs_named(dependent_jobs)  # first: the end of the workers' jobs would start them
    done = cancel(folder, wanted)
    if done.runs:
        console.print(f"{sweep.name}: cancelled {_describe(done)}")
    if running := wait_until_stopped(folder, done.run_ids):
        line = f"{pluralize(len(running), 'run')} still in training, e.g. {min(running)}: workers stop at the next step"
        console.print(line)
    again = format_command("launch", sweep, sweep.overrides, runs=arguments.runs)
    console.print(f"Records and checkpoints are kept. To resume: {again}")
    return _finish(sweep, done, dependent_jobs, running, as_json=arguments.json)


@dataclass(frozen=True)
class Cancellation:
    """Runs to cancel, by the worker that owns them, and the jobs that would have no other runs."""

    runs: Mapping[WorkerId, tuple[str, ...]]
    jobs: tuple[slurm.Job, ...]
    training: int  # how many of the runs have begun
    continuing: int  # jobs of these workers that have other runs

    @property
    def run_ids(self) -> set[str]:
        return {run_id for ids in self.runs.values() for run_id in ids}


def _finish(
    sweep: Sweep, done: Cancellation, dependent_jobs: Sequence[str] = (), running: Collection[str] = (), *, as_json: bool
) -> int:
    """Print what was cancelled as data, if that is asked for; the exit status."""
    if as_json:
        document = {
            "sweep": sweep.name,
            "cancelled": [*sorted(done.run_ids)],
            "still_training": [*sorted(running)],
            "jobs": [job.id for job in done.jobs],
            "dependent_jobs": [*dependent_jobs],
            "jobs_with_other_runs": done.continuing,
        }
        print_json("cancel", document)
    return 0


def propose_cancellation(folder: SweepFolder, wanted: Collection[str], liveness: Liveness) -> Cancellation:
    """The cancellation of those wanted runs that a live worker owns and that have no record."""
    recorded = read_records(folder.records)
    cancelled, kept = defaultdict[WorkerId, list[str]](list), set[WorkerId]()
    for run_id, worker in liveness.owners(folder).items():
        if run_id in recorded:
            continue
        if run_id in wanted:
            cancelled[worker].append(run_id)
        else:
            kept.add(worker)
    jobs = {worker: job for worker, job in liveness.jobs_by_worker(folder).items() if job.alive}
    affected = {jobs[worker].id: jobs[worker] for worker in cancelled if worker in jobs}
    continuing = affected.keys() & {jobs[worker].id for worker in kept if worker in jobs}
    begun = {run_id for worker in cancelled if (state := liveness.last_states.get(worker)) for run_id in state.open_runs}
    return Cancellation(
        runs={worker: tuple(run_ids) for worker, run_ids in cancelled.items()},
        jobs=tuple(job for job in affected.values() if job.id not in continuing),
        training=sum(run_id in begun for run_ids in cancelled.values() for run_id in run_ids),
        continuing=len(continuing),
    )


def cancel(folder: SweepFolder, wanted: Collection[str]) -> Cancellation:
    """Cancel what `propose_cancellation` proposes now, under the sweep's lock; returns it."""
    with sweep_lock(folder):
        done = propose_cancellation(folder, wanted, check_liveness(folder))
        by_launch: dict[str, list[str]] = defaultdict(list)
        for (launch_id, _), run_ids in done.runs.items():
            by_launch[launch_id] += run_ids
        for launch_id, cancelled in by_launch.items():
            cancel_runs(folder, launch_id, cancelled)
        slurm.cancel_jobs(done.jobs)
    return done


def _describe(what: Cancellation) -> str:
    jobs = f"; jobs {', '.join(and_more([job.id for job in what.jobs], MAX_SHOWN))}" if what.jobs else ""
    verb = "continues" if what.continuing == 1 else "continue"
    continuing = f"; {pluralize(what.continuing, 'job')} {verb} with other runs" if what.continuing else ""
    return f"{pluralize(len(what.run_ids), 'run')}, {what.training} of them in training{jobs}{continuing}"


def wait_until_stopped(folder: SweepFolder, run_ids: Collection[str]) -> set[str]:
    """Wait a while for the workers of cancelled runs; returns the runs that are still in training then."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while True:
        running = set(run_ids) & check_liveness(folder).owners(folder).keys()
        if not running or time.monotonic() > deadline:
            return running
        time.sleep(CANCELLATION_POLL_S)


if __name__ == "__main__":
    sys.exit(main())
