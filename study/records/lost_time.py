"""Device-seconds that brought nothing: of attempts that failed, and what workers that died had not saved. From the journals.

A worker notes when it begins a run and how that ended; one that dies notes nothing, but its progress file tells how far it
had come and when. What the next attempt didn't have to do again was not lost. The start of a process, and what a worker
had done between its last progress and its death (a second here, a quarter of a minute on Slurm), are not counted.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from study.records.record import Attempts
from study.records.sweep_folder import SweepFolder, read_lines


@dataclass
class Attempt:
    """One worker's try at a run: from which saved step, when it began, and how and when it ended, if that was noted."""

    run_id: str
    writer: str
    step: int
    began: float
    ended: float | None = None
    reason: str = ""


def lost_seconds(folder: SweepFolder, recorded: Mapping[str, Attempts]) -> dict[str, float]:
    """Per run that was ever begun, the seconds lost with it; nothing of a run that no journal knows."""
    tries = attempts_of(folder)
    return {run_id: lost_of(tries[run_id], folder, failed=has_failed(recorded.get(run_id))) for run_id in tries}


def has_failed(attempts: Attempts | None) -> bool:
    """Whether what counts of a run is a failure."""
    return attempts is not None and attempts.record.status == "failed"


def attempts_of(folder: SweepFolder) -> dict[str, list[Attempt]]:
    """Every attempt at every run, in the order in which they began."""
    found: dict[str, list[Attempt]] = defaultdict(list)
    for path in sorted(folder.journals.glob("*.jsonl")):
        under_way: dict[str, Attempt] = {}  # journals of version 0.1 may have several
        for entry in (line.document for line in read_lines(path)):
            if entry["event"] == "begin":
                under_way[entry["run_id"]] = Attempt(entry["run_id"], path.stem, entry["step"], entry["time"])
                found[entry["run_id"]].append(under_way[entry["run_id"]])
            elif entry["run_id"] in under_way and entry["event"] in ("end", "stop"):
                attempt = under_way.pop(entry["run_id"])
                attempt.ended, attempt.reason = entry["time"], entry["reason"]
    return {run_id: sorted(tries, key=lambda one: one.began) for run_id, tries in found.items()}


def lost_of(tries: list[Attempt], folder: SweepFolder, *, failed: bool) -> float:
    """What the attempts at one run lost. The last one is lost only where the run has failed: it may still be under way."""
    run_lost = 0.0
    for attempt, following in zip(tries, [*tries[1:], None], strict=True):
        if attempt.ended is not None:
            run_lost += attempt.ended - attempt.began if attempt.reason == "failed" else 0.0
        elif following is not None or failed:
            run_lost += died(attempt, folder, saved=following.step if following else attempt.step)
    return run_lost


def died(attempt: Attempt, folder: SweepFolder, *, saved: int) -> float:
    """What an attempt lost whose worker died: the time up to its last progress, for the steps that were not saved."""
    last = last_progress(folder, attempt.writer)
    if last.get("run_id") != attempt.run_id or last["step"] <= attempt.step:  # it died before its first step was told
        return 0.0
    undone = (last["step"] - saved) / (last["step"] - attempt.step)
    return float(last["time"] - attempt.began) * float(min(1.0, max(0.0, undone)))


def last_progress(folder: SweepFolder, writer: str) -> dict[str, Any]:
    """What a worker told last; nothing where it told nothing."""
    try:
        told: dict[str, Any] = json.loads((folder.progress / f"{writer}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return told
