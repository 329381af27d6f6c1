"""TensorBoard: event files in one folder per run; `tensorboard --logdir runs/<sweep>/trackers/tensorboard` shows them all."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from study.tracking.tracking_thread import Metrics


class TensorBoard:
    """Scalars over epochs; configuration and final metrics as hyperparameters, so that the HPARAMS tab compares runs."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._writers: dict[str, SummaryWriter] = {}
        self._configs: dict[str, Mapping[str, Any]] = {}

    def open(self, run_id: str, config: Mapping[str, Any]) -> int:
        """An interrupted run is rewritten: the curves of a resumed training include the epochs before it."""
        run_folder = self._folder / run_id
        shutil.rmtree(run_folder, ignore_errors=True)
        self._writers[run_id] = SummaryWriter(str(run_folder))
        self._configs[run_id] = config
        return 0

    def log(self, run_id: str, epoch: int, metrics: Metrics) -> None:
        writer = self._writers[run_id]
        for name, value in metrics.items():
            writer.add_scalar(name, value, epoch)
        writer.flush()

    def close(self, run_id: str, status: str, metrics: Metrics) -> None:
        writer = self._writers.pop(run_id)
        config = {**self._configs.pop(run_id), "status": status}
        if status != "stopped":  # "." is the run's own folder; TensorBoard shows any other name as another run
            writer.add_hparams(config, dict(metrics), run_name=".")
        writer.close()
