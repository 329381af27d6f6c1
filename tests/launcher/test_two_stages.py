"""Tuning as it runs: one command trains the trials, selects, and trains the final runs with what it selected."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typed_commands import start_command

from study.analysis.report_tables import read_run_folder
from study.config.options import DataOptions
from study.config.run import Run
from study.config.sweep_file import read_sweep
from study.data import describe_dataset
from study.data.splits import load_splits
from study.launcher.sweep_status import SweepStatus
from study.records import load_curves, load_predictions, load_study, load_table, load_trials
from study.records.correctness import unpack_correctness
from study.records.plan_file import PlanFile, PlannedEntry, StudyFacts
from study.records.record import read_records
from study.records.selection import read_selection
from study.records.sweep_folder import SweepFolder
from study.status import format_next
from study.training.checkpoint import Checkpoints
from study.training.device import DeviceChoice
from study.training.engine import train

SWEEP = """\
question: which learning rate does each cell want?
data: {name: digits, train_images: 200, test_images: 100, predictions: true}
model: {depth: 1, patch_size: 4}
train: {epochs: 2, batch_size: 50}
match: {by: params, target: 6k, head_dim: 8}
axes:
  backbone: [mlp_mixer, vit]
seeds: [0, 1]
tune: {axes: {train.lr: [1e-4, 1e-2, 1e30]}, seeds: [100]}
final: {fit_on: train+val}
"""


def printed_by(words: str, folder: Path) -> str:
    """What a command in `folder` printed."""
    command = start_command(words, folder=folder, environment=dict(os.environ))
    assert command.wait() == 0, command.printed
    return command.printed


def launch(folder: Path, words: str = "") -> str:
    (folder / "sweep.yaml").write_text(SWEEP)
    return printed_by(f"launch sweep.yaml --cluster local --workers 1 {words}", folder)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> tuple[Path, str, pd.DataFrame]:
    """A folder in which some trials were launched, then the rest in one command: what that printed, and the table between."""
    folder = tmp_path_factory.mktemp("tuned")
    launch(folder, "--limit 2")
    between = load_table(folder / "runs/sweep")
    return folder, launch(folder), between


@pytest.mark.xdist_group("launch")
def test_final_runs_are_missing_until_all_trials_are_recorded(study):
    """The table already has a row for each, its planned columns filled but for what is not selected; no trial is in it."""
    _, _, between = study
    assert list(between["status"]) == ["missing"] * 4
    assert set(between["stage"]) == {"final"} and set(between["trials"]) == {3}
    assert between["lr"].isna().all() and between["epochs"].eq(2).all()


@pytest.mark.xdist_group("launch")
def test_one_command_goes_through_both_stages(study):
    """It trains the trials that are left, selects, and trains the final runs; run again, it finds nothing to do."""
    folder, printed, _ = study
    assert "4 to train, 2 recorded" in printed
    assert "selected lr for 2 cells from 6 trials (3 per cell)" in printed
    assert "4 to train, 6 recorded" in printed
    table, again = load_table(folder / "runs/sweep"), launch(folder)
    assert table["status"].eq("done").all() and len(table) == 4
    assert "Nothing is left to start" in again and "selected lr" not in again
    assert load_table(folder / "runs/sweep").equals(table)


@pytest.mark.xdist_group("launch")
def test_a_worker_divides_the_images_by_the_runs_seed(study, tmp_path):
    """A trial repeated here on its seed's images has the recorded validation loss, within rounding."""
    records = [each.record for each in read_records(SweepFolder(study[0] / "runs/sweep").records).values()]
    record = next(each for each in records if each.run["seed"] == 100 and each.run["train"]["lr"] == 1e-2)
    run = Run.from_json(record.run)
    images = load_splits(run.data, describe_dataset(run.data), seed=100)
    checkpoints = Checkpoints(tmp_path, run.run_id, "writer")
    device, quiet = DeviceChoice("cpu"), {"stop": lambda: False, "report": lambda *_: None}
    outcome = train(run, images, device=device, checkpoints=checkpoints, **quiet)
    assert outcome.val_loss == pytest.approx(record.result.val_loss, rel=1e-4)


@pytest.mark.xdist_group("launch")
def test_final_runs_have_the_best_trials_options(study):
    """The oracle is pandas over the trials' table; the trial with a learning rate of 1e30 diverged and lost."""
    folder, _, _ = study
    trials, finals = load_trials(folder / "runs/sweep"), load_table(folder / "runs/sweep")
    assert set(trials.loc[trials["lr"] == 1e30, "status"]) == {"diverged"}
    assert trials["test_accuracy"].isna().all() and trials["test_images"].eq(0).all()
    assert trials.groupby("cell").size().eq(3).all()
    done = trials[trials["status"] == "done"]
    best = done.loc[done.groupby("backbone")["val_accuracy"].idxmax()].set_index("backbone")["lr"]
    assert list(finals["lr"]) == [best[backbone] for backbone in finals["backbone"]]
    assert trials.loc[trials["selected"].astype(bool)].set_index("backbone")["lr"].to_dict() == best.to_dict()
    selection = read_selection(SweepFolder(folder / "runs/sweep"))
    assert selection is not None and selection.chosen_trials() == set(trials.loc[trials["selected"].astype(bool), "run_id"])


@pytest.mark.xdist_group("launch")
def test_counts_are_those_of_the_images_that_were_used(study):
    """Final runs: 200 + 180 training images, none for validation, 100 for testing; curves of the stages are apart."""
    folder, _, _ = study
    finals, trials = load_table(folder / "runs/sweep"), load_trials(folder / "runs/sweep")
    counts = ["train_images", "val_images", "test_images"]
    assert finals[counts].drop_duplicates().to_numpy().tolist() == [[380, 0, 100]]
    assert trials[counts].drop_duplicates().to_numpy().tolist() == [[200, 180, 0]]
    assert finals["val_accuracy"].isna().all() and finals["test_accuracy"].notna().all()
    assert set(load_curves(folder / "runs/sweep")["run_id"]) == set(finals["run_id"])
    assert set(load_curves(folder / "runs/sweep", stage="trial")["run_id"]) <= set(trials["run_id"])
    facts = load_study(folder / "runs/sweep")
    assert (facts.planned_runs, facts.trials_per_cell, facts.seeds) == (4, 3, (0, 1))
    assert facts.tuned == {"lr": [1e-4, 1e-2, 1e30]}


@pytest.mark.xdist_group("launch")
def test_predictions_are_kept_of_every_final_run(study):
    """Their mean hit is the recorded accuracy, their images and labels are those of the test split; one file per worker."""
    folder, _, _ = study
    found, finals = load_predictions(folder / "runs/sweep"), load_table(folder / "runs/sweep").set_index("run_id")
    hits = (found["label"] == found["predicted"]).groupby(found["run_id"]).mean()
    assert hits.to_dict() == pytest.approx(finals["test_accuracy"].to_dict())
    test = load_splits(
        DataOptions(name="digits"), describe_dataset(DataOptions(name="digits", train_images=200, test_images=100))
    ).test
    for _, own in found.groupby("run_id"):
        assert own["image"].tolist() == test.indices.tolist()
        assert own["label"].tolist() == test.labels.tolist()
    assert found["probability"].between(0, 1).all()
    assert len(list(SweepFolder(folder / "runs/sweep").predictions.glob("*.parquet"))) == 1


@pytest.mark.xdist_group("launch")
def test_correctness_is_kept_of_test_images_in_final_runs_and_of_validation_images_in_trials(study):
    """Of the final runs it agrees with the predictions image by image; of the trials its mean is the accuracy recorded."""
    folder, _, _ = study
    predictions, trials = load_predictions(folder / "runs/sweep"), load_trials(folder / "runs/sweep").set_index("run_id")
    hits = (predictions["label"] == predictions["predicted"]).groupby(predictions["run_id"]).agg(list)
    found = read_run_folder(folder / "runs/sweep").correctness.set_index("run_id")
    bits = {run_id: unpack_correctness(row["correct"], row["images"]).tolist() for run_id, row in found.iterrows()}
    finals = found[found["split"] == "test"].index
    assert {run_id: bits[run_id] for run_id in finals} == hits.to_dict()
    own = found[found["split"] == "val"]
    assert set(own["images"]) == {180} and set(own.index) == set(trials.index[trials["status"] == "done"])
    for run_id in own.index:
        assert np.mean(bits[run_id]) == pytest.approx(trials.loc[run_id, "val_accuracy"])


@pytest.mark.xdist_group("launch")
def test_status_tells_both_stages(study):
    """In words and for scripts."""
    folder, _, _ = study
    assert json.loads(printed_by("status sweep.yaml --json", folder))["stages"] == {
        "trial": {"planned": 6, "recorded": 6, "pending": 0},
        "final": {"planned": 4, "recorded": 4, "pending": 0},
    }


@pytest.mark.parametrize(("has_job", "message"), [(False, "next: python -m study.launch"), (True, "a job in Slurm's queue")])
def test_status_asks_for_a_launch_only_if_no_job_will_do_it(has_job, message):
    """All trials are recorded and final runs pending: the launch command, unless a job in the queue launches them."""
    sweep = read_sweep(Path(__file__).parents[2] / "sweeps/quickstart.yaml")
    status = SweepStatus(
        done=("trial",),
        diverged=(),
        failed=(),
        running=(),
        queued=(),
        settling=(),
        missing=(),
        pending_jobs={},
        has_next_stage_job=has_job,
    )
    facts = StudyFacts("quickstart", "?", "", {}, (0,), {}, planned_runs=1, sweep_yaml="", overrides=())
    plan = PlanFile(facts, runs=(), pending=(PlannedEntry("final", run={}, cost={}, match={}),))
    (line,) = format_next(sweep, plan, status, runs="runs")
    assert message in line and ("study.launch" in line) != has_job
