"""A launch while it runs: bars on a terminal, in a log one plain line per finished run. Looking changes nothing."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from study.launcher.sweep_status import progress
from study.records.ledger import Worker
from study.records.record import Record
from study.records.sweep_folder import SweepFolder, read_lines

SHOWN_WORKERS = 16  # a screen has no room for more bars


@dataclass
class LaunchView:
    """Shows the progress of launches while they run: bars on a terminal, lines elsewhere."""

    folder: SweepFolder
    launch_ids: Set[str]
    run_ids: frozenset[str]
    console: Console
    _shown: set[str] = field(default_factory=set)
    _bars: Progress | None = None
    _total: TaskID | None = None
    _rows: dict[Worker, TaskID] = field(default_factory=dict)
    _sizes: dict[Path, int] = field(default_factory=dict)

    def __enter__(self) -> LaunchView:
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[told]}"),
            )
            self._bars = Progress(*columns, console=self.console, transient=True)
            self._total = self._bars.add_task("runs", total=len(self.run_ids), told="")
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    @property
    def recorded(self) -> frozenset[str]:
        """The runs of these launches that have a record."""
        return frozenset(self._shown)

    def say(self, line: str) -> None:
        """A line of its own, above the bars."""
        self.console.print(line, highlight=False, soft_wrap=True, markup=False)

    def update(self) -> None:
        """Tells what was recorded since the last call, and moves the bars."""
        for path in sorted(path for each in self.launch_ids for path in self.folder.records.glob(f"{each}-*.jsonl")):
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
            self.say(self._line(record))

    def _line(self, record: Record) -> str:
        count = f"[{len(self._shown):>{len(str(len(self.run_ids)))}}/{len(self.run_ids)}] {record.run_id}"
        if record.status != "done":
            return f"{count}  {record.status}: {record.reason}"
        return f"{count}  {record.figures()}"

    def _show_workers(self, bars: Progress) -> None:
        said = {worker: now for worker, now in sorted(progress(self.folder).items()) if worker[0] in self.launch_ids}
        for worker in list(said)[:SHOWN_WORKERS]:
            now = said[worker]
            if worker not in self._rows:
                self._rows[worker] = bars.add_task(f"worker {worker[1]}", total=now["epochs"], told="")
            told = f"{now['run_id']}  {now['images_per_second']:,.0f} images/s"
            bars.update(self._rows[worker], completed=now["epoch"], total=now["epochs"], told=told)
