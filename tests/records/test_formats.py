"""What version 0.1.0 left on disk, under the former names of options, still belongs to its study.

`kept_v1` was made with that version: a tuned sweep over `model.tokeniser`, with trials over `augment.colour_jitter`, trained,
benchmarked and reported. The table of its report is the oracle here.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from specimens import RUN

from study.analysis.report_files import read_report_folder
from study.analysis.report_tables import prepare_for_publication
from study.backbones import get_spec_class, names
from study.config.formats import ADDED_OPTIONS, FORMAT, upgrade
from study.config.run import Run
from study.config.sweep_file import read_sweep
from study.data import describe_dataset
from study.data.cache import StoredArrays
from study.data.dataset_info import SourceInfo
from study.data.digits import read_digits
from study.data.images import mean_and_std, sum_moments
from study.data.splits import load_splits
from study.errors import UserError
from study.launch import main as launch
from study.launcher.assignment import describe_excluded_records
from study.planning.runtime_estimate import estimate_seconds
from study.planning.sweep_plan import make_plan
from study.planning.trials import make_plan_so_far
from study.records import load_correctness, load_study, load_table, load_trials
from study.records.benchmark_file import newest_benchmark, read_benchmark
from study.records.journal import find_last_states, read_journals
from study.records.ledger import read_assignees, read_launches, read_share
from study.records.plan_file import read_plan
from study.records.record import Record, Result, read_records
from study.records.selection import read_selection
from study.records.sweep_folder import SweepFolder
from study.training.checkpoint import Checkpoints
from study.training.device import DeviceChoice
from study.training.engine import train
from study.training.outcome import Outcome
from study.training.saved_weights import read_saved_weights

KEPT = Path(__file__).parent / "kept_v1"
RUNS = KEPT / "runs/renamed"
SWEEP = """
question: Are runs that were recorded under the former names of options still theirs?
expected: they are
data: {name: digits, split: fixed}
match: {by: params, target: 2k, tolerance: 30%, head_dim: 4}
backbone: vit
model: {depth: 1, patch_size: 2, initialization: paper}
train: {epochs: 1, batch_size: 64, lr: 1e-3, keep: last}
axes:
  model.stem: [patchify, conv]
tune:
  axes: {augment.color_jitter: [0.0, 0.2]}
  seeds: [100]
seeds: [0]
"""


def read_former_digits(image_size: int) -> tuple[SourceInfo, StoredArrays]:
    """The digits of version 0.1, of which 360 were test images and the digest didn't cover which."""
    source, parts = read_digits(image_size)
    kinds = [{"all": np.concatenate([kind["test"], kind["train"]])} for kind in (parts.images, parts.labels, parts.order)]
    images, labels, order = ({"test": kind["all"][:360], "train": kind["all"][360:]} for kind in kinds)
    back = np.argsort(kinds[2]["all"])
    digest = hashlib.sha256(kinds[0]["all"][back].tobytes() + kinds[1]["all"][back].tobytes()).hexdigest()
    mean, std = mean_and_std(sum_moments(images["train"]), images["train"].size)
    former = replace(source, digest=digest, train_images=1437, test_images=360, mean=mean, std=std)
    return former, StoredArrays(images=images, labels=labels, order=order)


@pytest.fixture
def upgraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kept runs, with their sweep as it is written now and the digits as they were divided then."""
    monkeypatch.setattr("study.data.digits.read_digits", read_former_digits)
    shutil.copytree(KEPT / "runs", tmp_path / "runs")
    (tmp_path / "renamed.yaml").write_text(SWEEP)
    return tmp_path


def common(now: pd.DataFrame, then: pd.DataFrame) -> list[str]:
    """Columns of both; the seconds lost are computed from progress files, which were not kept."""
    return [name for name in now if name in then and name != "lost_seconds"]


def test_tables_have_the_figures_of_the_report_made_then() -> None:
    """Runs and trials: the same rows, figures and levels as in the committed tables, under the current names."""
    then = read_report_folder(KEPT / "report")
    for now, before in ((load_table(RUNS), then.table), (load_trials(RUNS), then.trials)):
        assert {"stem", "color_jitter", "initialization", "test_accuracy", "train_step_seconds"} <= {*common(now, before)}
        columns = common(now, before)
        pd.testing.assert_frame_equal(prepare_for_publication(now)[columns], before[columns], check_exact=True)
        assert set(now["status"]) == {"done"} and set(now["stem"]) == {"patchify", "conv"}
    assert not {"tokeniser", "initialisation", "colour_jitter"} & {*load_table(RUNS), *then.table, *then.trials}
    assert load_trials(RUNS)["selected"].sum() == 2


def test_facts_of_a_committed_table_are_those_of_the_runs() -> None:
    """Factors and tuned levels under current names, from the plan and from the report's folder."""
    then, now = read_report_folder(KEPT / "report"), load_study(RUNS)
    assert then.facts.factors == now.factors == {"stem": ["patchify", "conv"]}
    assert then.facts.tuned == now.tuned == {"color_jitter": [0.0, 0.2]}
    assert then.facts.effect_of_interest is None and now.effect_of_interest is None
    assert then.factors == ["stem"] and then.tuned == ["color_jitter"]


def test_a_plan_made_now_has_the_recorded_runs(upgraded: Path) -> None:
    """Run ids, cells and the selection are those of the old version: all runs of the plan are recorded, none pends."""
    folder = SweepFolder(upgraded / "runs/renamed")
    plan = make_plan_so_far(read_sweep(upgraded / "renamed.yaml"), folder)
    recorded = read_records(folder.records)
    assert not plan.pending and {planned.run_id for planned in plan.runs} == set(recorded)
    assert all(planned.run == Run.from_json(recorded[planned.run_id].record.run) for planned in plan.runs)
    assert {planned.run.augment.color_jitter for planned in plan.finals} == {0.2}


def test_a_recorded_run_is_trained_again_as_it_was(upgraded: Path, tmp_path: Path) -> None:
    """The fixed split's images in the same order: curves and accuracies of a recorded run are repeated, within rounding."""
    [attempt] = [each for each in read_records(RUNS / "records").values() if each.record.run_id == "vit-p2-d12-s0-c320b3c3c8"]
    run, record = Run.from_json(attempt.record.run), attempt.record
    images = load_splits(run.data, describe_dataset(run.data))
    checkpoints = Checkpoints(tmp_path / "checkpoints", run.run_id, "writer")
    quiet = {"stop": lambda: False, "report": lambda *_: None}
    outcome = train(run, images, device=DeviceChoice("cpu"), checkpoints=checkpoints, **quiet)
    assert isinstance(outcome, Outcome) and run.run_id == record.run_id
    assert outcome.test_accuracy == pytest.approx(record.result.test_accuracy, abs=1.1 / 360)
    for name in ("train_loss", "val_loss"):
        if name in record.curves:
            assert outcome.curves[name] == pytest.approx(record.curves[name], rel=1e-4)


def test_records_that_had_another_split_or_other_test_images_are_named(
    upgraded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of six recorded runs none is planned: the reason is said, and the option that keeps them where there is one."""
    folder, path = SweepFolder(upgraded / "runs/renamed"), upgraded / "renamed.yaml"
    by_seed = make_plan(read_sweep(path, ["data.split=by_seed"]))
    count = len(read_records(folder.records))
    assert describe_excluded_records(make_plan_so_far(read_sweep(path), folder), folder) == []
    [line] = describe_excluded_records(by_seed, folder)
    assert line.startswith(f"{count} recorded runs of this sweep not in this plan: data.split is by_seed;")
    assert "`data.split=fixed` keeps them" in line
    with pytest.raises(UserError, match=r"with the fixed split, that of data\.split=fixed"):
        make_plan_so_far(read_sweep(path, ["data.split=by_seed"]), folder)
    monkeypatch.undo()
    [line] = describe_excluded_records(make_plan(read_sweep(path)), folder)
    assert (
        line
        == f"{count} recorded runs of this sweep not in this plan: their data set has other images now, or other test images"
    )


def test_a_launch_has_nothing_left_to_train(upgraded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The upgraded command trains no run again, and its plan is the newest one."""
    assert launch([str(upgraded / "renamed.yaml"), "--runs", str(upgraded / "runs"), "--cluster", "local"]) == 0
    assert "Nothing is left to start." in capsys.readouterr().out
    assert len(list((upgraded / "runs/renamed/records").iterdir())) == 2
    assert list(load_table(upgraded / "runs/renamed")["status"]) == ["done", "done"]


def test_a_benchmark_and_saved_weights_are_read(upgraded: Path) -> None:
    """The benchmark knows the plan's architectures, and saved weights their run."""
    folder = SweepFolder(upgraded / "runs/renamed")
    plan, benchmark = make_plan_so_far(read_sweep(upgraded / "renamed.yaml"), folder), newest_benchmark(folder.benchmarks)
    assert benchmark is not None
    measured = estimate_seconds(plan.trials, benchmark)
    assert len({trial.architecture for trial in plan.trials if trial.run_id in measured}) == 2
    [path] = folder.weights.iterdir()
    kept = read_saved_weights(path)
    assert kept is not None and kept.run.run_id == path.stem and kept.run.model.initialization == "paper"


def test_every_option_added_to_backbones_has_its_neutral_value_listed(upgraded: Path) -> None:
    """Otherwise benchmarks of earlier versions would know no architecture of a plan made now."""
    benchmark = newest_benchmark(SweepFolder(upgraded / "runs/renamed").benchmarks)
    assert benchmark is not None
    added = {}
    for name in names():
        for option, field in get_spec_class(name).model_fields.items():
            if isinstance(field.json_schema_extra, dict) and option not in benchmark.architectures[0].model:
                added[option] = field.json_schema_extra["neutral"]
    assert added == ADDED_OPTIONS


def test_records_name_their_format_and_later_ones_are_refused(tmp_path: Path) -> None:
    """What is written now is of this format; what a later version wrote is refused with its place."""
    record = Record("vit-1", "done", run=RUN, cost={}, match={}, result=Result(val_accuracy=0.5)).to_json()
    assert record["format"] == FORMAT and upgrade(record) is record
    (tmp_path / "a-0-0.jsonl").write_text(json.dumps({**record, "format": FORMAT + 1}) + "\n")
    with pytest.raises(UserError, match=rf"a-0-0.jsonl:1: format {FORMAT + 1} is of a later version"):
        read_records(tmp_path)
    for name, read in (("selection.json", lambda _: read_selection(SweepFolder(tmp_path))), ("b.json", read_benchmark)):
        (tmp_path / name).write_text(json.dumps({"format": FORMAT + 1}))
        with pytest.raises(UserError, match=rf"{name}: format {FORMAT + 1} is of a later version"):
            read(tmp_path / name)
    save_file(
        {"w": torch.zeros(1)},
        tmp_path / "a.safetensors",
        metadata=dict.fromkeys(("run", "mean", "std", "class_names"), f'{{"format": {FORMAT + 1}}}'),
    )
    with pytest.raises(UserError, match=rf"a.safetensors: format {FORMAT + 1} is of a later version"):
        read_saved_weights(tmp_path / "a.safetensors")


def test_overrides_of_a_former_plan_are_shown_in_current_names(tmp_path: Path) -> None:
    """So that the command that is suggested next is one that this version accepts."""
    [path, *_] = (RUNS / "plans").glob("*.json")
    document = json.loads(path.read_text())
    document["study"]["overrides"] = ["model.tokeniser=[patchify, conv_stem]", "augment.colour_jitter=0.2", "seeds=2"]
    (tmp_path / "plan.json").write_text(json.dumps(document))
    expected = ("model.stem=[patchify, conv]", "augment.color_jitter=0.2", "seeds=2")
    assert read_plan(tmp_path / "plan.json", hint="").facts.overrides == expected


# ---- Version 0.2: `kept_v2` was made with it, as `kept_v1` with the one before ---------------------------------------------

KEPT_V2 = KEPT.with_name("kept_v2")
RUNS_V2 = KEPT_V2 / "runs/kept"


def test_what_version_2_wrote_belongs_to_its_plan_and_gives_its_tables(tmp_path: Path) -> None:
    """The plan made now has the recorded runs; records and the report's tables, written then, have the same rows."""
    then = read_report_folder(KEPT_V2 / "report")
    for now, before in ((load_table(RUNS_V2), then.table), (load_trials(RUNS_V2), then.trials)):
        columns = common(now, before)
        assert {"stem", "color_jitter", "test_accuracy", "status"} <= {*columns} and set(now["status"]) == {"done"}
        pd.testing.assert_frame_equal(prepare_for_publication(now)[columns], before[columns], check_exact=True)
    assert load_study(RUNS_V2).factors == then.facts.factors and load_study(RUNS_V2).effect_of_interest == 2
    now, before = (found[found["split"] == "test"]["correct"] for found in (load_correctness(RUNS_V2), then.correctness))
    assert now.tolist() == before.tolist() and len(now) == 4
    shutil.copytree(RUNS_V2, tmp_path / "kept")
    folder = SweepFolder(tmp_path / "kept")
    plan = make_plan_so_far(read_sweep(KEPT_V2 / "kept.yaml"), folder)
    assert not plan.pending and {planned.run_id for planned in plan.runs} == set(read_records(folder.records))


def test_a_launch_of_version_2_is_read() -> None:
    """Its workers, their shares and how their runs were executed; a launch now would execute them alike."""
    folder = SweepFolder(RUNS_V2)
    launches = read_launches(folder)
    assert [(launch.cluster, launch.tasks, launch.threads, launch.changes) for launch in launches] == [("local", 1, 2, ())] * 2
    shares = [read_share(folder, (launch.id, 0)) for launch in launches]
    assert [[entry.run_id for entry in share] for share in shares] == [
        list(read_assignees(folder, launch.id)) for launch in launches
    ]
    assert all(Run.from_json(entry.planned.run).run_id == entry.run_id for share in shares for entry in share)
    assert find_last_states(read_journals(folder)).keys() == {(launch.id, 0) for launch in launches}


@pytest.mark.parametrize("name", ["plans/*.json", "report/study.json"])
def test_later_plans_and_reports_are_refused_by_name(name: str, tmp_path: Path) -> None:
    """The file, its format and the newest one that is known."""
    shutil.copytree(RUNS_V2, tmp_path / "kept")
    shutil.copytree(KEPT_V2 / "report", tmp_path / "kept" / "report")
    paths = sorted((tmp_path / "kept").glob(name))
    for path in paths:
        path.write_text(json.dumps({**json.loads(path.read_text()), "format": FORMAT + 1}))
    read = read_report_folder if name.startswith("report") else load_study
    with pytest.raises(UserError, match=rf"{paths[0].suffix}: format {FORMAT + 1} is of a later version"):
        read(tmp_path / "kept" / "report" if name.startswith("report") else tmp_path / "kept")
