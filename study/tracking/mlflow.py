"""MLflow: one experiment per sweep, one MLflow run per run id, on the server that MLFLOW_TRACKING_URI names.

Without that variable MLflow's default holds: a database file `mlflow.db` in the current folder of the command.
"""

import time
from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from study.tracking.tracking_thread import Metrics

_STATUSES = {"done": "FINISHED", "diverged": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_LOGGED_EACH_EPOCH = "train_loss"  # its last step is the last epoch that MLflow has of a run


class MLflow:
    """Runs of one experiment, identified by their run ids as a tag."""

    def __init__(self, *, study: str):
        self._client = MlflowClient()
        self._runs: dict[str, str] = {}
        try:
            self._experiment = str(self._client.create_experiment(study))
        except MlflowException:  # it exists, perhaps since this moment: workers start together
            found = self._client.get_experiment_by_name(study)
            if found is None:
                raise
            self._experiment = str(found.experiment_id)

    def open(self, run_id: str, config: Mapping[str, Any]) -> int:
        """A run that was begun before is resumed after its last epoch."""
        found = self._client.search_runs([self._experiment], f"tags.run_id = '{run_id}'", max_results=1)
        if not found:
            run = self._client.create_run(self._experiment, run_name=run_id, tags={"run_id": run_id})
            self._client.log_batch(run.info.run_id, params=[Param(name, str(value)) for name, value in config.items()])
            self._runs[run_id] = run.info.run_id
            return 0
        mlflow_id = self._runs[run_id] = found[0].info.run_id
        self._client.update_run(mlflow_id, status="RUNNING")
        return max((metric.step for metric in self._client.get_metric_history(mlflow_id, _LOGGED_EACH_EPOCH)), default=0)

    def log(self, run_id: str, epoch: int, metrics: Metrics) -> None:
        now = int(1000 * time.time())
        self._client.log_batch(self._runs[run_id], [Metric(name, value, now, epoch) for name, value in metrics.items()])

    def close(self, run_id: str, status: str, metrics: Metrics) -> None:
        self.log(run_id, 0, metrics)
        mlflow_id = self._runs.pop(run_id)
        self._client.set_tag(mlflow_id, "status", status)
        self._client.set_terminated(mlflow_id, _STATUSES[status])
