"""Accuracy by class, confusions and calibration, against scikit-learn and a plain loop over images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import example_sweeps
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, recall_score

from study import load_report
from study.analysis.class_accuracy import tabulate_calibration, tabulate_classes, tabulate_confusions
from study.analysis.findings import Findings
from study.analysis.report_files import read_report_folder, write_tables
from study.records import count_predictions, predictions
from study.report import main

RUNS = pd.DataFrame({"run_id": [f"r{n}" for n in range(6)], "patch_size": [1, 1, 1, 2, 2, 2], "seed": [0, 1, 2] * 2})


@pytest.fixture
def rows() -> pd.DataFrame:
    """Predictions of six runs on 60 images of four classes, wrong on a third of them, with any confidence."""
    noise, label = np.random.default_rng(0), np.arange(60) % 4
    parts = []
    for run_id in RUNS["run_id"]:
        predicted = np.where(noise.random(60) < 1 / 3, noise.integers(0, 4, 60), label)
        own = {
            "image": np.arange(60),
            "label": label,
            "predicted": predicted,
            "probability": noise.random(60, dtype=np.float32),
        }
        parts.append(pd.DataFrame({"run_id": run_id, **own}))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture
def counts(rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    monkeypatch.setattr(predictions, "load_predictions", lambda _: rows)
    return count_predictions("runs/any")


def test_accuracies_are_the_recalls_of_the_classes(rows: pd.DataFrame, counts: pd.DataFrame) -> None:
    found = tabulate_classes(RUNS, counts, ["patch_size"])
    for patch, names in RUNS.groupby("patch_size")["run_id"]:
        runs = [rows[rows["run_id"] == name] for name in names]
        recalls = np.array([recall_score(run["label"], run["predicted"], average=None) for run in runs])
        own = found[found["patch_size"] == patch].set_index("class")
        np.testing.assert_allclose(own.loc[range(4), "accuracy"], recalls.mean(axis=0))
        macro = [recall_score(run["label"], run["predicted"], average="macro") for run in runs]
        assert own.loc[-1, "accuracy"] == pytest.approx(np.mean(macro)) and own.loc[-1, "sd"] == pytest.approx(
            np.std(macro, ddof=1)
        )
        assert own.loc[-1, "high"] - own.loc[-1, "low"] == pytest.approx(2 * 4.302653 * np.std(macro, ddof=1) / np.sqrt(3))
        assert list(own["n"]) == [3] * 5 and own.loc[-1, "images"] == 60


def test_confusions_are_those_of_the_confusion_matrix(rows: pd.DataFrame, counts: pd.DataFrame) -> None:
    found = tabulate_confusions(RUNS, counts, ["patch_size"])
    for patch, names in RUNS.groupby("patch_size")["run_id"]:
        runs = [rows[rows["run_id"] == name] for name in names]
        expected = np.mean([confusion_matrix(run["label"], run["predicted"], normalize="true") for run in runs], axis=0)
        own = np.zeros((4, 4))
        for row in found[found["patch_size"] == patch].to_dict("records"):
            own[row["label"], row["predicted"]] = row["share"]
        np.testing.assert_allclose(own, expected - np.diag(np.diag(expected)))


def test_calibration_errors_are_those_of_a_loop_over_bins(rows: pd.DataFrame, counts: pd.DataFrame) -> None:
    found = tabulate_calibration(RUNS, counts, ["patch_size"]).set_index("patch_size")["calibration_error"]
    for patch, names in RUNS.groupby("patch_size")["run_id"]:
        errors = []
        for name in names:
            run, error = rows[rows["run_id"] == name], 0.0
            for low in np.arange(15) / 15:
                own = run[(run["probability"] >= low) & (run["probability"] < low + 1 / 15)]
                error += abs((own["label"] == own["predicted"]).sum() - own["probability"].sum()) / 60
            errors.append(error)
        assert found[patch] == pytest.approx(np.mean(errors), rel=1e-4)


def test_a_report_has_them_and_can_be_redrawn(tmp_path: Path) -> None:
    """A mixer that takes every second image of class 0 for class 1, and others that don't: first among the confusions."""
    tables = read_report_folder(example_sweeps.as_folder(example_sweeps.patch_size(seeds=3, epochs=2), tmp_path))
    kept = [
        {"run_id": run, "label": label, "predicted": predicted, "bin": 14, "images": 5, "confidence": 5.0}
        for run, backbone in zip(tables.table["run_id"], tables.table["backbone"], strict=True)
        for label, predicted in [(0, 1 if backbone == "vit" else 0), (0, 0), (1, 1)]
    ]
    counts = pd.DataFrame(kept).groupby(["run_id", "label", "predicted", "bin"], as_index=False).sum()
    write_tables(replace(tables, predictions=counts), tmp_path)
    (part,) = Findings(read_report_folder(tmp_path)).parts
    confused = part.compared_confusions
    assert {(row["label"], row["predicted"]) for row in confused.to_dict("records")} == {(0, 1)}
    vit = confused[confused["upper"] == "vit"]
    assert len(vit) and (vit["share_upper"] == 0.5).all() and (vit["share_lower"] == 0).all()
    assert main([str(tmp_path), "--formats", "svg"]) == 0
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "## Classes and calibration" in text and "## Confusions" in text and "predictions.parquet" in text
    report = load_report(tmp_path)
    order = ["patch_size", "backbone"]
    pd.testing.assert_frame_equal(report.calibration[order], report.cells[order])
    assert set(report.classes["class"]) == {-1, 0, 1} and len(report.calibration) == 12 and len(report.confusions) == 4
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main([str(tmp_path), "--formats", "svg"]) == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
