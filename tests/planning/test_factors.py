"""Every axis that a plan accepts is a column of the run table, and every rule of `exclude` leaves something out."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.config.options import OUTSIDE_IDENTITY
from study.config.sweep_file import read_sweep
from study.config.yaml_source import OPTIONS
from study.errors import UserError
from study.planning.sweep_plan import Plan, make_plan
from study.records.columns import name_column, planned_columns

SWEEP = """\
question: which?
data: {name: digits}
model: {depth: 1, kernel_size: 3}
train: {epochs: 1}
match: {by: params, target: 5k, tolerance: 40%, head_dim: 4}
axes:
  backbone: [vit, convmixer]
  model.patch_size: [2, 4]
seeds: [0, 1]
"""


def plan(folder: Path, *overrides: str, text: str = SWEEP) -> Plan:
    path = folder / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    return make_plan(read_sweep(path, overrides))


def axis(key: str, levels: str) -> str:
    """The sweep with another axis, for which its fixed value gives way."""
    fixed = {"match.head_dim": ", head_dim: 4", "match.target": ", target: 5k"}
    return SWEEP.replace(fixed.get(key, "\0"), "").replace("seeds:", f"  {key}: {levels}\nseeds:")


@pytest.mark.parametrize(
    ("key", "levels"),
    [
        ("data.val_fraction", "[0.1, 0.2]"),
        ("data.train_images", "[200, 300]"),
        ("data.image_size", "[null, 16]"),
        ("data.split", "[fixed, by_seed]"),
        ("match.head_dim", "[4, 8]"),
        ("match.target", "[5k, 8k]"),
        ("train.betas", "[[0.9, 0.99], [0.9, 0.999]]"),
        ("augment.flip", "[true, false]"),
    ],
)
def test_an_axis_is_a_column_in_which_its_levels_differ(key: str, levels: str, tmp_path: Path) -> None:
    """Within a backbone, patch size and seed, runs of two levels are told apart by the axis's column alone."""
    found = plan(tmp_path, text=axis(key, levels))
    assert any(name_column(name) == name_column(key) for name in found.file.facts.factors)
    cells = {}
    for planned in found.runs:
        row = planned_columns(planned.entry)
        cells.setdefault((row["backbone"], row["patch_size"], row["seed"], str(row[name_column(key)])), []).append(
            row["run_id"]
        )
    assert all(len(run_ids) == 1 for run_ids in cells.values()) and len({cell[-1] for cell in cells}) == 2


@pytest.mark.parametrize(
    "key",
    [
        f"{section}.{name}"
        for section, group in OPTIONS.items()
        for name, field in group.model_fields.items()
        if field.json_schema_extra == OUTSIDE_IDENTITY and name not in ("root", "start")  # data sets, and weights to start from
    ]
    + ["train.read_test"],
)
def test_what_the_table_has_no_column_for_is_no_axis(key: str, tmp_path: Path) -> None:
    """Paths and what is kept or distributed: refused with line and reason, before anything is trained."""
    with pytest.raises(UserError) as refused:
        plan(tmp_path, text=axis(key, "[a, b]"))
    [problem] = refused.value.problems
    assert problem.key == key and problem.place.endswith("sweep.yaml:9")
    assert any(word in problem.rule for word in ("changes no result", "nothing to compare"))


def test_levels_that_the_table_cannot_tell_apart_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An axis whose column is the same for two runs, as of an option that some later version forgets to make a column."""
    monkeypatch.setattr("study.records.columns.OMITTED", {"data": {"val_fraction"}, "model": {}, "augment": {}, "train": {}})
    monkeypatch.setattr("study.planning.sweep_plan.name_column", lambda key: "x" if key.endswith("fraction") else key)
    with pytest.raises(UserError, match=r"data.val_fraction: the run table couldn't tell these levels apart"):
        plan(tmp_path, text=axis("data.val_fraction", "[0.1, 0.101]"))


def test_a_level_null_is_refused_with_what_to_write_instead(tmp_path: Path) -> None:
    """In the table it would look like a cell without the option; null that stands for a number is a level."""
    with pytest.raises(UserError, match=r"sweep.yaml:9: train.grad_clip: null is no level.*1e9"):
        plan(tmp_path, text=axis("train.grad_clip", "[null, 0.01]"))
    assert len(plan(tmp_path, text=axis("train.grad_clip", "[1e9, 0.01]")).runs) == 16


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("{backbone: vti}", ("no cell has this value", "valid: convmixer, vit", "did you mean 'vit'")),
        ("{model.patch_size: 1}", ("no cell has this value", "valid: 2, 4")),
        ("{model.patch_size: true}", ("no cell has this value",)),
        ("{backbone: vit, model.depth: 2}", ("model.depth: exclude leaves nothing out",)),
        ("{data.train_images: 1000}", ("valid: 1k, 500",)),
        ("{backbone: vit, model.patch_size: '2'}", ("model.patch_size: exclude leaves nothing out",)),
    ],
)
def test_a_rule_of_exclude_that_matches_nothing_is_an_error(rule: str, told: tuple[str, ...], tmp_path: Path) -> None:
    """A misspelt or absent level, another spelling of a number: the full grid would be trained in silence."""
    text = axis("data.train_images", "[1k, 500]") + f"exclude: [{{backbone: vit, model.patch_size: 2}}, {rule}]\n"
    with pytest.raises(UserError) as refused:
        plan(tmp_path, text=text)
    for words in told:
        assert words in str(refused.value)
    assert len(refused.value.problems) == 1


def test_values_that_never_stand_together_are_named(tmp_path: Path) -> None:
    """Each value occurs, but in no cell both."""
    text = SWEEP.replace("axes:", "zip: [{train.lr: [1e-3, 1e-2], train.eps: [1e-8, 1e-7]}]\naxes:")
    assert len(plan(tmp_path, text=text + "exclude: [{train.lr: 1e-3, train.eps: 1e-8}]\n").runs) == 8
    with pytest.raises(UserError, match="no cell has all of these values together"):
        plan(tmp_path, text=text + "exclude: [{train.lr: 1e-3, train.eps: 1e-7}]\n")


def test_an_override_may_leave_nothing_to_exclude(tmp_path: Path) -> None:
    """A file's rule about patch size 4 is no mistake where the command line leaves patch size 2 alone."""
    text = SWEEP + "exclude: [{backbone: vit, model.patch_size: 4}]\n"
    assert len(plan(tmp_path, text=text).runs) == 6
    assert len(plan(tmp_path, "model.patch_size=[2]", text=text).runs) == 4
    assert len(plan(tmp_path, "backbone=convmixer", text=text).runs) == 4
