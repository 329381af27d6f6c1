"""A sweep of several data sets, folders among them, from its file to the parts of its report."""

from __future__ import annotations

from pathlib import Path

import pytest
from image_folders import silent, write_folder

from study.analysis.planned_study import read_planned_study
from study.config.sweep_file import read_sweep
from study.data import prepare_dataset
from study.errors import UserError
from study.planning.resolver import collect_data_options
from study.planning.sweep_plan import make_plan


def test_a_folder_goes_by_its_label(tmp_path: Path) -> None:
    """The label stands in the plan and in the answer, changes no run's identity, and can't name two data sets."""
    root = write_folder(tmp_path / "unpacked", size=8)
    text = f"""\
question: which?
data: {{name: folder, root: {root}, cache: {tmp_path / "cache"}, image_size: 8}}
model: {{depth: 1, dim: 16, patch_size: 4, kernel_size: 3}}
train: {{epochs: 1, batch_size: 8}}
axes: {{backbone: [convmixer, vit]}}
seeds: 3
"""
    (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    labelled, plain = (read_sweep(tmp_path / "own.yaml", given) for given in (["data.label=CIFAR-10"], []))
    prepare_dataset(collect_data_options(plain)[0], workers=1, report=silent)
    plan = make_plan(labelled)
    assert plan.finals[0].images.startswith("CIFAR-10 at 8 px")
    assert [run.run_id for run in plan.runs] == [run.run_id for run in make_plan(plain).runs]
    table = read_planned_study(plan.file).table
    assert set(table["data_set"]) == {"CIFAR-10"} and set(table["data_name"]) == {"folder"}
    with pytest.raises(UserError, match="can't share one label"):
        read_sweep(tmp_path / "own.yaml", ["data.label=CIFAR-10", "axes={data.root: [a, b], backbone: [convmixer, vit]}"])


def test_digits_and_two_folders_are_three_blocks_of_a_plan(tmp_path: Path) -> None:
    """The plan names each set without its path, counts its images, and plans the contrasts of each."""
    roots = [write_folder(tmp_path / "secret" / name, size=size) for name, size in (("shapes", 12), ("noise", 8))]
    text = f"""\
question: which?
data: {{cache: {tmp_path / "cache"}, image_size: 8}}
model: {{depth: 1, dim: 16, patch_size: 4, kernel_size: 3}}
train: {{epochs: 1, batch_size: 8}}
zip: [{{data.name: [digits, folder, folder], data.root: [data, {roots[0]}, {roots[1]}]}}]
axes: {{backbone: [convmixer, vit]}}
seeds: 3
"""
    (tmp_path / "sets.yaml").write_text(text, encoding="utf-8")
    sweep = read_sweep(tmp_path / "sets.yaml")
    for options in collect_data_options(sweep):
        prepare_dataset(options, workers=1, report=silent)
    plan = make_plan(sweep).file
    assert plan.facts.factors["root"] == ["data", "shapes", "noise"]
    assert "secret" not in str([entry.data_set for entry in plan.runs])
    findings = read_planned_study(plan)
    assert {part.title: len(part.planned) for part in findings.parts} == {"on digits": 1, "on noise": 1, "on shapes": 1}
    images = {part.title: part.table["test_images"].unique().tolist() for part in findings.parts}
    assert images == {"on digits": [599], "on noise": [18], "on shapes": [18]}
