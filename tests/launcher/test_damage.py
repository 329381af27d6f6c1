"""Missing and damaged files of a sweep are named, with how to recover; a launch repairs what it can write again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from specimens import RUN

from study import cancel, launch, report, status
from study.config.sweep_file import read_sweep
from study.launcher.assignment import assign_runs, draft_launch, find_unsaved_outputs
from study.planning.sweep_plan import Plan, make_plan
from study.records.predictions import write_predictions
from study.records.record import Record, Result
from study.records.sweep_folder import JsonLinesWriter, SweepFolder, Writer

SWEEP = """\
question: what is left of it?
device: cpu
data: {name: digits}
backbone: vit
model: {depth: 1, dim: 8, heads: 1, patch_size: 4}
train: {epochs: 1}
seeds: [0, 1]
"""
RUNS = SweepFolder(Path("runs/sweep"))
DRY = ["sweep.yaml", "--cluster", "local", "--dry-run"]


def plan(*overrides: str) -> Plan:
    return make_plan(read_sweep(Path("sweep.yaml"), overrides))


@pytest.fixture(autouse=True)
def launched(tmp_path, monkeypatch) -> None:
    """A folder with a launch of both runs, whose worker is gone."""
    monkeypatch.chdir(tmp_path)
    Path("sweep.yaml").write_text(SWEEP, encoding="utf-8")
    assign_runs(draft_launch(plan(), RUNS, cluster="local", workers=1), plan(), RUNS, runs=plan().runs)


def of_launch(name: str) -> Path:
    return RUNS.launches / RUNS.launch_ids()[0] / name


def record(run_id: str) -> None:
    lines = JsonLinesWriter(RUNS.records / "20260101t000000x0000-0-0.jsonl")
    lines.append(Record(run_id, "done", RUN, {}, {}, Result(val_accuracy=0.5)).to_json())
    lines.close()


def write_unknown_version() -> Path:
    path = of_launch("launch.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "colour": "blue"}))
    return path


def damage_launch() -> Path:
    of_launch("launch.json").write_text("{", encoding="utf-8")
    return of_launch("launch.json")


def remove_run_list() -> Path:
    of_launch("runs.json").unlink()
    return of_launch("runs.json")


def output(capsys, main: Callable[[list[str]], int], words: list[str], *, code: int = 2) -> str:
    assert main(words) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err if code else captured.out


@pytest.mark.parametrize(
    ("damage", "main", "words"),
    [
        (write_unknown_version, status.main, ["sweep.yaml"]),
        (write_unknown_version, launch.main, DRY),
        (write_unknown_version, cancel.main, ["sweep.yaml"]),
        (damage_launch, status.main, ["sweep.yaml"]),
        (damage_launch, launch.main, DRY),
        (damage_launch, report.main, ["sweep.yaml"]),
        (remove_run_list, status.main, ["sweep.yaml"]),
    ],
)
def test_a_damaged_launch_is_named_with_how_to_recover(capsys, damage, main, words):
    """The file and how to recover, status 2, without deleting records."""
    path = damage()
    screen = output(capsys, main, words)
    assert str(path) in screen and "move the launch's folder away" in screen and "records" in screen


@pytest.mark.parametrize("lose", [lambda path: path.unlink(), lambda path: path.write_text("{", encoding="utf-8")])
def test_a_lost_plan_is_written_again_by_the_launch(capsys, lose):
    """Status says so, and the same launch repairs it even if nothing is left to train."""
    lose(RUNS.plans / f"{plan().digest}.json")
    assert "run the newest launch again" in output(capsys, status.main, ["sweep.yaml"])
    launch.record_plan(plan(), RUNS, earlier=RUNS.launch_ids())
    assert "0 of 2 runs done" in output(capsys, status.main, ["sweep.yaml"], code=0)
    assert len(RUNS.launch_ids()) == 1


@pytest.mark.parametrize("main", [status.main, cancel.main, report.main])
def test_without_a_launch_the_launch_command_is_shown(capsys, main):
    """With the overrides and the folder."""
    shutil.rmtree(RUNS.launches)
    screen = output(capsys, main, ["sweep.yaml", "seeds=[0]", "--runs", "runs"])
    assert "next: python -m study.launch sweep.yaml seeds=1" in screen


def test_a_plan_from_before_there_were_trials_can_be_cancelled(capsys):
    """Its runs have no stage: they are final ones."""
    path = RUNS.plans / f"{plan().digest}.json"
    document = json.loads(path.read_text())
    old = [{key: value for key, value in run.items() if key not in ("stage", "cell", "trials")} for run in document["runs"]]
    del document["pending"]
    path.write_text(json.dumps({**document, "runs": old}))
    for where in (["--where", "backbone=vit"], ["--where", "stage=final"], []):
        assert "no matching runs are queued or running" in output(capsys, cancel.main, ["sweep.yaml", *where], code=0)


def test_unsaved_outputs_of_recorded_runs_are_reported(capsys):
    """No such option makes another run; the recorded run lacks their outputs until they are on disk."""
    first, second = [planned.run_id for planned in plan().runs]
    asked = plan("train.keep=last", "data.predictions=true")
    assert [planned.run_id for planned in asked.runs] == [first, second]
    assert find_unsaved_outputs(asked, RUNS) == {}  # both runs will still be trained
    record(first)
    lacking = {"train.keep": [first], "data.correctness": [first], "data.predictions": [first]}
    assert find_unsaved_outputs(asked, RUNS) == lacking
    assert find_unsaved_outputs(plan("data.correctness=false"), RUNS) == {}
    screen = output(capsys, launch.main, [*DRY, "train.keep=last"], code=0)
    assert f"1 recorded run was trained without train.keep, e.g. {first}: that output is missing" in screen
    assert "name=..." in screen
    one = np.zeros(1)
    write_predictions(RUNS, Writer("launch", 0, 0), run_id=first, image=one, label=one, predicted=one, probability=one)
    RUNS.weights.mkdir()
    (RUNS.weights / f"{first}.safetensors").touch()
    assert find_unsaved_outputs(asked, RUNS) == {"data.correctness": [first]}


def test_a_worker_that_never_started(capsys):
    """Ctrl-C right after a local launch: status doesn't mention submission."""
    screen = output(capsys, status.main, ["sweep.yaml"], code=0)
    assert "the launch ended before its worker had started" in screen and "submitted" not in screen
    assert "next: python -m study.launch sweep.yaml" in screen
