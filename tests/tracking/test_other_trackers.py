"""Weights & Biases offline and MLflow with a local store, read back from disk. `make test-trackers`."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from study.tracking.libraries import select_trackers
from study.tracking.tracking_thread import Tracking

pytestmark = [pytest.mark.trackers, pytest.mark.filterwarnings("default")]  # the libraries' own warnings
CONFIG = {"backbone": "vit", "lr": 0.001, "kernel_size": None, "flip": True}


def curves(epochs: int) -> dict[str, list[float | None]]:
    numbers = range(1, epochs + 1)
    return {"epoch": [*map(float, numbers)], "train_loss": [1 / n for n in numbers], "val_accuracy": [n / 10 for n in numbers]}


def interrupt_and_resume(name: str, folder: Path) -> None:
    """One run in two processes: the first is stopped after four epochs, the second resumes from the third and ends at six."""
    first = Tracking(select_trackers([name], folder=folder, study="traced"))
    first.begin_run("vit-p2-d8-s0-abc", CONFIG)
    for epochs in (1, 2, 4):
        first.log_curves("vit-p2-d8-s0-abc", curves(epochs))
    assert first.end_run("vit-p2-d8-s0-abc", "stopped", metrics={}) == ()
    second = Tracking(select_trackers([name], folder=folder, study="traced"))
    second.begin_run("vit-p2-d8-s0-abc", CONFIG)
    second.log_curves("vit-p2-d8-s0-abc", curves(3))
    second.log_curves("vit-p2-d8-s0-abc", curves(6))
    assert second.end_run("vit-p2-d8-s0-abc", "done", metrics={"test_accuracy": 0.75, "val_accuracy": 0.6}) == ()


def offline_lines(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """The history and summary of an offline run, in the library's own messages.

    The file is a LevelDB log: blocks of 32 KiB, in them chunks of 4 bytes checksum, 2 bytes length, 1 byte kind (1: whole,
    2, 3, 4: first, middle, last part) and data; the first block begins with 7 bytes of its own.
    """
    from wandb.proto import wandb_internal_pb2

    raw, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(raw):
        length, kind = struct.unpack_from("<HB", raw, at + 4)
        whole, at = whole + raw[at + 7 : at + 7 + length], at + 7 + length
        if 32768 - at % 32768 < 7:
            at += -at % 32768
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            for item_of, kept in (("history", record.history.item), ("summary", record.summary.update)):
                if record.HasField(item_of):
                    yield item_of, {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in kept}


def test_weights_and_biases_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One offline run is left, under the run's own id, holding epochs 1 to 6 once each and the final metrics."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    interrupt_and_resume("wandb", tmp_path)
    (path,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    assert path.name == "run-vit-p2-d8-s0-abc.wandb"
    lines = list(offline_lines(path))
    history = [row for kind, row in lines if kind == "history"]
    assert [(row["_step"], row["train_loss"]) for row in history] == [(n, 1 / n) for n in range(1, 7)]
    summary = {key: value for kind, row in lines if kind == "summary" for key, value in row.items()}
    assert (summary["final/test_accuracy"], summary["status"]) == (0.75, "done")


@pytest.mark.parametrize("store", ["sqlite:///{}/mlflow.db", "file://{}/mlruns"])
def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    """One run of the experiment, named by the run id, holds epochs 1 to 6 once each, the options and the final metrics."""
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.format(tmp_path))
    interrupt_and_resume("mlflow", tmp_path)
    client = MlflowClient()
    experiment = client.get_experiment_by_name("traced")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status, run.data.tags["status"]) == ("vit-p2-d8-s0-abc", "FINISHED", "done")
    assert run.data.params == {"backbone": "vit", "lr": "0.001", "flip": "True"}
    history = client.get_metric_history(run.info.run_id, "train_loss")
    assert sorted((metric.step, metric.value) for metric in history) == [(n, 1 / n) for n in range(1, 7)]
    assert run.data.metrics["final/test_accuracy"] == 0.75
