"""python -m study.cancel SWEEP [--where COLUMN=VALUE]: cancel queued or running runs of this sweep.

Jobs of other sweeps are never touched. Records and checkpoints are kept, so a later launch resumes the runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from study.cli.arguments import add_sweep_arguments, command_parser, format_command, suggest_launch, sweep_folder
from study.cli.console import open_console, pluralize
from study.config.sweep_file import read_sweep
from study.errors import Problem, UserError, and_more, handle_user_errors
from study.launcher.cancellation import Cancellation, cancel, propose_cancellation, wait_until_stopped
from study.launcher.liveness import check_liveness
from study.launcher.run_filter import match_runs, parse_where
from study.launcher.slurm import client as slurm
from study.records.plan_file import PlannedEntry, load_plan, read_plan
from study.records.sweep_folder import SweepFolder

MAX_SHOWN = 8


@handle_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = command_parser("cancel", __doc__)
    add_sweep_arguments(parser)
    parser.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE", help="only runs with this value")
    parser.add_argument("--yes", action="store_true", help="don't ask for confirmation")
    arguments = parser.parse_intermixed_args(argv)
    sweep, console = read_sweep(arguments.sweep, arguments.overrides), open_console()
    folder, where = sweep_folder(arguments, sweep.name), parse_where(arguments.where)
    with suggest_launch(sweep, runs=arguments.runs):
        wanted = match_runs(_read_planned_runs(folder), where)
    liveness = check_liveness(folder)
    proposed = propose_cancellation(folder, wanted, liveness)
    dependent_jobs = [] if where else sorted(liveness.dependent_jobs)
    if not (proposed.runs or dependent_jobs):
        console.print(f"{sweep.name}: no matching runs are queued or running.")
        return 0
    what = ", ".join([*([_describe(proposed)] if proposed.runs else []), *(f"job {name}" for name in dependent_jobs)])
    console.print(f"{sweep.name}: to be cancelled: {what}")
    for line in and_more(sorted(proposed.run_ids), MAX_SHOWN):
        console.print(f"  {line}")
    if not (arguments.yes or _confirm()):
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
    return 0


def _read_planned_runs(folder: SweepFolder) -> list[PlannedEntry]:
    """The runs that any launch of the sweep has planned. Raises NotLaunched if there was none."""
    load_plan(folder)
    hint = "restore it, or move it away"
    return [entry for path in sorted(folder.plans.glob("*.json")) for entry in read_plan(path, hint=hint).runs]


def _describe(what: Cancellation) -> str:
    jobs = f"; jobs {', '.join(and_more([job.id for job in what.jobs], MAX_SHOWN))}" if what.jobs else ""
    verb = "continues" if what.continuing == 1 else "continue"
    continuing = f"; {pluralize(what.continuing, 'job')} {verb} with other runs" if what.continuing else ""
    return f"{pluralize(len(what.run_ids), 'run')}, {what.training} of them in training{jobs}{continuing}"


def _confirm() -> bool:
    if not sys.stdin.isatty():
        raise UserError(Problem("no terminal to confirm on; use --yes", "command line", "--yes"))
    return input("Cancel these? [y/N] ").strip().lower() in ("y", "yes")


if __name__ == "__main__":
    sys.exit(main())
