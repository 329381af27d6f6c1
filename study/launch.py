"""python -m study.launch SWEEP [key=value ...]: trains what is missing of a sweep, on Slurm or on this machine.

Typing the same command again finishes what is left, whatever happened in between. Where a Slurm controller answers, arrays
of workers are submitted with a profile (slurm/default.yaml, or --profile); elsewhere the runs are trained here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from study.cli.arguments import add_sweep_arguments, command_parser, cost_cache, format_command, positive_int, sweep_folder
from study.cli.console import open_console, pluralize
from study.config.sweep import Sweep
from study.config.sweep_file import read_sweep
from study.data import NotPrepared
from study.data.linear_baseline import fit_linear_baseline
from study.errors import Problem, UserError, handle_user_errors
from study.launcher.assignment import enter, keep_plan, new_launch, not_kept, to_do
from study.launcher.liveness import life_of
from study.launcher.local_workers import LocalWorkers, machine_for, worker_environment
from study.launcher.progress_view import LaunchView
from study.launcher.run_filter import Selection, pairs
from study.launcher.slurm import client as slurm
from study.launcher.slurm.profile import Profile, read_profile
from study.launcher.slurm.slurm_launch import Asked, await_trials, launch, show_scripts
from study.plan import show_plan
from study.planning.cost_check import verify_costs
from study.planning.planned_run import PlannedRun
from study.planning.sweep_plan import Plan
from study.planning.trials import describe_selection, make_plan_so_far, make_selected_plan, trials_without_outcome
from study.prepare import prepare_data
from study.records.baseline_accuracy import note_baseline
from study.records.benchmark_file import newest_benchmark
from study.records.ledger import Cluster, read_launches
from study.records.locks import launcher_sign, sweep_lock
from study.records.record import read_records
from study.records.selection import read_selection
from study.records.sweep_folder import SweepFolder
from study.tracking.libraries import require_trackers

DEFAULT_PROFILE = "slurm/default.yaml"


def parser() -> argparse.ArgumentParser:
    parser = command_parser("launch", __doc__)
    add_sweep_arguments(parser)
    parser.add_argument(
        "--cluster",
        choices=("auto", "slurm", "local"),
        default="auto",
        help="auto: slurm where its controller answers (scontrol ping, 3 s)",
    )
    parser.add_argument("--profile", metavar="FILE", help=f"what to ask Slurm for (default: {DEFAULT_PROFILE})")
    parser.add_argument(
        "--set",
        dest="profile_overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the profile, e.g. --set partition=gpu",
    )
    parser.add_argument("--workers", type=positive_int, help="how many workers share the runs")
    parser.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE", help="only runs like this")
    parser.add_argument("--limit", type=positive_int, metavar="N", help="at most N runs, in plan order")
    parser.add_argument("--retry", action="append", choices=("failed",), default=[], help="try failed runs again")
    parser.add_argument("--dry-run", action="store_true", help="show the plan and the sbatch script; start nothing")
    parser.add_argument(
        "--rebalance", action="store_true", help="take back the jobs that have not started, and hand their runs out anew"
    )
    parser.add_argument("--settled", action="store_true", help="don't wait two minutes for files of jobs that have just ended")
    parser.add_argument(
        "--after-trials",
        action="store_true",
        help="on Slurm: wait for the trials of a tuned sweep to be recorded, and launch its final runs only",
    )
    parser.add_argument("--wait", action="store_true", help="stay and show progress (always so on this machine)")
    parser.add_argument("--report", action="store_true", help="report when the workers have ended, however they end")
    return parser


@handle_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_intermixed_args(argv)
    console = open_console()
    sweep = read_sweep(arguments.sweep, arguments.overrides)
    require_trackers(sweep.track, place=sweep.path)
    selection = Selection(where=pairs(arguments.where), limit=arguments.limit, retry=frozenset(arguments.retry))
    cluster: Cluster = "slurm" if arguments.after_trials else _cluster(arguments.cluster, console)
    profile = _profile(arguments, cluster)
    folder = sweep_folder(arguments, sweep.name)
    plan = _planned(sweep, folder, selection, dry_run=arguments.dry_run, console=console)
    verify_costs((planned.run.model for planned in plan.runs), cache=cost_cache(arguments))
    ask = partial(_ask, folder=folder, selection=selection, profile=profile, arguments=arguments, console=console)
    if not arguments.dry_run:
        _note_baselines(plan, folder, console)
        if arguments.after_trials:
            await_trials(plan, folder, console)
        plan = _onward(plan, folder, console)
    if arguments.after_trials and (missing := trials_without_outcome(plan, read_records(folder.records))):
        return _held_up(plan, missing, folder, console, arguments=arguments)
    status = ask(plan)
    if plan.pending and status == 0 and _goes_on(arguments, profile):
        plan = _onward(plan, folder, console)
        status = status if plan.pending else ask(plan)
    if arguments.report and profile is None and not arguments.dry_run:
        status = max(status, _report(folder))
    if arguments.dry_run:
        console.print("Nothing was started or written: --dry-run only shows.")
    else:
        follows = profile is not None and not arguments.wait and arguments.limit is None and not selection.where
        _say_next(plan, console, runs=arguments.runs, by_hand=not follows)
    return status


def _planned(sweep: Sweep, folder: SweepFolder, selection: Selection, *, dry_run: bool, console: Console) -> Plan:
    """The plan, its data prepared; what is wrong with sweep and selection is told first, where it can be seen without them."""
    try:
        plan = make_plan_so_far(sweep, folder)
    except NotPrepared:
        if dry_run:
            raise
        prepare_data(sweep, console)
        plan = make_plan_so_far(sweep, folder)
    selection.of([*plan.runs, *plan.pending])
    if not dry_run:
        prepare_data(sweep, console)
    return plan


def _note_baselines(plan: Plan, folder: SweepFolder, console: Console) -> None:
    """What a linear model on pixels reaches on each of the sweep's data sets: the bar that its cells must clear."""
    data = {planned.run.data.model_dump_json(): planned.run.data for planned in plan.runs}
    for one in data.values():
        with console.status(f"fitting the linear baseline on {one.name}"):
            note_baseline(folder.baselines, one.model_dump(), fit=partial(fit_linear_baseline, one))


def _ask(
    plan: Plan,
    *,
    folder: SweepFolder,
    selection: Selection,
    profile: Profile | None,
    arguments: argparse.Namespace,
    console: Console,
) -> int:
    """Shows the plan and has what is left of it trained, here or on Slurm."""
    selection.of(plan.runs)
    show_plan(plan, console, benchmark=newest_benchmark(folder.benchmarks))
    _say_not_kept(plan, folder, console)
    earlier = folder.launch_ids()
    if profile is None:
        status = _here(plan, folder, selection, arguments=arguments, console=console)
    else:
        status = _on_slurm(plan, folder, selection, profile=profile, arguments=arguments, console=console)
    if not arguments.dry_run:
        _note_plan(plan, folder, earlier=earlier)
    return status


def _say_not_kept(plan: Plan, folder: SweepFolder, console: Console) -> None:
    """What is asked to be kept of runs that are recorded already, and how to come by it."""
    for option, run_ids in not_kept(plan, folder).items():
        many = f"{len(run_ids):,} recorded runs were" if len(run_ids) > 1 else "1 recorded run was"
        told = f"{many} trained without {option}, so nothing is kept, e.g. of {run_ids[0]}. The option makes no other run"
        console.print(f"{told}: to train once more, with it, add name=ANOTHER", highlight=False, soft_wrap=True)


def _note_plan(plan: Plan, folder: SweepFolder, *, earlier: Sequence[str]) -> None:
    """What was asked for last is the plan that tables and status are of, also where nothing was left to start.

    A sweep that lost a level or a seed, or got another question, would else be reported as it was before. The launch
    that notes it has no workers, and there is none where a launch that wasn't among the `earlier` ones has the plan.
    """
    with sweep_lock(folder):
        launches = [launch for launch in read_launches(folder) if launch.id not in earlier[:-1]]
        keep_plan(plan, folder)
        if plan.digest not in {launch.plan for launch in launches}:
            enter(new_launch(plan, folder, cluster="local", workers=1), plan, folder, runs=())


def _held_up(
    plan: Plan, missing: Sequence[PlannedRun], folder: SweepFolder, console: Console, *, arguments: argparse.Namespace
) -> int:
    """Tells which trials the final runs wait for; a report that was asked for shows what there is."""
    console.print(
        f"{len(missing)} trials have no outcome, e.g. {missing[0].run_id}: nothing is selected, no final run is launched.",
        highlight=False,
    )
    if arguments.report and not arguments.dry_run:
        _report(folder)
    _say_next(plan, console, runs=arguments.runs, by_hand=True)
    return 1


def _goes_on(arguments: argparse.Namespace, profile: Profile | None) -> bool:
    """Whether this command outlives the trials' workers, and was not asked for a few runs only."""
    outlives = profile is None or arguments.wait
    return bool(outlives) and not arguments.dry_run and arguments.limit is None


def _onward(plan: Plan, folder: SweepFolder, console: Console) -> Plan:
    """The plan with its final runs decided, if all trials are recorded; what was selected is told once, here."""
    onward = make_selected_plan(plan, folder)
    if plan.pending and not onward.pending:
        selected = read_selection(folder)
        assert selected is not None
        for line in describe_selection(selected):
            console.print(line, highlight=False, soft_wrap=True)
    return onward


def _profile(arguments: argparse.Namespace, cluster: Cluster) -> Profile | None:
    """What to ask Slurm for, None on this machine; a UserError where the command line contradicts itself."""
    if cluster == "slurm":
        return read_profile(Path(arguments.profile or DEFAULT_PROFILE), arguments.profile_overrides)
    only_slurm = {
        "--rebalance": arguments.rebalance,
        "--settled": arguments.settled,
        "--profile": arguments.profile,
        "--set": arguments.profile_overrides,
    }
    if wrong := [Problem("needs Slurm", "command line", option) for option, given in only_slurm.items() if given]:
        raise UserError(*wrong)
    return None


def _on_slurm(
    plan: Plan, folder: SweepFolder, selection: Selection, *, profile: Profile, arguments: argparse.Namespace, console: Console
) -> int:
    asked = Asked(
        plan=plan,
        folder=folder,
        selection=selection,
        profile=profile,
        workers=arguments.workers or profile.workers,
        rebalance=arguments.rebalance,
        settled=arguments.settled,
        report=arguments.report,
        wait=arguments.wait,
    )
    return show_scripts(asked, console) if arguments.dry_run else launch(asked, console)


def _cluster(asked: str, console: Console) -> Cluster:
    """Where to train. A controller that is known but silent is no reason to train on what may be a login node."""
    if asked == "local":
        return "local"
    found = slurm.controller()
    if found == "up":
        return "slurm"
    told = "a Slurm controller is configured here but doesn't answer" if found == "down" else "there is no Slurm here"
    if asked == "slurm" or found == "down":
        rule = f"{told} (scontrol ping); --cluster local trains on this machine"
        raise UserError(Problem(rule, key="--cluster", value=asked, choices=["local"]))
    console.print("No Slurm here (scontrol ping): training on this machine.")
    return "local"


def _here(plan: Plan, folder: SweepFolder, selection: Selection, *, arguments: argparse.Namespace, console: Console) -> int:
    if arguments.dry_run:
        left = to_do(plan, folder, life=life_of(folder), selection=selection)
        console.print(f"{plan.sweep.name}: {left.told()}", highlight=False)
        return 0
    with sweep_lock(folder):
        left = to_do(plan, folder, life=life_of(folder), selection=selection)
        console.print(f"{plan.sweep.name}: {left.told()}", highlight=False)
        if not left.runs:
            console.print("Nothing is left to start.")
            return 0
        machine = machine_for(plan.sweep.device, runs=len(left.runs), workers=arguments.workers)
        draft = new_launch(plan, folder, cluster="local", workers=machine.workers)
        launcher_sign(folder, draft.id).hold()
        entered = enter(draft, plan, folder, runs=left.runs)
    told = f"{pluralize(entered.tasks, 'worker')}, {pluralize(machine.threads, 'thread')} each"
    console.print(f"launch {entered.id}: {told}{', one GPU each' if machine.gpus else ''}", highlight=False)
    workers = LocalWorkers(folder, entered, machine, worker_environment(folder, entered, machine))
    with LaunchView(folder, {entered.id}, frozenset(p.run_id for p in left.runs), console) as view:
        problems = workers.run(view.update)
    for problem in problems:
        console.print(f"worker failed: {problem}", style="red")
    return 1 if problems else 0


def _report(folder: SweepFolder) -> int:
    """What `python -m study.report` does; its libraries are loaded only here."""
    from study.report import main as report

    return report([str(folder.path)])


def _say_next(plan: Plan, console: Console, *, runs: str, by_hand: bool) -> None:
    """What to type next; `by_hand` where no job was submitted that launches the final runs."""
    sweep = plan.sweep
    if plan.pending and by_hand:
        again = format_command("launch", sweep, sweep.overrides, runs=runs)
        waiting = f"{len(plan.pending)} final runs wait until all trials are recorded; typed again, this goes on with them:"
        console.print(f"{waiting} {again}", markup=False, highlight=False, soft_wrap=True)
    status, report = (format_command(command, sweep, sweep.overrides, runs=runs) for command in ("status", "report"))
    console.print(f"next: {status}\n      {report}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
