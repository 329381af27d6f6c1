"""What was lost or damaged in a sweep's folder is named, with what to do; a launch repairs what it can write anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from study import cancel, launch, report, status
from study.config.sweep_file import read_sweep
from study.launcher.assignment import enter, new_launch, not_kept
from study.planning.sweep_plan import Plan, make_plan
from study.records.predictions import keep_predictions
from study.records.record import Record
from study.records.sweep_folder import Lines, SweepFolder, Writer

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
    enter(new_launch(plan(), RUNS, cluster="local", workers=1), plan(), RUNS, runs=plan().runs)


def of_launch(name: str) -> Path:
    return RUNS.launches / RUNS.launch_ids()[0] / name


def record(run_id: str) -> None:
    lines = Lines(RUNS.records / "20260101t000000x0000-0-0.jsonl")
    lines.append(Record(run_id, "done", run={}, cost={}, match={}).to_json())
    lines.close()


def of_another_version() -> Path:
    path = of_launch("launch.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "colour": "blue"}))
    return path


def damaged_launch() -> Path:
    of_launch("launch.json").write_text("{", encoding="utf-8")
    return of_launch("launch.json")


def lost_shares() -> Path:
    of_launch("runs.json").unlink()
    return of_launch("runs.json")


def told(capsys, main: Callable[[list[str]], int], words: list[str], *, code: int = 2) -> str:
    assert main(words) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err if code else captured.out


@pytest.mark.parametrize(
    ("damage", "main", "words"),
    [
        (of_another_version, status.main, ["sweep.yaml"]),
        (of_another_version, launch.main, DRY),
        (of_another_version, cancel.main, ["sweep.yaml"]),
        (damaged_launch, status.main, ["sweep.yaml"]),
        (damaged_launch, launch.main, DRY),
        (damaged_launch, report.main, ["sweep.yaml"]),
        (lost_shares, status.main, ["sweep.yaml"]),
    ],
)
def test_a_damaged_launch_is_named_with_what_to_do(capsys, damage, main, words):
    """The file and a way out, status 2; nobody is told to throw records away."""
    path = damage()
    screen = told(capsys, main, words)
    assert str(path) in screen and "move the launch's folder away" in screen and "records" in screen


@pytest.mark.parametrize("lose", [lambda path: path.unlink(), lambda path: path.write_text("{", encoding="utf-8")])
def test_a_lost_plan_is_written_anew_by_the_launch(capsys, lose):
    """Status says so, and the same launch repairs it though nothing is left to train."""
    lose(RUNS.plans / f"{plan().digest}.json")
    assert "type the newest launch again" in told(capsys, status.main, ["sweep.yaml"])
    launch._note_plan(plan(), RUNS, earlier=RUNS.launch_ids())
    assert "0 of 2 runs done" in told(capsys, status.main, ["sweep.yaml"], code=0)
    assert len(RUNS.launch_ids()) == 1


@pytest.mark.parametrize("main", [status.main, cancel.main, report.main])
def test_without_a_launch_the_command_that_launches_is_told(capsys, main):
    """As it would have to be typed here, with the settings and the folder."""
    shutil.rmtree(RUNS.launches)
    screen = told(capsys, main, ["sweep.yaml", "seeds=[0]", "--runs", "runs"])
    assert "next: python -m study.launch sweep.yaml seeds=1" in screen


def test_a_plan_from_before_there_were_trials_can_be_cancelled(capsys):
    """Its runs say nothing of stages: they are final ones."""
    path = RUNS.plans / f"{plan().digest}.json"
    document = json.loads(path.read_text())
    old = [{key: value for key, value in run.items() if key not in ("stage", "cell", "trials")} for run in document["runs"]]
    del document["pending"]
    path.write_text(json.dumps({**document, "runs": old}))
    for where in (["--where", "backbone=vit"], ["--where", "stage=final"], []):
        assert "nothing of this is queued or running" in told(capsys, cancel.main, ["sweep.yaml", *where], code=0)


def test_what_asks_to_be_kept_of_recorded_runs_is_told(capsys):
    """Neither option makes another run; one run has what it asks for, of the other it is said that nothing is kept."""
    first, second = [planned.run_id for planned in plan().runs]
    asked = plan("train.keep=last", "data.predictions=true")
    assert [planned.run_id for planned in asked.runs] == [first, second]
    assert not_kept(asked, RUNS) == {}  # of what is yet to be trained all will be kept
    record(first)
    assert not_kept(asked, RUNS) == {"train.keep": [first], "data.predictions": [first]}
    assert not_kept(plan(), RUNS) == {}
    screen = told(capsys, launch.main, [*DRY, "train.keep=last"], code=0)
    assert f"1 recorded run was trained without train.keep, so nothing is kept, e.g. of {first}" in screen
    assert "name=ANOTHER" in screen
    one = np.zeros(1)
    keep_predictions(RUNS, Writer("launch", 0, 0), run_id=first, image=one, label=one, predicted=one, probability=one)
    RUNS.weights.mkdir()
    (RUNS.weights / f"{first}.safetensors").touch()
    assert not_kept(asked, RUNS) == {}


def test_a_worker_that_never_began_is_told_as_that(capsys):
    """Ctrl-C right after a local launch: nobody here submits anything, so nothing is said of submitting."""
    screen = told(capsys, status.main, ["sweep.yaml"], code=0)
    assert "the launch ended before its worker had begun" in screen and "submitted" not in screen
    assert "next: python -m study.launch sweep.yaml" in screen
