"""Weights & Biases: one project per sweep, one run per run id; WANDB_MODE=offline writes to disk for `wandb sync`.

The library reads the server, the account and whether to be online from the environment and its settings.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from study.tracking.tracking_thread import Metrics


class WeightsAndBiases:
    """Runs in `<folder>/wandb/`, named by their run ids."""

    def __init__(self, folder: Path, *, study: str):
        self._folder, self._study = folder, study
        self._runs: dict[str, wandb.Run] = {}

    def open(self, run_id: str, config: Mapping[str, Any]) -> int:
        """Online an interrupted run is resumed where the server has it. Offline no server can be asked: the run is rewritten
        and its earlier files are removed, otherwise `wandb sync` would send its epochs twice."""
        earlier = list((self._folder / "wandb").glob(f"offline-run-*-{run_id}"))
        self._folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=self._study,
            id=run_id,
            name=run_id,
            group=str(config["backbone"]),
            config=dict(config),
            dir=str(self._folder),
            resume="allow",
            reinit="create_new",  # several runs may be open at a time
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._runs[run_id] = run
        if run.offline:
            for folder in earlier:
                shutil.rmtree(folder, ignore_errors=True)
        return max(0, int(run.starting_step) - 1)  # the step after the last that was logged

    def log(self, run_id: str, epoch: int, metrics: Metrics) -> None:
        self._runs[run_id].log(dict(metrics), step=epoch)

    def close(self, run_id: str, status: str, metrics: Metrics) -> None:
        run = self._runs.pop(run_id)
        run.summary.update({**metrics, "status": status})
        run.finish(exit_code=0 if status in ("done", "diverged") else 1)
