"""python -m study.status SWEEP: where every run of a sweep stands; asks the scheduler at most once and changes nothing."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from study.cluster.life import alive_workers
from study.cluster.watching import Standing, standing
from study.commands import add_sweep_arguments, open_console, read_asked, sweep_folder
from study.config.sweep import Sweep
from study.errors import exit_status
from study.records.record import Attempts
from study.records.table import load_plan

SHOWN = 12
LOG_LINES = 3
REFRESH_S = 10


@exit_status
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="study.status", description=__doc__)
    add_sweep_arguments(parser)
    parser.add_argument("--json", action="store_true", help="for scripts")
    parser.add_argument("--watch", action="store_true", help=f"again every {REFRESH_S} s until nothing is under way")
    arguments = parser.parse_intermixed_args(argv)
    sweep = read_asked(arguments)
    folder, console = sweep_folder(arguments, sweep.name), open_console()
    while True:
        plan = load_plan(folder.path)
        now = standing(folder, [planned["run_id"] for planned in plan["runs"]], alive_workers(folder))
        if arguments.json:
            console.print_json(json.dumps(_document(sweep.name, now)))
        else:
            _show(sweep, plan, now, console)
        if not arguments.watch or not (now.running or now.queued):
            return 0
        time.sleep(REFRESH_S)


def _document(name: str, now: Standing) -> dict[str, Any]:
    failed = [{"run_id": a.record.run_id, "reason": a.record.reason, "log": a.record.log} for a in now.failed]
    return {"sweep": name, "planned": now.total, "done": now.done, "diverged": now.diverged, "failed": failed,
            "running": [asdict(run) for run in now.running], "queued": now.queued, "missing": now.missing}


def _show(sweep: Sweep, plan: dict[str, Any], now: Standing, console: Console) -> None:
    console.print(f"[bold]{sweep.name}[/bold]: {len(now.done)} of {now.total} runs done, {len(now.running)} running, "
                  f"{len(now.queued)} queued, {len(now.diverged)} diverged, {len(now.failed)} failed, "
                  f"{len(now.missing)} missing", highlight=False)
    if plan["study"]["sweep_yaml"] != sweep.text:
        console.print(f"{sweep.path} has changed since it was launched; this is the launched plan.")
    for run in now.running:
        accuracy = "" if run.val_accuracy is None else f", val {run.val_accuracy:.1%}"
        console.print(f"  running  {run.run_id}  epoch {run.epoch}/{run.epochs}{accuracy}, "
                      f"{run.images_per_second:,.0f} images/s, {run.eta_seconds / 60:.0f} min left", highlight=False)
    for run_id in now.diverged[:SHOWN]:
        console.print(f"  diverged {run_id}", highlight=False)
    for attempts in now.failed[:SHOWN]:
        _show_failure(attempts, console)
    _show_missing(now.missing, sweep, console)


def _show_failure(attempts: Attempts, console: Console) -> None:
    record = attempts.record
    console.print(f"  failed   {record.run_id}: {record.reason}", highlight=False)
    if record.log:
        console.print(f"           log: {record.log}", highlight=False, soft_wrap=True)
        for line in last_lines(Path(record.log)):
            console.print(f"           | {line}", highlight=False, markup=False)


def last_lines(log: Path) -> list[str]:
    """The end of a log, or nothing where it is gone."""
    try:
        return log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        return []


def _show_missing(missing: tuple[str, ...], sweep: Sweep, console: Console) -> None:
    for run_id in missing[:SHOWN]:
        console.print(f"  missing  {run_id}", highlight=False)
    if len(missing) > SHOWN:
        console.print(f"  ... and {len(missing) - SHOWN} more missing")
    if missing:
        again = " ".join(["python -m study.launch", sweep.path, *sweep.overrides])
        console.print(f"nobody is working on the missing runs; next: {again}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
