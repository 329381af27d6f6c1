"""MLflow: one experiment per sweep, one MLflow run per run id, at the address that MLFLOW_TRACKING_URI gives.

Without it MLflow's own rule holds: a database file `mlflow.db` in the folder where the command was typed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from study.tracking.libraries import Figures

STATES = {"done": "FINISHED", "diverged": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
EVERY_EPOCH = "train_loss"
"""The one curve that each run has at each epoch: what MLflow holds of it tells which epochs are there."""


class MLflow:
    """Runs of one experiment, known by their run ids as a tag."""

    def __init__(self, *, study: str):
        self._client = MlflowClient()
        self._experiment = self._experiment_named(study)
        self._runs: dict[str, str] = {}

    def _experiment_named(self, study: str) -> str:
        """The experiment's id; another worker may create it at the same moment."""
        try:
            return str(self._client.create_experiment(study))
        except MlflowException:
            found = self._client.get_experiment_by_name(study)
            if found is None:
                raise
            return str(found.experiment_id)

    def open(self, run_id: str, facts: Mapping[str, Any]) -> int:
        """A run that was begun before goes on after its last epoch."""
        found = self._client.search_runs([self._experiment], f"tags.run_id = '{run_id}'", max_results=1)
        if not found:
            run = self._client.create_run(self._experiment, run_name=run_id, tags={"run_id": run_id})
            self._client.log_batch(run.info.run_id, params=[Param(name, str(value)) for name, value in facts.items()])
            self._runs[run_id] = run.info.run_id
            return 0
        known = self._runs[run_id] = found[0].info.run_id
        self._client.update_run(known, status="RUNNING")
        return max((metric.step for metric in self._client.get_metric_history(known, EVERY_EPOCH)), default=0)

    def log(self, run_id: str, epoch: int, figures: Figures) -> None:
        self._batch(run_id, figures, step=epoch)

    def close(self, run_id: str, status: str, figures: Figures) -> None:
        self._batch(run_id, figures, step=0)
        known = self._runs.pop(run_id)
        self._client.set_tag(known, "status", status)
        self._client.set_terminated(known, STATES[status])

    def _batch(self, run_id: str, figures: Figures, *, step: int) -> None:
        now = int(1000 * time.time())
        self._client.log_batch(self._runs[run_id], [Metric(name, value, now, step) for name, value in figures.items()])
