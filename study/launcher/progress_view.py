"""The progress of a launch: bars on a terminal, one plain line per finished run in a log."""

from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from study.records.ledger import WorkerId
from study.records.progress_file import read_latest_progress
from study.records.record import read_record_file
from study.records.sweep_folder import SweepFolder

MAX_WORKER_BARS = 16  # a screen has no room for more


@dataclass
class LaunchView:
    """A context that shows the progress of launches; `update` reads it anew."""

    folder: SweepFolder
    launch_ids: Set[str]
    run_ids: frozenset[str]
    console: Console
    recorded: set[str] = field(default_factory=set)  # the runs of these launches that have a record
    _bars: Progress | None = None
    _total: TaskID | None = None
    _worker_bars: dict[WorkerId, TaskID] = field(default_factory=dict)
    _sizes: dict[Path, int] = field(default_factory=dict)

    def __enter__(self) -> "LaunchView":
        if self.console.is_terminal:
            name, note = (TextColumn(f"{{task.{key}}}", markup=False) for key in ("description", "fields[note]"))
            columns = (name, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), note)
            self._bars = Progress(*columns, console=self.console, transient=True)
            self._total = self._bars.add_task("runs", total=len(self.run_ids), note="")
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def update(self) -> None:
        """Print the runs recorded since the last call, and move the bars."""
        for path in sorted(path for each in self.launch_ids for path in self.folder.records.glob(f"{each}-*.jsonl")):
            size = path.stat().st_size
            if self._sizes.get(path) != size:
                self._sizes[path] = size
                for record, _ in read_record_file(path):
                    if record.run_id not in self.recorded:
                        self.recorded.add(record.run_id)
                        count, total = str(len(self.recorded)), str(len(self.run_ids))
                        self.console.print(f"[{count.rjust(len(total))}/{total}] {record.run_id}  {record.summary()}")
        if self._bars is not None and self._total is not None:
            self._bars.update(self._total, completed=len(self.recorded))
            self._update_worker_bars(self._bars)

    def _update_worker_bars(self, bars: Progress) -> None:
        latest = {worker: now for worker, now in read_latest_progress(self.folder).items() if worker[0] in self.launch_ids}
        for worker in sorted(latest)[:MAX_WORKER_BARS]:
            now = latest[worker]
            if worker not in self._worker_bars:
                self._worker_bars[worker] = bars.add_task(f"worker {worker[1]}", total=now.epochs, note="")
            note = f"{now.run_id}  {now.images_per_second:,.0f} images/s"
            bars.update(self._worker_bars[worker], completed=now.epoch, total=now.epochs, note=note)
