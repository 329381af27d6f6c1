"""Where a sweep stands, as files say: done, running with epoch and speed, failed with the log's place, missing.

Reading changes nothing. On a terminal a launch shows bars; into a log it writes one plain line per finished run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from study.cluster.ledger import Worker, owners
from study.records.folder import SweepFolder, Writer, read_lines
from study.records.record import Attempts, Record, read_records


@dataclass(frozen=True)
class Running:
    """A worker's latest word on the run that it trains."""

    writer: Writer
    run_id: str
    epoch: int
    epochs: int
    val_accuracy: float | None
    images_per_second: float
    eta_seconds: float
    age_seconds: float


@dataclass(frozen=True)
class Standing:
    """Every planned run in exactly one group."""

    done: tuple[str, ...]
    diverged: tuple[str, ...]
    failed: tuple[Attempts, ...]
    running: tuple[Running, ...]
    queued: tuple[str, ...]  # owned by a live worker, not begun
    missing: tuple[str, ...]

    @property
    def total(self) -> int:
        return sum(map(len, (self.done, self.diverged, self.failed, self.running, self.queued, self.missing)))


def standing(folder: SweepFolder, planned: list[str], alive: Set[Worker]) -> Standing:
    """The state of the planned runs, from records, progress files and the workers that are alive."""
    recorded = {run_id: attempts for run_id, attempts in read_records(folder.records).items() if run_id in set(planned)}
    by_status: dict[str, list[str]] = {"done": [], "diverged": [], "failed": []}
    for run_id in planned:
        if run_id in recorded:
            by_status[recorded[run_id].record.status].append(run_id)
    owned = owners(folder, alive)
    running = {now.run_id: now for now in running_now(folder, alive) if now.run_id in owned}
    open_ = [run_id for run_id in planned if run_id not in recorded]
    return Standing(
        done=tuple(by_status["done"]),
        diverged=tuple(by_status["diverged"]),
        failed=tuple(recorded[run_id] for run_id in by_status["failed"]),
        running=tuple(running[run_id] for run_id in open_ if run_id in running),
        queued=tuple(run_id for run_id in open_ if run_id in owned and run_id not in running),
        missing=tuple(run_id for run_id in open_ if run_id not in owned),
    )


def running_now(folder: SweepFolder, alive: Set[Worker]) -> list[Running]:
    """What live workers last said; of a worker's several lives the newest."""
    newest: dict[Worker, tuple[int, dict[str, Any], Writer]] = {}
    for path in folder.progress.glob("*.json"):
        writer = Writer.parse(path.stem)
        worker = (writer.launch, writer.task)
        if worker in alive and (worker not in newest or newest[worker][0] < writer.restart):
            newest[worker] = (writer.restart, json.loads(path.read_text(encoding="utf-8")), writer)
    return [_running(said, writer) for _, said, writer in newest.values()]


def _running(said: dict[str, Any], writer: Writer) -> Running:
    names = ("run_id", "epoch", "epochs", "val_accuracy", "images_per_second", "eta_seconds")
    return Running(writer=writer, age_seconds=time.time() - said["time"], **{name: said[name] for name in names})


@dataclass
class LaunchView:
    """Shows a launch's progress while it runs: bars on a terminal, lines elsewhere."""

    folder: SweepFolder
    launch_id: str
    run_ids: frozenset[str]
    console: Console
    _shown: set[str] = field(default_factory=set)
    _bars: Progress | None = None
    _total: TaskID | None = None
    _rows: dict[Worker, TaskID] = field(default_factory=dict)
    _sizes: dict[Path, int] = field(default_factory=dict)

    def __enter__(self) -> LaunchView:
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                       TextColumn("{task.fields[told]}"))
            self._bars = Progress(*columns, console=self.console, transient=True)
            self._total = self._bars.add_task("runs", total=len(self.run_ids), told="")
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def update(self) -> None:
        """Tells what was recorded since the last call, and moves the bars."""
        for path in sorted(self.folder.records.glob(f"{self.launch_id}-*.jsonl")):
            size = path.stat().st_size
            if self._sizes.get(path) == size:
                continue
            self._sizes[path] = size
            for line in read_lines(path):
                self._tell(Record(**line.document))
        if self._bars is not None and self._total is not None:
            self._bars.update(self._total, completed=len(self._shown))
            self._show_workers(self._bars)

    def _tell(self, record: Record) -> None:
        if record.run_id not in self._shown:
            self._shown.add(record.run_id)
            self.console.print(self._line(record), highlight=False, soft_wrap=True)

    def _line(self, record: Record) -> str:
        count = f"[{len(self._shown):>{len(str(len(self.run_ids)))}}/{len(self.run_ids)}]".replace("[", r"\[")
        if record.status != "done":
            return f"{count} {record.run_id}  {record.status}: {record.reason}"
        seconds = record.measured.get("train_seconds") or 0.0
        return (f"{count} {record.run_id}  val {record.result['val_accuracy']:.1%}  test {record.result['test_accuracy']:.1%}"
                f"  {seconds:.1f} s")

    def _show_workers(self, bars: Progress) -> None:
        tasks = {(launch, task) for launch, task in self._workers()}
        for now in running_now(self.folder, tasks):
            worker = (now.writer.launch, now.writer.task)
            if worker not in self._rows:
                self._rows[worker] = bars.add_task(f"worker {now.writer.task}", total=now.epochs, told="")
            told = f"{now.run_id}  {now.images_per_second:,.0f} images/s"
            bars.update(self._rows[worker], completed=now.epoch, total=now.epochs, told=told)

    def _workers(self) -> list[Worker]:
        stems = (path.stem for path in self.folder.progress.glob(f"{self.launch_id}-*.json"))
        return [(writer.launch, writer.task) for writer in map(Writer.parse, stems)]
