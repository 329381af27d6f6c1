"""python -m study.cancel SWEEP [--where COLUMN=VALUE]: takes runs of this sweep out of the queue, or off their workers.

Only what belongs to this sweep is touched, and what it is is shown before it is done. Records and checkpoints stay: a later
launch goes on from where the runs were.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from study.cli.arguments import add_sweep_arguments, command_parser, format_command, suggest_launch, sweep_folder
from study.cli.console import open_console, pluralize
from study.config.sweep_file import read_sweep
from study.errors import Problem, UserError, handle_user_errors
from study.launcher.cancellation import Cancellation, carry_out, propose, still_held
from study.launcher.liveness import life_of
from study.launcher.run_filter import pairs, selected
from study.launcher.slurm import client as slurm
from study.records.sweep_folder import SweepFolder, read_kept
from study.records.table import completed, load_plan

SHOWN = 8


@handle_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = command_parser("cancel", __doc__)
    add_sweep_arguments(parser)
    parser.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE", help="only runs like this")
    parser.add_argument("--yes", action="store_true", help="don't ask")
    arguments = parser.parse_intermixed_args(argv)
    sweep, console = read_sweep(arguments.sweep, arguments.overrides), open_console()
    folder, where = sweep_folder(arguments, sweep.name), pairs(arguments.where)
    with suggest_launch(sweep, runs=arguments.runs):
        wanted = selected(planned_runs(folder), where)
    life = life_of(folder)
    proposed, followers = propose(folder, wanted, life), frozenset() if where else life.followers
    if not (proposed.runs or followers):
        console.print(f"{sweep.name}: nothing of this is queued or running.", highlight=False)
        return 0
    what = ", ".join([*([told(proposed)] if proposed.runs else []), *(f"job {name}" for name in sorted(followers))])
    console.print(f"{sweep.name}: to be cancelled: {what}", highlight=False, soft_wrap=True)
    show(sorted(proposed.run_ids), console)
    if not (arguments.yes or confirmed()):
        console.print("Nothing was cancelled.")
        return 1
    slurm.cancel_named(sorted(followers))  # first: the end of the workers' jobs would start them
    done = carry_out(folder, wanted)
    if done.runs:
        console.print(f"{sweep.name}: cancelled {told(done)}", highlight=False, soft_wrap=True)
    held = still_held(folder, done.run_ids)
    if held:
        console.print(f"{len(held)} are still being let go of by their workers, e.g. {min(held)}", highlight=False)
    again = format_command("launch", sweep, sweep.overrides, runs=arguments.runs)
    console.print(f"Records and checkpoints are kept. To go on: {again}", highlight=False, markup=False, soft_wrap=True)
    return 0


def planned_runs(folder: SweepFolder) -> list[dict[str, Any]]:
    """Every run that any launch of the sweep has planned; a UserError where there was no launch."""
    load_plan(folder.path)
    plans = [read_kept(path, mend="restore it, or move it away") for path in sorted(folder.plans.glob("*.json"))]
    return [planned for plan in plans for planned in completed(plan)["runs"]]


def told(what: Cancellation) -> str:
    """A cancellation in one line."""
    jobs = f"; jobs {', '.join(job.id for job in what.jobs[:SHOWN])}" if what.jobs else ""
    more = f" and {len(what.jobs) - SHOWN} more" if len(what.jobs) > SHOWN else ""
    spared = (
        f"; {pluralize(what.spared, 'job')} {'goes' if what.spared == 1 else 'go'} on with other runs" if what.spared else ""
    )
    return f"{pluralize(len(what.run_ids), 'run')}, {what.training} of them in training{jobs}{more}{spared}"


def show(run_ids: Sequence[str], console: Console) -> None:
    for run_id in run_ids[:SHOWN]:
        console.print(f"  {run_id}", highlight=False)
    if len(run_ids) > SHOWN:
        console.print(f"  ... and {len(run_ids) - SHOWN} more", highlight=False)


def confirmed() -> bool:
    """Asks the user; a UserError where nobody is there to answer."""
    if not sys.stdin.isatty():
        raise UserError(Problem("nobody is there to be asked; --yes cancels without asking", "command line", "--yes"))
    return input("Cancel these? [y/N] ").strip().lower() in ("y", "yes")


if __name__ == "__main__":
    sys.exit(main())
