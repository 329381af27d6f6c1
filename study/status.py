"""python -m study.status SWEEP: show the status of every run of a sweep. Calls the scheduler at most once; changes nothing."""

import sys
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from study.atomic_io import read_regular
from study.cli.arguments import add_json_option, format_command, suggest_launch, sweep_folder, sweep_parser
from study.cli.console import open_console, pluralize, print_json
from study.config.documents import pause_collection
from study.config.sweep import Sweep
from study.config.sweep_file import read_sweep
from study.errors import UserError, escape_controls, handle_user_errors
from study.launcher.liveness import check_liveness
from study.launcher.sweep_status import RunningRun, SweepStatus, compute_sweep_status
from study.records.ledger import read_launches, read_submitted_jobs
from study.records.looks import TakenLook
from study.records.plan_file import PlanFile, load_plan
from study.records.record import Stage
from study.records.sweep_folder import SweepFolder

STAGES: tuple[Stage, Stage] = ("trial", "final")
MAX_ROWS = 12  # of one kind
LOG_LINES, MAX_LOG_BYTES = 3, 64 << 20
REFRESH_S = 30
HEARTBEAT_TIMEOUT_S = 300  # a worker writes its progress every 15 s
INDENT = " " * 11


@handle_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = sweep_parser("status", __doc__)
    add_json_option(parser)
    parser.add_argument("--watch", action="store_true", help=f"refresh every {REFRESH_S} s until no run is active")
    arguments = parser.parse_intermixed_args(argv)
    sweep = read_sweep(arguments.sweep, arguments.overrides, with_plugins=False)
    folder, console = sweep_folder(arguments, sweep.name), open_console(for_json=arguments.json)
    with suggest_launch(sweep, runs=arguments.runs):
        plan, status = read_status(folder)
    if arguments.json:
        print_json("status", format_as_json(sweep.name, plan, status))
    elif arguments.watch:
        _watch(sweep, folder, console, runs=arguments.runs)
    else:
        console.print("\n".join(format_lines(sweep, plan, status, runs=arguments.runs)))
    return 0


@pause_collection()
def read_status(folder: SweepFolder) -> tuple[PlanFile, SweepStatus]:
    plan = load_plan(folder)
    return plan, compute_sweep_status(folder, plan.run_ids, check_liveness(folder))


def _watch(sweep: Sweep, folder: SweepFolder, console: Console, *, runs: str) -> None:
    """Refresh one screen on a terminal; print one screen after the other elsewhere."""
    lines = ["reading ..."]
    with Live(console=console, auto_refresh=False, transient=console.is_terminal) as live:
        while True:
            try:
                plan, status = read_status(folder)
                lines, is_active = format_lines(sweep, plan, status, runs=runs), status.is_active
            except UserError as error:  # a busy controller is no reason to stop
                lines, is_active = [*lines, *error.summary().splitlines()], True
            if not is_active:
                break
            if console.is_terminal:
                clock = f"{time.strftime('%H:%M:%S')}, refreshed every {REFRESH_S} s"
                screen = escape_controls("\n".join([*lines, clock]))
                live.update(Text(screen, no_wrap=False, overflow="fold"), refresh=True)  # not cut
            else:
                console.print("\n".join(lines))
            time.sleep(REFRESH_S)
    console.print("\n".join(lines))


def format_as_json(name: str, plan: PlanFile, status: SweepStatus) -> dict[str, Any]:
    """The output of `--json`: every planned run under exactly one heading, and why jobs are pending."""
    failed = [attempts.record for attempts in status.failed]
    return {
        "sweep": name,
        "planned": status.total,
        "done": status.done,
        "diverged": status.diverged,
        "failed": [{"run_id": record.run_id, "reason": record.reason, "log": record.log} for record in failed],
        "running": [_running_as_json(run) for run in status.running],
        "queued": status.queued,
        "pending_jobs": dict(status.pending_jobs),
        "settling": status.settling,
        "missing": [asdict(group) for group in status.missing],
        "stages": count_by_stage(plan, status),
        "looks": {
            "planned_seeds": plan.facts.looks.get(plan.facts.name, []),
            "taken": len(status.looks),
            "undecided": status.looks[-1].undecided if status.looks else [],
        },
    }


def format_launch_as_json(sweep: Sweep, folder: SweepFolder, *, earlier: Collection[str], status: int) -> dict[str, Any]:
    """The output of `study.launch --json`: exit status, the launches that the command made, the sweep's status after it."""
    made = [launch for launch in read_launches(folder) if launch.id not in earlier]
    return {
        "sweep": sweep.name,
        "exit_status": status,
        "launches": [
            {
                "id": launch.id,
                "cluster": launch.cluster,
                "workers": launch.tasks,
                "jobs": read_submitted_jobs(folder, launch.id),
            }
            for launch in made
        ],
        "status": format_as_json(sweep.name, *read_status(folder)) if folder.launch_ids() else None,
    }


def _running_as_json(run: RunningRun) -> dict[str, Any]:
    figures = ("epoch", "epochs", "val_accuracy", "images_per_second", "eta_seconds")
    place = {name: value for name, value in vars(run).items() if name != "progress"}
    return {**place, **{name: getattr(run.progress, name, None) for name in figures}}


def count_by_stage(plan: PlanFile, status: SweepStatus) -> dict[str, dict[str, int]]:
    """By stage, how many runs are planned, have an outcome, and wait for the selection of their hyperparameters."""
    recorded, pending = {*status.done, *status.diverged}, {entry.run_id for entry in plan.pending}
    planned = {stage: {entry.run_id for entry in plan.of_stage(stage)} for stage in STAGES}
    return {
        stage: {"planned": len(ids), "recorded": len(recorded & ids), "pending": len(pending & ids)}
        for stage, ids in planned.items()
    }


def format_lines(sweep: Sweep, plan: PlanFile, status: SweepStatus, *, runs: str) -> list[str]:
    """The counts of all groups in one line, then each group that needs more."""
    counts = {
        "running": len(status.running),
        "queued": len(status.queued),
        "settling": len(status.settling),
        "diverged": len(status.diverged),
        "failed": len(status.failed),
        "missing": len(status.missing_run_ids),
    }
    groups = [f"{count} {name}" for name, count in counts.items() if count]
    lines = [", ".join([f"{sweep.name}: {len(status.done)} of {status.total} runs done", *groups])]
    if plan.facts.tuned:
        trial, final = (count_by_stage(plan, status)[stage] for stage in STAGES)
        waiting = "; they wait for the selection" if final["pending"] else ""
        widened = f"; ranges widened {pluralize(plan.facts.times_widened, 'time')}" if plan.facts.times_widened else ""
        lines.append(f"  trials   {trial['recorded']} of {trial['planned']} have an outcome{widened}")
        lines.append(f"  final    {final['recorded']} of {final['planned']} runs have an outcome{waiting}")
    if sizes := plan.facts.looks.get(plan.facts.name):
        lines.append(_format_looks(status.looks, sizes))
    if plan.facts.sweep_yaml != sweep.text:
        lines.append(f"{sweep.path} has changed since it was launched; this is the launched plan.")
    if sweep.overrides != plan.facts.overrides:
        given = " ".join(plan.facts.overrides) or "no overrides"
        lines.append(f"this is the plan of the newest launch, which had {given}.")
    lines += _limit([_format_running(run) for run in status.running], "running")
    if status.queued:
        reasons = ", ".join(f"{reason} {count}" for reason, count in status.pending_jobs.items())
        jobs = f"; {pluralize(sum(status.pending_jobs.values()), 'job')} in Slurm's queue: {reasons}" if reasons else ""
        lines.append(f"  queued   {pluralize(len(status.queued), 'run')}{jobs}")
    if status.settling:
        settling = pluralize(len(status.settling), "run")
        lines.append(f"  settling {settling}: the worker has ended, and its last files may not be visible yet")
    lines += _limit([f"  diverged {run_id}" for run_id in status.diverged], "diverged")
    for attempts in status.failed[:MAX_ROWS]:
        record = attempts.record
        lines += [f"  failed   {record.run_id}: {record.reason}", *_format_log(record.log or "")]
    lines += [f"  ... and {len(status.failed) - MAX_ROWS} more failed"] if len(status.failed) > MAX_ROWS else []
    for group in status.missing:
        what = group.runs[0] if len(group.runs) == 1 else f"{len(group.runs)} runs, e.g. {group.runs[0]}"
        reason = group.reason.replace("\n", f"\n{INDENT}")
        lines += [f"  missing  {what}: {reason}", *_format_log(group.log)]
    return lines + format_next(sweep, plan, status, runs=runs)


def _format_looks(looks: Sequence[TakenLook], sizes: Sequence[int]) -> str:
    """How many looks were taken, and what the last one decided."""
    if not looks:
        return f"  looks    0 of {len(sizes)} taken; the first one needs an outcome of all runs with {sizes[0]} seeds"
    total, undecided = len(looks[-1].contrasts), len(looks[-1].undecided)
    decided = f"with {sizes[len(looks) - 1]} seeds {total - undecided} of {total} primary contrasts are decided"
    following = f"the next one with {sizes[len(looks)]}" if _has_further_look(looks, sizes) else "no further seeds follow"
    return f"  looks    {len(looks)} of {len(sizes)} taken: {decided}; {following}"


def _has_further_look(looks: Sequence[TakenLook], sizes: Sequence[int]) -> bool:
    return len(looks) < len(sizes) and not (looks and not looks[-1].undecided)


def _limit(lines: list[str], what: str) -> list[str]:
    more = len(lines) - MAX_ROWS
    return lines[:MAX_ROWS] + ([f"  ... and {more} more {what}"] if more > 0 else [])


def _format_running(run: RunningRun) -> str:
    place = f"job {run.job} on {run.node}" if run.job else f"worker {run.worker[1]}"
    if (now := run.progress) is None:
        return f"  running  {run.run_id}  starting, {place}"
    accuracy = "" if now.val_accuracy is None else f", val {now.val_accuracy:.1%}"
    timeout = run.age_seconds > HEARTBEAT_TIMEOUT_S
    heartbeat = f", NO HEARTBEAT for {run.age_seconds / 60:.0f} min: {run.log}" if timeout else ""
    return (
        f"  running  {run.run_id}  epoch {now.epoch}/{now.epochs}{accuracy}, {now.images_per_second:,.0f} images/s, "
        f"{format_time_left(now.eta_seconds)}, {place}{heartbeat}"
    )


def format_time_left(seconds: float) -> str:
    """`2 h 05 min left`, `40 s left`."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s left"
    hours, minutes = divmod(round(whole / 60), 60)
    return f"{hours} h {minutes:02d} min left" if hours else f"{minutes} min left"


def _format_log(path: str) -> list[str]:
    if not path:
        return []
    with suppress(OSError):
        last = read_regular(Path(path), MAX_LOG_BYTES).decode("utf-8", errors="replace").splitlines()[-LOG_LINES:]
        return [f"{INDENT}log: {path}", *(f"{INDENT}| {line}" for line in last)]
    return [f"{INDENT}log: {path}"]


def format_next(sweep: Sweep, plan: PlanFile, status: SweepStatus, *, runs: str) -> list[str]:
    """The command to run next: the launch whose plan this is, with its overrides."""
    retry = ["--retry", "failed"] if status.failed and not status.missing else []
    command = format_command("launch", sweep, plan.facts.overrides, runs=runs, more=retry)
    if status.missing or status.failed:
        what = "missing runs are not queued or running" if status.missing else "failed runs are not queued"
        return [f"{what}; next: {command}"]
    sizes = plan.facts.looks.get(plan.facts.name, [])
    if status.is_active or not (plan.pending or _has_further_look(status.looks, sizes)):
        return []
    if not plan.pending:
        look = f"look {len(status.looks) + 1} of {len(sizes)}"
        if status.has_next_stage_job:
            return [f"all runs have an outcome; a job in Slurm's queue will go on with {look}"]
        return [f"all runs have an outcome; to go on with {look}, next: {command}"]
    if status.has_next_stage_job:
        return ["all trials are recorded; a job in Slurm's queue will launch what follows: wider ranges or the final runs"]
    return [f"all trials are recorded; to launch what follows, wider ranges or the final runs, next: {command}"]


if __name__ == "__main__":
    sys.exit(main())
