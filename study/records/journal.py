"""A worker's journal: when its runs began and how they ended, one flushed line per event.

`study.status` reads from it why a worker is gone, and the worker's next process which runs keep crashing it: a run that
crashed its worker three times with no progress is recorded as failed, so that the rest of the share is trained.
"""

import time
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from study.config.documents import STORED, Positive, parse_document, read_json_lines
from study.records.ledger import WorkerId
from study.records.sweep_folder import JsonLinesWriter, SweepFolder, Writer, find_writers

Event = Literal["start", "begin", "end", "stop", "exit", "refused", "halt"]
"""`begin` and `end` or `stop` are of a run, the others of the process; a refusing worker has touched no run, and one that
halted could not write or read a file."""

MAX_CRASHES = 3
FINISHED = "share finished"
REPAIR_JOURNAL = "restore the file, or move it away when its worker has ended"


class Journal:
    """The journal of this process. Raises FileExistsError if another process has written it."""

    def __init__(self, folder: SweepFolder, writer: Writer):
        self._lines = JsonLinesWriter(folder.journals / f"{writer}.jsonl")

    def write(self, event: Event, *, run_id: str = "", step: int = 0, reason: str = "", log: str = "") -> None:
        entry = {"event": event, "run_id": run_id, "step": step, "time": time.time(), "reason": reason, "log": log}
        self._lines.append(entry)

    def close(self) -> None:
        self._lines.close()


def open_journal(folder: SweepFolder, worker: WorkerId, *, restart: int) -> tuple[Writer, Journal]:
    """A new journal for this process of a worker, numbered `restart` or above: a scheduler may lose its restart count."""
    while True:
        writer = Writer(*worker, restart)
        try:
            return writer, Journal(folder, writer)
        except FileExistsError:
            restart += 1


@dataclass(frozen=True)
class _Entry:
    """A line as it is written."""

    __pydantic_config__ = STORED
    event: Event
    run_id: str
    step: Annotated[int, Field(ge=0)]
    time: Positive
    reason: str
    log: str = ""


@dataclass(frozen=True)
class JournalLine:
    """One line of a journal. `log` is where the process writes its messages."""

    writer: Writer
    event: Event
    run_id: str
    step: int
    time: float
    reason: str
    log: str

    @property
    def worker(self) -> WorkerId:
        return self.writer.worker


def read_journals(folder: SweepFolder, *, workers: Set[WorkerId] | None = None) -> list[JournalLine]:
    """The entries of all or some workers, sorted by time."""
    entries: list[JournalLine] = []
    for writer, path in find_writers(folder.journals, ".jsonl"):
        if workers is None or writer.worker in workers:
            lines = read_json_lines(path, hint=REPAIR_JOURNAL)
            written = [parse_document(line.content, _Entry, place=line.place, hint=REPAIR_JOURNAL) for line in lines]
            log = written[0].log if written else ""  # only a process's first entry names its log
            entries += [JournalLine(writer=writer, **{**vars(entry), "log": log}) for entry in written]
    return sorted(entries, key=lambda entry: (entry.time, str(entry.writer)))


@dataclass(frozen=True)
class LastState:
    """A worker's last journal entry, and the runs that its newest process has begun and not ended."""

    entry: JournalLine
    open_runs: tuple[str, ...]


def find_last_states(entries: Iterable[JournalLine]) -> dict[WorkerId, LastState]:
    """The last state of each worker, from entries sorted by time."""
    states: dict[WorkerId, LastState] = {}
    for entry in entries:
        known = states.get(entry.worker)
        if known is not None and entry.writer.restart < known.entry.writer.restart:
            continue
        before = known.open_runs if known is not None and known.entry.writer == entry.writer else ()
        others = tuple(run_id for run_id in before if run_id != entry.run_id)
        states[entry.worker] = LastState(entry, (*others, entry.run_id) if entry.event == "begin" else others)
    return states


def count_crashes(entries: Iterable[JournalLine], run_id: str) -> int:
    """How many times in a row a worker began this run and crashed, each time from the same step.

    A run that was stopped in order (preemption, time limit) or that ended did not crash; one that reached a later checkpoint
    restarts the count.
    """
    open_begins: dict[Writer, JournalLine] = {}
    for entry in entries:
        if entry.run_id == run_id and entry.event == "begin":
            open_begins[entry.writer] = entry
        elif entry.run_id == run_id:
            open_begins.pop(entry.writer, None)
    last_step = max((entry.step for entry in open_begins.values()), default=0)
    return sum(entry.step == last_step for entry in open_begins.values())
