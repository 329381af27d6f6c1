"""python -m study.launch SWEEP [key=value ...]: train the missing runs of a sweep, on Slurm or on this machine.

Running the same command again finishes what is left, whatever happened in between. Where a Slurm controller answers, arrays
of workers are submitted with a profile (slurm/default.yaml, or --profile); elsewhere the runs are trained here.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from study.cli.arguments import add_json_option, format_command, parse_path, positive_int, sweep_folder, sweep_parser
from study.cli.console import open_console, pluralize, print_json
from study.config.sweep import Sweep
from study.config.sweep_file import read_sweep
from study.data import NotPrepared
from study.data.linear_baseline import fit_linear_baseline
from study.errors import Problem, UserError, handle_user_errors
from study.launcher.assignment import (
    LaunchRequest,
    describe_excluded_records,
    find_remaining,
    find_unsaved_outputs,
    record_plan,
)
from study.launcher.environment import require_safe_folder
from study.launcher.interim_analysis import make_following_plan
from study.launcher.liveness import check_liveness
from study.launcher.local_launch import launch_locally
from study.launcher.run_filter import RunFilter, match_runs, parse_where
from study.launcher.slurm import client as slurm
from study.launcher.slurm.profile import Profile, read_profile
from study.launcher.slurm_launch import SlurmRequest, await_stage, launch_on_slurm, print_scripts
from study.plan import check_statements, show_added_trials, show_plan
from study.planning.stages import describe_next_stage, describe_stage, list_awaited
from study.planning.sweep_plan import Plan
from study.planning.traced_cost import verify_costs
from study.planning.trials import make_plan_so_far
from study.prepare import prepare_data
from study.records.baseline_accuracy import write_baseline
from study.records.benchmark_file import newest_benchmark
from study.records.ledger import read_assignees
from study.records.record import read_records
from study.records.sweep_folder import SweepFolder
from study.status import format_launch_as_json
from study.tracking.libraries import require_trackers

DEFAULT_PROFILE = "slurm/default.yaml"


def parser() -> argparse.ArgumentParser:
    parser = sweep_parser("launch", __doc__)
    parser.add_argument(
        "--cluster",
        choices=("auto", "slurm", "local"),
        default="auto",
        help="auto: slurm where its controller answers (scontrol ping, 15 s); slurm: without asking it first",
    )
    parser.add_argument(
        "--profile", type=parse_path, metavar="FILE", help=f"Slurm resources of jobs (default: {DEFAULT_PROFILE})"
    )
    parser.add_argument(
        "--set",
        dest="profile_overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the profile, e.g. --set partition=gpu",
    )
    parser.add_argument("--workers", type=positive_int, help="number of workers that the runs are shared among")
    parser.add_argument(
        "--threads",
        type=positive_int,
        metavar="N",
        help="threads of each worker, which the first launch decides for the whole sweep; a change makes records not exact",
    )
    parser.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE", help="only runs with this value")
    parser.add_argument("--limit", type=positive_int, metavar="N", help="at most N runs, in plan order")
    parser.add_argument("--retry", action="append", choices=("failed",), default=[], help="train failed runs again")
    parser.add_argument("--dry-run", action="store_true", help="show the plan and the sbatch script; start nothing")
    parser.add_argument("--rebalance", action="store_true", help="cancel pending jobs and assign their runs to new workers")
    parser.add_argument("--settled", action="store_true", help="don't wait two minutes for files of jobs that have just ended")
    parser.add_argument(
        "--after-stage",
        action="store_true",
        help="on Slurm: wait for the runs of a stage, then launch what follows: more trials, the final runs, or further seeds",
    )
    parser.add_argument("--wait", action="store_true", help="stay and show progress (always so on this machine)")
    parser.add_argument("--report", action="store_true", help="write the report when the workers have ended, however they end")
    add_json_option(parser)
    return parser


@handle_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_intermixed_args(argv)
    sweep = read_sweep(arguments.sweep, arguments.overrides)
    folder = sweep_folder(arguments, sweep.name)
    earlier = folder.launch_ids()
    with sweep.plugins.in_use():
        status = launch_sweep(sweep, arguments, console=open_console(for_json=arguments.json))
    if arguments.json:
        print_json("launch", format_launch_as_json(sweep, folder, earlier=earlier, status=status))
    return status


def launch_sweep(sweep: Sweep, arguments: argparse.Namespace, *, console: Console) -> int:
    """Launch as the arguments say; the exit status. Raises UserError."""
    require_trackers(sweep.track, place=sweep.path)
    run_filter = RunFilter(parse_where(arguments.where), limit=arguments.limit, retry=frozenset(arguments.retry))
    profile = _choose_profile(arguments, console)
    folder = sweep_folder(arguments, sweep.name)
    require_safe_folder(folder.path)
    command = _Command(arguments, folder, run_filter, profile, console)
    plan = command.make_plan(sweep)
    check_statements(plan)
    if not arguments.dry_run:
        verify_costs(planned.run.model for planned in plan.runs)
        command.fit_baselines(plan)
        if arguments.after_stage:
            await_stage(plan, command.folder, console)
    if arguments.after_stage and (missing := command.find_lost(plan)):
        what, consequence = ("trials", "nothing is selected") if plan.pending else ("runs", "no look is taken")
        console.print(f"{len(missing)} {what} have no outcome, e.g. {missing[0]}: {consequence}, no further run is launched.")
        if arguments.report and not arguments.dry_run:
            command.write_report()
        command.print_next(plan, is_next_stage_manual=True)
        return 1
    plan = plan if arguments.dry_run else make_following_plan(plan, folder, console)
    status = command.train(plan)
    outlives_stage = (profile is None or arguments.wait) and not arguments.dry_run and arguments.limit is None
    while plan.awaited and status == 0 and outlives_stage:
        before, plan = plan, make_following_plan(plan, folder, console)
        if len(plan.runs) == len(before.runs):
            break
        status = command.train(plan, before=before)
    ended_at_look = arguments.after_stage and sweep.stages is not None and not plan.awaited  # nothing is submitted to wait for
    if arguments.report and (profile is None or ended_at_look) and not arguments.dry_run:
        status = max(status, command.write_report())
    if arguments.dry_run:
        if plan.awaited:
            console.print(describe_following(plan, automatic=not run_filter.is_partial, here=profile is None or arguments.wait))
        console.print("Dry run: nothing was started.")
    else:
        command.print_next(plan, is_next_stage_manual=profile is None or arguments.wait or run_filter.is_partial)
    return status


def _choose_profile(arguments: argparse.Namespace, console: Console) -> Profile | None:
    """The resources to request from Slurm, None to train on this machine."""
    if arguments.after_stage or _has_slurm(arguments.cluster, console):
        return read_profile(Path(arguments.profile or DEFAULT_PROFILE), arguments.profile_overrides)
    slurm_only = {
        "--rebalance": arguments.rebalance,
        "--settled": arguments.settled,
        "--profile": arguments.profile,
        "--set": arguments.profile_overrides,
    }
    if problems := [Problem("needs Slurm", "command line", option) for option, given in slurm_only.items() if given]:
        raise UserError(*problems)
    return None


def _has_slurm(cluster: str, console: Console) -> bool:
    if cluster == "local":
        return False
    if cluster == "slurm" and slurm.has_client():  # a slow controller is asked with more patience by what follows
        return True
    controller = slurm.ping_controller()
    if controller == "up":
        return True
    # A controller that is configured but doesn't answer is no reason to train here, on what may be a login node.
    if cluster == "slurm" or controller == "down":
        reason = "the Slurm controller configured here doesn't answer" if controller == "down" else "there is no Slurm here"
        rule = f"{reason} (scontrol ping); --cluster local trains on this machine"
        choices = ["local", "slurm"] if controller == "down" else ["local"]
        raise UserError(Problem(rule, key="--cluster", value=cluster, choices=choices))
    console.print("No Slurm here (scontrol ping): training on this machine.")
    return False


@dataclass(frozen=True)
class _Command:
    """The steps of a launch; `profile` is None on this machine."""

    arguments: argparse.Namespace
    folder: SweepFolder
    run_filter: RunFilter
    profile: Profile | None
    console: Console

    def make_plan(self, sweep: Sweep) -> Plan:
        """Make the plan and prepare its data, before the plan where it needs to know what the data set holds."""
        try:
            plan = make_plan_so_far(sweep, self.folder)
        except NotPrepared:
            if self.arguments.dry_run:
                raise
            prepare_data(sweep, self.console)
            plan = make_plan_so_far(sweep, self.folder)
        match_runs((planned.entry for planned in plan.whole), self.run_filter.where)
        if not self.arguments.dry_run:
            prepare_data(sweep, self.console)
        return plan

    def fit_baselines(self, plan: Plan) -> None:
        """Fit the linear classifier that the cells are compared with on each of the sweep's data sets."""
        data = {planned.run.data.model_dump_json(): planned.run.data for planned in plan.runs}
        for options in data.values():
            with self.console.status(f"fitting the linear baseline on {options.name}"):
                write_baseline(self.folder.baselines, options, fit=partial(fit_linear_baseline, options))

    def find_lost(self, plan: Plan) -> list[str]:
        """The awaited runs that were launched and have no outcome, which those of a stage that is yet to be launched aren't."""
        awaited = list_awaited(plan, read_records(self.folder.records))
        launched = {run_id for launch_id in self.folder.launch_ids() for run_id in read_assignees(self.folder, launch_id)}
        return [planned.run_id for planned in awaited if planned.run_id in launched]

    def train(self, plan: Plan, *, before: Plan | None = None) -> int:
        """Show the plan and train its remaining runs, here or on Slurm; the exit status.

        Of a plan that widens the ranges of the one `before`, or has further seeds, what it adds is shown.
        """
        match_runs((planned.entry for planned in plan.runs), self.run_filter.where)
        if before is not None and plan.pending:
            show_added_trials(plan, before, self.console)
        elif before is not None and not before.pending:
            self.console.print("\n".join(describe_stage(plan)))
        else:
            show_plan(plan, self.console, benchmark=newest_benchmark(self.folder.benchmarks))
        for line in describe_excluded_records(plan, self.folder):
            self.console.print(line)
        for option, run_ids in find_unsaved_outputs(plan, self.folder).items():
            runs = "1 recorded run was" if len(run_ids) == 1 else f"{len(run_ids):,} recorded runs were"
            self.console.print(
                f"{runs} trained without {option}, e.g. {run_ids[0]}: that output is missing. To retrain with this option, "
                "give the sweep another name (name=...)"
            )
        earlier = self.folder.launch_ids()
        given = self.arguments
        shared = (plan, self.folder, self.run_filter, self.console, given.workers, given.threads)
        if self.profile is not None:
            request = SlurmRequest(
                *shared, self.profile, rebalance=given.rebalance, settled=given.settled, report=given.report, wait=given.wait
            )
            status = (print_scripts if given.dry_run else launch_on_slurm)(request)
        elif given.dry_run:
            find_remaining(LaunchRequest(*shared), check_liveness(self.folder))
            status = 0
        else:
            status = launch_locally(LaunchRequest(*shared))
        if not self.arguments.dry_run:
            record_plan(plan, self.folder, earlier=earlier)
        return status

    @handle_user_errors  # a report that fails is no reason to end without the next commands
    def write_report(self) -> int:
        from study import report  # imports the plotting libraries

        report.write_report(report.parser().parse_args([str(self.folder.path)]), self.console)
        return 0

    def print_next(self, plan: Plan, *, is_next_stage_manual: bool) -> None:
        sweep, runs = plan.sweep, self.arguments.runs
        launch, status, report = (
            format_command(command, sweep, sweep.overrides, runs=runs) for command in ("launch", "status", "report")
        )
        lines = [f"next: {status}", f"      {report}"]
        if plan.awaited and is_next_stage_manual:
            lines = [f"{describe_following(plan, automatic=False, here=True)}: {launch}", *lines]
        self.console.print("\n".join(lines))


def describe_following(plan: Plan, *, automatic: bool, here: bool) -> str:
    """What comes after the stage of a plan: by this command (`here`) or a job of its own, or only when it is run again."""
    count, actor = pluralize(len(plan.pending), "final run"), "this command" if here else "a job of this launch"
    trains = "trains" if here else "submits"
    if not plan.pending:
        look = describe_next_stage(plan)
        return f"after these runs, {actor} takes {look}" if automatic else f"run the same command again to take {look}"
    if not automatic:
        return f"{count} wait until all trials are recorded; run the same command again to start them"
    return f"after the trials, {actor} {trains} more of them where a range is to be widened, then the {count}"


if __name__ == "__main__":
    sys.exit(main())
