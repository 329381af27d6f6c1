"""A worker's journal: what it began and how that ended, one flushed line each, so a death leaves a trace.

From the journals follow what `status` tells about a worker that is gone, and the rule against crash loops: a run that took
its worker down three times without getting further is recorded as failed, and the share goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Any, Literal

from study.records.ledger import Worker
from study.records.sweep_folder import Lines, SweepFolder, Writer, read_lines

Event = Literal["start", "begin", "end", "stop", "exit", "refused"]
DEATHS_ALLOWED = 3
FINISHED = "share finished"


class Journal:
    """This worker's own journal file."""

    def __init__(self, folder: SweepFolder, writer: Writer):
        self._lines = Lines(folder.journals / f"{writer}.jsonl")

    def note(self, event: Event, *, run_id: str = "", step: int = 0, reason: str = "", log: str = "") -> None:
        document = {"event": event, "run_id": run_id, "step": step, "time": time.time(), "reason": reason, "log": log}
        self._lines.append(document)

    def close(self) -> None:
        self._lines.close()


def open_journal(folder: SweepFolder, worker: Worker, *, restart: int) -> tuple[Writer, Journal]:
    """A journal of this life of a worker alone. `restart` is where counting starts: a scheduler may forget to count."""
    while True:
        writer = Writer(*worker, restart)
        try:
            return writer, Journal(folder, writer)
        except FileExistsError:
            restart += 1


@dataclass(frozen=True)
class Entry:
    """One line of a journal, with its writer."""

    writer: Writer
    event: Event
    run_id: str
    step: int
    time: float
    reason: str
    log: str  # where the worker's messages are

    @property
    def worker(self) -> Worker:
        return self.writer.worker


def read_journals(folder: SweepFolder, *, of: Set[Worker] | None = None) -> list[Entry]:
    """All entries of all workers, or of some, by time."""
    entries: list[Entry] = []
    for path in sorted(folder.journals.glob("*.jsonl")):
        writer = Writer.parse(path.stem)
        if of is None or writer.worker in of:
            entries += _entries(writer, [line.document for line in read_lines(path)])
    return sorted(entries, key=lambda entry: (entry.time, str(entry.writer)))


def _entries(writer: Writer, documents: list[dict[str, Any]]) -> list[Entry]:
    """The lines of one life; the first of them tells where its log is."""
    return [Entry(writer=writer, **{**document, "log": documents[0]["log"]}) for document in documents]


@dataclass(frozen=True)
class Word:
    """What a worker noted last in the newest of its lives, and the runs that it has begun there and not ended."""

    entry: Entry
    open: tuple[str, ...]


def last_words(entries: Iterable[Entry]) -> dict[Worker, Word]:
    """Each worker's last word, of entries in the order of time."""
    newest: dict[Worker, Word] = {}
    for entry in entries:
        known = newest.get(entry.worker)
        if known is None or entry.writer.restart > known.entry.writer.restart:
            newest[entry.worker] = Word(entry, (entry.run_id,) if entry.event == "begin" else ())
        elif entry.writer.restart == known.entry.writer.restart:
            others = tuple(run_id for run_id in known.open if run_id != entry.run_id)
            newest[entry.worker] = Word(entry, (*others, entry.run_id) if entry.event == "begin" else others)
    return newest


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
