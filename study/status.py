"""python -m study.status SWEEP: where every run of a sweep stands; asks the scheduler at most once and changes nothing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from study.cli.arguments import add_sweep_arguments, command_parser, format_command, suggest_launch, sweep_folder
from study.cli.console import open_console, pluralize
from study.config.sweep import Sweep
from study.config.sweep_file import read_sweep
from study.errors import UserError, handle_user_errors
from study.launcher.liveness import life_of
from study.launcher.sweep_status import Gap, Running, Standing, last_lines, standing
from study.records.record import Attempts, Stage
from study.records.sweep_folder import SweepFolder
from study.records.table import load_plan, planned_of

STAGES: tuple[Stage, Stage] = ("trial", "final")
SHOWN = 12  # rows of one kind
LOG_LINES = 3
REFRESH_S = 30
SILENT_S = 300  # a worker says something every 15 s
INDENT = " " * 11


@handle_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = command_parser("status", __doc__)
    add_sweep_arguments(parser)
    parser.add_argument("--json", action="store_true", help="for scripts")
    parser.add_argument("--watch", action="store_true", help=f"again every {REFRESH_S} s until nothing is under way")
    arguments = parser.parse_intermixed_args(argv)
    sweep = read_sweep(arguments.sweep, arguments.overrides)
    folder, console = sweep_folder(arguments, sweep.name), open_console()
    with suggest_launch(sweep, runs=arguments.runs):
        plan, now = look(folder)
    if arguments.json:
        console.print_json(json.dumps(document(sweep.name, now) | {"stages": stages(plan, now)}))
    elif arguments.watch:
        watch(sweep, folder, console, runs=arguments.runs)
    else:
        show(screen(sweep, plan, now, runs=arguments.runs), console)
    return 0


def look(folder: SweepFolder) -> tuple[dict[str, Any], Standing]:
    """The newest plan and where its runs stand."""
    plan = load_plan(folder.path)
    return plan, standing(folder, [planned["run_id"] for planned in plan["runs"]], life_of(folder))


def watch(sweep: Sweep, folder: SweepFolder, console: Console, *, runs: str) -> None:
    """Looks again and again; one screen on a terminal, one after the other elsewhere."""
    lines = ["looking ..."]
    with Live(console=console, auto_refresh=False, transient=console.is_terminal) as live:
        while True:
            try:
                plan, now = look(folder)
                lines = screen(sweep, plan, now, runs=runs)
                under_way = now.under_way
            except UserError as error:  # a busy controller is no reason to stop watching
                lines, under_way = [*lines, *error.summary().splitlines()], True
            if not under_way:
                break
            if console.is_terminal:
                live.update(Text("\n".join([*lines, f"{time.strftime('%H:%M:%S')}, again every {REFRESH_S} s"])), refresh=True)
            else:
                show(lines, console)
            time.sleep(REFRESH_S)
    show(lines, console)


def show(lines: Sequence[str], console: Console) -> None:
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def document(name: str, now: Standing) -> dict[str, Any]:
    """What `--json` prints: every planned run under exactly one heading, and why jobs wait."""
    failed = [{"run_id": a.record.run_id, "reason": a.record.reason, "log": a.record.log} for a in now.failed]
    return {
        "sweep": name,
        "planned": now.total,
        "done": now.done,
        "diverged": now.diverged,
        "failed": failed,
        "running": [asdict(run) for run in now.running],
        "queued": now.queued,
        "pending_jobs": dict(now.pending),
        "settling": now.settling,
        "missing": [asdict(gap) for gap in now.gaps],
    }


def screen(sweep: Sweep, plan: dict[str, Any], now: Standing, *, runs: str) -> list[str]:
    """The counts of all groups in one line, then each group that has something to tell."""
    counts = {
        "running": now.running,
        "queued": now.queued,
        "settling": now.settling,
        "diverged": now.diverged,
        "failed": now.failed,
        "missing": now.missing,
    }
    told = [f"{len(runs)} {name}" for name, runs in counts.items() if runs]
    lines = [", ".join([f"{sweep.name}: {len(now.done)} of {now.total} runs done", *told]), *_stages(plan, now)]
    if plan["study"]["sweep_yaml"] != sweep.text:
        lines.append(f"{sweep.path} has changed since it was launched; this is the launched plan.")
    if list(sweep.overrides) != plan["study"]["overrides"]:
        given = " ".join(plan["study"]["overrides"]) or "no settings"
        lines.append(f"this is the plan of the newest launch, which was given {given}.")
    lines += cut([_running(run) for run in now.running], "running")
    if now.queued:
        reasons = ", ".join(f"{reason} {count}" for reason, count in now.pending.items())
        jobs = f"; {pluralize(sum(now.pending.values()), 'job')} in Slurm's queue: {reasons}" if reasons else ""
        lines.append(f"  queued   {pluralize(len(now.queued), 'run')}{jobs}")
    if now.settling:
        lines.append(f"  settling {pluralize(len(now.settling), 'run')}: their worker has ended, its last files may show late")
    lines += cut([f"  diverged {run_id}" for run_id in now.diverged], "diverged")
    lines += [line for attempts in now.failed[:SHOWN] for line in _failure(attempts)]
    lines += [f"  ... and {len(now.failed) - SHOWN} more failed"] if len(now.failed) > SHOWN else []
    return lines + [line for gap in now.gaps for line in _gap(gap)] + _next(sweep, plan, now, runs=runs)


def stages(plan: dict[str, Any], now: Standing) -> dict[str, dict[str, int]]:
    """By stage: runs planned, those with an outcome, and those that wait for a selection."""
    settled = {*now.done, *now.diverged}
    planned = {stage: [run["run_id"] for run in planned_of(plan, stage)] for stage in STAGES}
    waiting = {run["run_id"] for run in plan["pending"]}
    return {
        stage: {"planned": len(ids), "recorded": len(settled & {*ids}), "pending": len(waiting & {*ids})}
        for stage, ids in planned.items()
    }


def _stages(plan: dict[str, Any], now: Standing) -> list[str]:
    """A line for each stage of a tuned sweep."""
    if plan["study"]["tuning"] is None:
        return []
    trial, final = (stages(plan, now)[stage] for stage in STAGES)
    until = "; they wait for the selection" if final["pending"] else ""
    return [
        f"  trials   {trial['recorded']} of {trial['planned']} have an outcome",
        f"  final    {final['recorded']} of {final['planned']} runs have an outcome{until}",
    ]


def cut(lines: list[str], what: str) -> list[str]:
    more = len(lines) - SHOWN
    return lines[:SHOWN] + ([f"  ... and {more} more {what}"] if more > 0 else [])


def _running(run: Running) -> str:
    place = f"job {run.job} on {run.node}" if run.job else f"worker {run.worker[1]}"
    if run.epoch is None:
        return f"  running  {run.run_id}  starting, {place}"
    accuracy = "" if run.val_accuracy is None else f", val {run.val_accuracy:.1%}"
    silent = f", SILENT for {run.age_seconds / 60:.0f} min: {run.log}" if run.age_seconds > SILENT_S else ""
    return (
        f"  running  {run.run_id}  epoch {run.epoch}/{run.epochs}{accuracy}, {run.images_per_second:,.0f} images/s, "
        f"{left(run.eta_seconds)}, {place}{silent}"
    )


def left(seconds: float | None) -> str:
    """`2 h 05 min left`, `40 s left`."""
    whole = round(seconds or 0)
    if whole < 120:
        return f"{whole} s left"
    hours, minutes = divmod(round(whole / 60), 60)
    return f"{hours} h {minutes:02d} min left" if hours else f"{minutes} min left"


def _failure(attempts: Attempts) -> list[str]:
    record = attempts.record
    return [f"  failed   {record.run_id}: {record.reason}", *_log(record.log or "")]


def _gap(gap: Gap) -> list[str]:
    runs = gap.runs[0] if len(gap.runs) == 1 else f"{len(gap.runs)} runs, {gap.runs[0]} the first"
    first, *more = gap.reason.splitlines()
    return [f"  missing  {runs}: {first}", *(f"{INDENT}{line}" for line in more), *_log(gap.log)]


def _log(path: str) -> list[str]:
    shown = [f"{INDENT}log: {path}"] if path else []
    return shown + [f"{INDENT}| {line}" for line in last_lines(path, LOG_LINES)]


def _next(sweep: Sweep, plan: dict[str, Any], now: Standing, *, runs: str) -> list[str]:
    """What to type: the launch whose plan this is, with the settings that it was given."""
    retry = ["--retry", "failed"] if now.failed and not now.missing else []
    words = format_command("launch", sweep, plan["study"]["overrides"], runs=runs, more=retry)
    if not (now.missing or now.failed):
        if not plan["pending"] or now.under_way:
            return []
        if now.final_follows:
            return ["all trials are recorded; a job waits in Slurm's queue that selects and launches the final runs"]
        return [f"all trials are recorded; next, to select and go on: {words}"]
    return [f"nobody is working on {'these' if now.missing else 'the failed runs'}; next: {words}"]


if __name__ == "__main__":
    sys.exit(main())
