"""Merging folders of runs: every run once, every contradiction named, and nothing written where there is one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from study.config.sweep_file import read_sweep
from study.launcher.assignment import assign_runs, draft_launch
from study.launcher.liveness import check_liveness
from study.launcher.sweep_status import compute_sweep_status
from study.merge import main as merge
from study.planning.sweep_plan import make_plan
from study.records import load_predictions, load_study, load_table
from study.records.journal import Journal, read_journals
from study.records.plan_file import load_plan
from study.records.predictions import write_predictions
from study.records.record import Record, Result, read_records
from study.records.sweep_folder import JsonLinesWriter, SweepFolder, Writer

SWEEP = """\
question: do two people's runs make one study?
data: {name: digits, train_images: 200, test_images: 100}
backbone: mlp_mixer
model: {depth: 1, dim: 8}
train: {epochs: 1, batch_size: 50}
axes: {model.patch_size: [4, 8]}
seeds: [0, 1]
"""


def train(place: Path, *overrides: str, count: int | None = None, shift: float = 0.0) -> SweepFolder:
    """A folder in which the first `count` runs are recorded with accuracies that follow from patch size and seed."""
    (place.parent / "sweep.yaml").write_text(SWEEP, encoding="utf-8")
    plan, folder = make_plan(read_sweep(place.parent / "sweep.yaml", overrides)), SweepFolder(place)
    launch = assign_runs(draft_launch(plan, folder, cluster="local", workers=1), plan, folder, runs=plan.runs)
    writer = Writer(launch.id, 0, 0)
    records, journal = JsonLinesWriter(folder.records / f"{writer}.jsonl"), Journal(folder, writer)
    for planned in plan.runs[:count]:
        entry, accuracy = planned.entry, 0.5 + planned.run.model.patch_size / 100 + planned.run.seed / 1000 + shift
        journal.write("begin", run_id=entry.run_id)
        image = np.arange(4)
        written = {"image": image, "label": image, "predicted": image * planned.run.seed, "probability": image / 8}
        write_predictions(folder, writer, run_id=entry.run_id, **written)
        result = Result(test_accuracy=accuracy)
        records.append(Record(entry.run_id, "done", entry.run, entry.cost, entry.match, result).to_json())
        journal.write("end", run_id=entry.run_id, reason="done")
    records.close()
    journal.close()
    return folder


def run_merge(*folders: SweepFolder, into: Path) -> int:
    return merge([*(str(folder.path) for folder in folders), "--into", str(into)])


def test_two_halves_are_the_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Seeds 0 and 1 of one person, 1 and 2 of another: a table of three seeds with each run once, as if one had trained all."""
    one, other = train(tmp_path / "a"), train(tmp_path / "b", "seeds=[1, 2]")
    assert run_merge(one, other, into=tmp_path / "c") == 0
    assert "6 runs with an outcome (2 in several folders), 3 seeds" in capsys.readouterr().out
    whole = train(tmp_path / "whole", "seeds=[0, 1, 2]")
    columns = ["run_id", "status", "seed", "patch_size", "test_accuracy"]
    merged, expected = (
        load_table(path)[columns].sort_values("run_id", ignore_index=True) for path in (tmp_path / "c", whole.path)
    )
    assert merged.equals(expected)
    facts, all_facts = load_study(tmp_path / "c"), load_study(whole.path)
    assert (facts.seeds, facts.factors, facts.planned_runs) == (all_facts.seeds, all_facts.factors, all_facts.planned_runs)
    folder = SweepFolder(tmp_path / "c")
    predicted = load_predictions(tmp_path / "c")
    assert not predicted.duplicated(["run_id", "image"]).any() and set(predicted["run_id"]) == set(merged["run_id"])
    assert len(read_journals(folder)) == len(read_journals(one)) + len(read_journals(other))
    status = compute_sweep_status(folder, load_plan(folder).run_ids, check_liveness(folder))
    assert len(status.done) == 6 and not status.is_active


def test_an_earlier_copy_adds_nothing(tmp_path: Path) -> None:
    """A copy that was made while the runs were recorded is the beginning of what is there: same table, same attempts."""
    one = train(tmp_path / "a")
    shutil.copytree(one.path, tmp_path / "b")
    for path in [*(tmp_path / "b").glob("records/*"), *(tmp_path / "b").glob("journals/*")]:
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:2]) + lines[2][:20])  # the last line was being written
    for order, target in (((one, SweepFolder(tmp_path / "b")), "c"), ((SweepFolder(tmp_path / "b"), one), "d")):
        assert run_merge(*order, into=tmp_path / target) == 0
        assert load_table(tmp_path / target).equals(load_table(one.path))
        assert {each.count for each in read_records(SweepFolder(tmp_path / target).records).values()} == {1}


def test_contradictions_are_named_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another result of the same run: the run and both places; another line in the same worker's file: its number."""
    one, other = train(tmp_path / "a"), train(tmp_path / "b", shift=0.1)
    assert run_merge(one, other, into=tmp_path / "c") == 2
    said = capsys.readouterr().err
    for run_id in load_table(one.path)["run_id"]:
        assert run_id in said
    assert str(one.records) in said and str(other.records) in said
    shutil.copytree(one.path, tmp_path / "edited")
    (path,) = (tmp_path / "edited/records").glob("*")
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 7'))
    assert run_merge(one, SweepFolder(tmp_path / "edited"), into=tmp_path / "c") == 2
    assert f"{path}:2: contradicts" in capsys.readouterr().err
    assert sorted(place.name for place in tmp_path.iterdir()) == ["a", "b", "edited", "sweep.yaml"]


def test_other_predictions_of_a_run_are_a_contradiction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two workers that recorded the same accuracy, but predicted other classes."""
    one, other = train(tmp_path / "a"), train(tmp_path / "b", count=1)
    (path,) = other.predictions.glob("*")
    path.unlink()
    run_id, image = load_table(other.path)["run_id"].iloc[0], np.arange(4)
    columns = {"image": image, "label": image, "predicted": image[::-1], "probability": image / 8}
    write_predictions(other, Writer.parse(path.stem), run_id=run_id, **columns)
    assert run_merge(one, other, into=tmp_path / "c") == 2
    assert f"predicts other classes for run {run_id}" in capsys.readouterr().err


def test_different_studies_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another question or other selected hyperparameters are no further runs of the same study; nor is a folder twice."""
    one, other = train(tmp_path / "a"), train(tmp_path / "b", "question=another?")
    assert run_merge(one, other, into=tmp_path / "c") == 2
    assert "is another study than" in capsys.readouterr().err
    assert run_merge(one, one, into=tmp_path / "c") == 2
    third = train(tmp_path / "third", "seeds=[5]")
    for folder, chosen in ((one, 1), (third, 2)):
        folder.selection.write_text(json.dumps({"chosen": chosen}))
    assert run_merge(one, third, into=tmp_path / "c") == 2
    assert "selection.json: contradicts" in capsys.readouterr().err
    assert run_merge(one, train(tmp_path / "e", "seeds=[9]"), into=tmp_path / "b") == 2
    assert "exists already" in capsys.readouterr().err


def test_levels_of_two_people_are_united(tmp_path: Path) -> None:
    """One trained patch size 4, the other 8: the merged plan has both as levels of one factor."""
    one, other = (train(tmp_path / name, f"model.patch_size=[{size}]") for name, size in (("a", 4), ("b", 8)))
    assert run_merge(one, other, into=tmp_path / "c") == 0
    assert load_study(tmp_path / "c").factors == {"patch_size": [4, 8]}
    assert list(load_table(tmp_path / "c")["status"]) == ["done"] * 4


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_folders_does_not_matter(tmp_path: Path, seed: int) -> None:
    """Whoever is named first: the same runs with the same results."""
    rng = np.random.default_rng(seed)
    folders = [train(tmp_path / name, f"seeds={sorted({*rng.integers(0, 5, 3).tolist()})}") for name in "abc"]
    tables = []
    for order, target in ((folders, "forward"), (folders[::-1], "backward")):
        assert run_merge(*order, into=tmp_path / target) == 0
        tables.append(load_table(tmp_path / target)[["run_id", "status", "test_accuracy", "attempts"]])
    forward, backward = (table.sort_values("run_id", ignore_index=True) for table in tables)
    assert forward.equals(backward)
