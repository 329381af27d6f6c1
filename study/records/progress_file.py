"""A worker's progress: one small file that it writes anew, read by `study.status` and progress bars."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from study.records.ledger import Cluster
from study.records.sweep_folder import SweepFolder, Writer, write_whole

EVERY_S = {"local": 1.0, "slurm": 15.0}


@dataclass
class ProgressFile:
    """The progress file of one life of a worker."""

    folder: SweepFolder
    writer: Writer
    cluster: Cluster
    device: str
    _written: float = float("-inf")

    def update(self, progress: Mapping[str, Any]) -> None:
        """Replace the file by these figures of the run being trained, at most every `EVERY_S` seconds."""
        if time.monotonic() - self._written < EVERY_S[self.cluster]:
            return
        self._written = time.monotonic()
        content = {**progress, "time": time.time(), "device": self.device}
        write_whole(self.folder.progress / f"{self.writer}.json", json.dumps(content))
