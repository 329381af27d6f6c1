"""What TensorBoard's own reader finds after runs were trained by a worker, and which trackers a sweep may name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from study.errors import UserError
from study.records import load_curves, load_table
from study.records.record import read_records
from study.records.sweep_folder import SweepFolder
from study.tracking import libraries
from study.tracking.libraries import require_trackers
from study.tracking.tensorboard import TensorBoard

SWEEP = """\
question: are the tracked curves those of the records?
device: cpu
data: {name: digits, train_images: 300}
model: {depth: 1, kernel_size: 3, dim: 16, patch_size: 2}
backbone: convmixer
train: {epochs: 3, batch_size: 50, lr: 3e-3}
seeds: [0, 1]
"""


def read_back(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def scalars(found: EventAccumulator) -> dict[str, list[tuple[int, float]]]:
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def launch_sweep(folder: Path, *words: str) -> int:
    from study.launch import main

    (folder / "traced.yaml").write_text(SWEEP, encoding="utf-8")
    return main([str(folder / "traced.yaml"), *words, "--cluster", "local", "--workers", "1", "--runs", str(folder / "runs")])


def test_trackers_mirror_the_records_and_stop_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder of a run holds each epoch of each curve once, and the final metrics, equal to the recorded ones. With
    another seed and a broken tracker folder, the first run is kept, the second is done, and its record has the note."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    folder = SweepFolder(tmp_path / "runs" / "traced")
    assert launch_sweep(tmp_path, "track=[tensorboard]", "seeds=[0]") == 0
    (row,) = load_table(folder.path).to_dict("records")
    curves = load_curves(folder.path)
    (place,) = (folder.trackers / "tensorboard").iterdir()
    assert (row["status"], place.name) == ("done", row["run_id"])
    shown = scalars(read_back(place))
    for name in ("train_loss", "train_accuracy", "val_accuracy", "val_loss", "lr"):
        assert [step for step, _ in shown[name]] == [1, 2, 3]
        assert [value for _, value in shown[name]] == pytest.approx(curves[name].tolist(), rel=1e-6)
    for name in ("test_accuracy", "val_accuracy", "train_seconds"):
        assert shown[f"final/{name}"][0][1] == pytest.approx(row[name], rel=1e-6)

    shutil.rmtree(folder.trackers)
    folder.trackers.write_text("no folder")
    capsys.readouterr()
    assert launch_sweep(tmp_path, "track=[tensorboard]") == 0
    output = capsys.readouterr().out
    assert "1 to train, 1 recorded" in output and "'track=[tensorboard]'" in output
    notes = {a.record.run["seed"]: a.record.provenance["notes"] for a in read_records(folder.records).values()}
    assert notes[0] == [] and notes[1][0].startswith("the tracker tensorboard is off: ")
    assert list(load_table(folder.path)["status"]) == ["done", "done"]


def test_a_resumed_run_has_each_epoch_once(tmp_path: Path) -> None:
    """A run that logged five epochs, was killed and resumed from the third has epochs 1 to 6, each once."""
    killed = TensorBoard(tmp_path)
    killed.open("run", {"lr": 0.1})
    for epoch in range(1, 6):
        killed.log("run", epoch, {"train_loss": 100.0})
    resumed = TensorBoard(tmp_path)
    held = resumed.open("run", {"lr": 0.1})
    for epoch in range(held + 1, 7):
        resumed.log("run", epoch, {"train_loss": 1 / epoch})
    resumed.close("run", "done", {"final/test_accuracy": 0.5})
    shown = scalars(read_back(tmp_path / "run"))
    assert [step for step, _ in shown["train_loss"]] == [1, 2, 3, 4, 5, 6]
    assert max(value for _, value in shown["train_loss"]) <= 1.0


def test_a_missing_library_is_reported_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracker that isn't installed is a user error with the command that installs it, before anything starts."""
    found: dict[str, Any] = {"tensorboard": object(), "wandb": None, "mlflow": None}
    monkeypatch.setattr(libraries, "find_spec", found.__getitem__)
    require_trackers(["tensorboard"], place="a.yaml")
    with pytest.raises(UserError, match=r"pip install 'patch-or-attention\[wandb,mlflow\]'") as error:
        require_trackers(["tensorboard", "wandb", "mlflow"], place="a.yaml")
    assert error.value.problems[0].place == "a.yaml"
