"""A worker's journal: what it began and how that ended, one flushed line each, so a death leaves a trace.

From the journals follow the seconds lost, the state that `status` shows, and the rule against crash loops: a run that
took its worker down three times without getting further is recorded as failed, and the share goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from study.records.folder import Lines, SweepFolder, Writer, read_lines

Event = Literal["start", "begin", "end", "stop", "exit", "refused"]
DEATHS_ALLOWED = 3


class Journal:
    """This worker's own journal file."""

    def __init__(self, folder: SweepFolder, writer: Writer):
        self._lines = Lines(folder.journals / f"{writer}.jsonl")

    def note(self, event: Event, *, run_id: str = "", step: int = 0, reason: str = "") -> None:
        self._lines.append({"event": event, "run_id": run_id, "step": step, "time": time.time(), "reason": reason})

    def close(self) -> None:
        self._lines.close()


@dataclass(frozen=True)
class Entry:
    """One line of a journal, with its writer."""

    writer: Writer
    event: Event
    run_id: str
    step: int
    time: float
    reason: str


def read_journals(folder: SweepFolder) -> list[Entry]:
    """All entries of all workers, by time."""
    entries: list[Entry] = []
    for path in sorted(folder.journals.glob("*.jsonl")):
        writer = Writer.parse(path.stem)
        entries += [_entry(writer, line.document) for line in read_lines(path)]
    return sorted(entries, key=lambda entry: (entry.time, str(entry.writer)))


def _entry(writer: Writer, document: dict[str, Any]) -> Entry:
    return Entry(writer=writer, **document)


def deaths_without_progress(entries: Iterable[Entry], run_id: str) -> int:
    """How often in a row a worker began this run and died, each time from the same step.

    A run that was stopped in order (preemption, time limit) or ended is no death; one that got to a later checkpoint
    starts the count anew.
    """
    open_begins: dict[Writer, Entry] = {}
    for entry in entries:
        if entry.run_id != run_id:
            continue
        if entry.event == "begin":
            open_begins[entry.writer] = entry
        elif entry.event in ("end", "stop"):
            open_begins.pop(entry.writer, None)
    deaths = sorted(open_begins.values(), key=lambda entry: entry.time)
    furthest = max((entry.step for entry in deaths), default=0)
    return sum(entry.step == furthest for entry in deaths)
