"""A worker goes through its share: reassigned and cancelled runs are skipped, and a record that can't be written ends it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fake_trainer import FakeTrainer

from study.records.journal import Journal, count_crashes, read_journals
from study.records.ledger import Cancellations, ShareEntry, cancel_runs
from study.records.plan_file import PlannedEntry
from study.records.sweep_folder import JsonLinesWriter, SweepFolder, Writer
from study.worker.worker_process import Worker


def train_three(root: Path, trainer: FakeTrainer) -> dict[str, str]:
    """Train a share of runs a, b and c; how each of them ended, by the worker's journal."""
    folder, writer = SweepFolder(root), Writer("launch", 0, 0)
    with closing(Journal(folder, writer)) as journal:
        journal.write("start")
        worker = Worker(
            folder,
            writer,
            journal,
            stop=lambda: False,  # type: ignore[arg-type]
            log="",
            recorded={},
            crashes=dict.fromkeys("abc", 0),
            rank_failures={},
            cancellations=Cancellations(folder, "launch"),
        )
        worker.train_share([ShareEntry(PlannedEntry(run_id, {}, {}, {})) for run_id in "abc"], trainer)  # type: ignore[arg-type]
    return {entry.run_id: entry.reason for entry in read_journals(folder) if entry.event in ("end", "stop")}


def test_a_cancelled_run_is_skipped(tmp_path):
    """A run that was cancelled before the worker came to it is neither trained nor begun."""
    (tmp_path / "launches/launch").mkdir(parents=True)
    cancel_runs(SweepFolder(tmp_path), "launch", ["b"])
    trainer = FakeTrainer("diverged")
    assert train_three(tmp_path, trainer) == {"a": "diverged", "c": "diverged"}
    assert trainer.calls == ["train a", "remove checkpoints of a", "train c", "remove checkpoints of c"]


def test_a_run_that_is_cancelled_during_training_is_stopped_and_the_share_continues(tmp_path, monkeypatch):
    """The worker looks for cancellations while it trains; the cancelled run leaves no record."""
    (tmp_path / "launches/launch").mkdir(parents=True)
    monkeypatch.setattr("study.records.ledger.CANCELLATION_POLL_S", 0.0)
    trainer = FakeTrainer(
        "diverged", meanwhile=lambda run_id: run_id == "b" and cancel_runs(SweepFolder(tmp_path), "launch", ["b"])
    )
    assert train_three(tmp_path, trainer) == {"a": "diverged", "b": "cancelled", "c": "diverged"}
    assert trainer.calls == ["train a", "remove checkpoints of a", "train c", "remove checkpoints of c"]


def test_a_record_that_cannot_be_written_is_not_the_runs_failure(tmp_path, monkeypatch):
    """A full disk ends the worker: no run fails, loses its checkpoints or counts as crashed, and no other run is begun."""
    trainer = FakeTrainer("diverged")

    append = JsonLinesWriter.append

    def refuse(lines: JsonLinesWriter, document: dict[str, Any]) -> None:
        if "event" not in document:
            raise OSError(28, "No space left on device")
        append(lines, document)

    monkeypatch.setattr(JsonLinesWriter, "append", refuse)
    with pytest.raises(OSError, match="No space"):
        train_three(tmp_path, trainer)
    assert trainer.calls == ["train a"]
    entries = read_journals(SweepFolder(tmp_path))
    assert (entries[-1].event, entries[-1].run_id) == ("stop", "a") and "No space" in entries[-1].reason
    assert count_crashes(entries, "a") == 0


def test_what_a_run_leaves_and_the_disk_refuses_is_not_the_runs_failure(tmp_path):
    """Weights or predictions that can't be written end the worker too; any other exception is the run's own."""

    def refuse(run_id: str) -> None:
        raise OSError(30, "Read-only file system", "weights/a.safetensors")

    trainer = FakeTrainer(meanwhile=refuse)
    with pytest.raises(OSError, match="Read-only"):
        train_three(tmp_path, trainer)
    assert trainer.calls == [] and not (tmp_path / "records").exists()
