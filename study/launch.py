"""python -m study.launch SWEEP [key=value ...]: trains what is missing of a sweep, on Slurm or on this machine.

Typing the same command again finishes what is left, whatever happened in between. Where a Slurm controller answers, arrays
of workers are submitted with a profile (slurm/default.yaml, or --profile); elsewhere the runs are trained here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from study.cluster import slurm
from study.cluster.launching import Selection, enter, to_do
from study.cluster.ledger import Cluster, Launch, launcher_sign, new_launch_id, sweep_lock
from study.cluster.life import alive_workers
from study.cluster.local import LocalWorkers, machine_for, worker_environment
from study.cluster.profile import Profile, read_profile
from study.cluster.watching import LaunchView
from study.commands import add_sweep_arguments, cost_cache, open_console, positive, read_asked, sweep_folder
from study.errors import Problem, UserError, exit_status
from study.plan import show_plan
from study.planning import Plan, make_plan, verify_plan
from study.prepare import prepare_data
from study.records.benchmark import newest_benchmark
from study.records.folder import SweepFolder


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="study.launch", description=__doc__.split("\n\n")[0])
    add_sweep_arguments(parser)
    parser.add_argument("--cluster", choices=("auto", "slurm", "local"), default="auto",
                        help="auto: slurm where its controller answers (scontrol ping, 3 s)")
    parser.add_argument("--profile", metavar="FILE", help="what to ask Slurm for (default: slurm/default.yaml)")
    parser.add_argument("--set", dest="profile_overrides", action="append", default=[], metavar="KEY=VALUE",
                        help="override a key of the profile, e.g. --set partition=gpu")
    parser.add_argument("--workers", type=positive, help="how many workers share the runs")
    parser.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE", help="only runs like this")
    parser.add_argument("--limit", type=positive, metavar="N", help="at most N runs, in plan order")
    parser.add_argument("--retry", action="append", choices=("failed",), default=[], help="try failed runs again")
    parser.add_argument("--dry-run", action="store_true", help="show plan and sbatch script, start nothing")
    return parser


@exit_status
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_intermixed_args(argv)
    console = open_console()
    sweep = read_asked(arguments)
    selection = Selection(where=_pairs(arguments.where), limit=arguments.limit, retry=frozenset(arguments.retry))
    cluster = _cluster(arguments.cluster, console)
    profile = read_profile(slurm.profile_path(arguments.profile), arguments.profile_overrides) \
        if cluster == "slurm" else None
    prepare_data(sweep, console)
    plan = make_plan(sweep)
    verify_plan(plan, cost_cache(arguments))
    folder = sweep_folder(arguments, sweep.name)
    show_plan(plan, console, benchmark=newest_benchmark(folder.benchmarks))
    if profile is not None:
        return _on_slurm(plan, folder, selection, profile=profile, arguments=arguments, console=console)
    return _here(plan, folder, selection, arguments=arguments, console=console)


def _cluster(asked: str, console: Console) -> Cluster:
    if asked == "local":
        return "local"
    answers = slurm.controller_answers()
    if asked == "slurm" and not answers:
        raise UserError(Problem("no Slurm controller answers (scontrol ping)", key="--cluster", value=asked,
                                choices=["local"]))
    if not answers:
        console.print("No Slurm controller answers here (scontrol ping): training on this machine.")
    return "slurm" if answers else "local"


def _here(
    plan: Plan, folder: SweepFolder, selection: Selection, *, arguments: argparse.Namespace, console: Console
) -> int:
    with sweep_lock(folder):
        left = to_do(plan, folder, alive=alive_workers(folder), selection=selection)
        console.print(f"{plan.sweep.name}: {left.told()}")
        if not left.runs or arguments.dry_run:
            return _nothing_started(plan, arguments, console)
        machine = machine_for(plan.sweep.device, runs=len(left.runs), workers=arguments.workers)
        launch_id = new_launch_id()
        launcher_sign(folder, launch_id).hold()
        launch = enter(plan, folder, left.runs, cluster="local", workers=machine.workers, launch_id=launch_id)
    told = f"{launch.tasks} workers, {machine.threads} threads each"
    console.print(f"launch {launch.id}: {told}{', one GPU each' if machine.gpus else ''}", highlight=False)
    workers = LocalWorkers(folder, launch, machine, worker_environment(folder, launch, machine))
    with LaunchView(folder, launch.id, frozenset(p.run_id for p in left.runs), console) as view:
        problems = workers.run(view.update)
    for problem in problems:
        console.print(f"[red]gave up:[/red] {problem}", highlight=False)
    _say_next(plan, console)
    return 1 if problems else 0


def _on_slurm(
    plan: Plan,
    folder: SweepFolder,
    selection: Selection,
    *,
    profile: Profile,
    arguments: argparse.Namespace,
    console: Console,
) -> int:
    array_size = slurm.limits().array_size
    with sweep_lock(folder):
        left = to_do(plan, folder, alive=alive_workers(folder), selection=selection)
        console.print(f"{plan.sweep.name}: {left.told()}")
        if not left.runs:
            return _nothing_started(plan, arguments, console)
        workers = min(arguments.workers or profile.workers, len(left.runs))
        launch = enter(plan, folder, left.runs, cluster="slurm", workers=workers, launch_id=new_launch_id(),
                       tasks_per_job=profile.workers_per_gpu, array_size=array_size)
        return _submitted(folder, launch, profile, plan=plan, console=console)


def _submitted(folder: SweepFolder, launch: Launch, profile: Profile, *, plan: Plan, console: Console) -> int:
    jobs = -(-launch.tasks // launch.tasks_per_job)
    for first in slurm.array_starts(launch):
        count = min(launch.array_size, jobs - first)
        job_id = slurm.submit(folder, launch, profile, first=first, jobs=count)
        console.print(f"submitted job {job_id}: {count} workers for launch {launch.id}", highlight=False)
    _say_next(plan, console)
    return 0


def _nothing_started(plan: Plan, arguments: argparse.Namespace, console: Console) -> int:
    if not arguments.dry_run:
        console.print("Nothing is left to start.")
    _say_next(plan, console)
    return 0


def _say_next(plan: Plan, console: Console) -> None:
    named = [word for word in plan.sweep.overrides if word.startswith("name=")]
    words = " ".join([plan.sweep.path, *named])
    console.print(f"next: python -m study.status {words}\n      python -m study.report {words}", highlight=False)


def _pairs(words: Sequence[str]) -> dict[str, str]:
    pairs = [word.partition("=") for word in words]
    wrong = [Problem("written COLUMN=VALUE", "command line", "--where", "".join(p)) for p in pairs if not p[1]]
    if wrong:
        raise UserError(*wrong)
    return {key: value for key, _, value in pairs}


if __name__ == "__main__":
    sys.exit(main())
