"""TensorBoard: event files in one folder per run; `tensorboard --logdir runs/<sweep>/trackers/tensorboard` shows them all."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from study.tracking.libraries import Figures


class TensorBoard:
    """Scalars over epochs; configuration and final figures as hyperparameters, so that the HPARAMS tab compares runs."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._writers: dict[str, SummaryWriter] = {}
        self._facts: dict[str, Mapping[str, Any]] = {}

    def open(self, run_id: str, facts: Mapping[str, Any]) -> int:
        """An interrupted run is written anew: the curves of a resumed training hold the epochs before it too."""
        place = self._folder / run_id
        shutil.rmtree(place, ignore_errors=True)
        self._writers[run_id] = SummaryWriter(str(place))
        self._facts[run_id] = facts
        return 0

    def log(self, run_id: str, epoch: int, figures: Figures) -> None:
        writer = self._writers[run_id]
        for name, value in figures.items():
            writer.add_scalar(name, value, epoch)
        writer.flush()

    def close(self, run_id: str, status: str, figures: Figures) -> None:
        writer = self._writers.pop(run_id)
        facts = {**self._facts.pop(run_id), "status": status}
        if status != "stopped":  # "." is the run's own folder; another name would be a run of its own
            writer.add_hparams(facts, dict(figures), run_name=".")
        writer.close()
