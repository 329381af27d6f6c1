"""What a worker says of the training that it is at: one small file that it writes anew, for `study.status` and bars."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from study.records.ledger import Cluster
from study.records.sweep_folder import SweepFolder, Writer, write_whole
from study.training.outcome import Progress

EVERY_S = {"local": 1.0, "slurm": 15.0}


@dataclass
class ProgressFile:
    """The file of one worker's life. Of `runs` that train together it tells the first one's figures and who the others are."""

    folder: SweepFolder
    writer: Writer
    cluster: Cluster
    device: str
    runs: list[str]  # those under way
    _written: float = float("-inf")

    def update(self, progress: Progress) -> None:
        """Replaces the file, at most every so many seconds."""
        if progress.run_id != self.runs[0] or time.monotonic() - self._written < EVERY_S[self.cluster]:
            return
        self._written = time.monotonic()
        numbers = {name: value for name, value in vars(progress).items() if name != "curves"}
        said = {**numbers, "time": time.time(), "device": self.device, "together": self.runs}
        write_whole(self.folder.progress / f"{self.writer}.json", json.dumps(said))
