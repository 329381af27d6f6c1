"""A plan tells all mistakes at once: those of the file's form hide none of its cells, and nothing is told that only follows."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from study.errors import UserError
from study.planning.sweep_plan import make_plan, read_to_plan

SWEEP = """\
question: which?
device: cpu
data: {name: digits, val_fraction: 0.2}
model: {depth: 2}
train: {epochs: 3, lr: 1e-3}
augment: {crop: 1}
match: {by: params, target: 20k, head_dim: 8}
backbones:
  convmixer: {model: {kernel_size: 3}}
axes:
  backbone: [vit, convmixer, mlp_mixer]
  model.patch_size: [1, 2, 4]
  train.weight_decay: [0.1, 0.2]
exclude:
  - {backbone: vit, model.patch_size: 1}
seeds: [0, 1]
"""

MISTAKES = {  # what is written instead: which line of the file and which key are named for it
    ("device: cpu", "devise: cpu"): (2, "devise"),
    ("name: digits", "name: digit"): (3, "data.name"),
    ("val_fraction", "val_fration"): (3, "data.val_fration"),
    ("depth: 2", "dept: 2"): (4, "model.dept"),
    ("epochs: 3", "epochs: some"): (5, "train.epochs"),
    ("lr: 1e-3", "lrr: 1e-3"): (5, "train.lrr"),
    ("augment: {crop", "augmnt: {crop"): (6, "augmnt"),
    ("crop: 1", "crop: 1, batch_size: 5"): (6, "augment.batch_size"),
    ("by: params", "by: param"): (7, "match.by"),
    ("convmixer: {model", "convmixr: {model"): (9, "backbones"),
    ("kernel_size: 3", "kernel_size: 4"): (9, "model.kernel_size"),
    ("mlp_mixer]", "mlpmixer]"): (11, "backbone"),
    ("[1, 2, 4]", "[1, 2, 3]"): (12, "model.patch_size"),
    ("[0.1, 0.2]", "[0.1, 0.1]"): (13, "axes.train.weight_decay"),
    ("{backbone: vit", "{train.betas: 3"): (15, "train.betas"),
    ("seeds: [0, 1]", "seeds: [0, -1]"): (16, "seeds"),
}
PAIRS = list(itertools.combinations(MISTAKES, 2))


def told(path: Path, *mistakes: tuple[str, str]) -> set[tuple[int, str]]:
    """Line and key of every problem that a plan of the sweep with these mistakes names."""
    text = SWEEP
    for right, wrong in mistakes:
        assert right in text
        text = text.replace(right, wrong, 1)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        make_plan(read_to_plan(path))
    return {(int(problem.place.rpartition(":")[2]), problem.key) for problem in caught.value.problems}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda pair: pair[1])
def test_each_mistake_is_told_at_its_line(tmp_path, mistake):
    """And it alone: what is missing because of it is no second mistake."""
    assert told(tmp_path / "sweep.yaml", mistake) == {MISTAKES[mistake]}


def test_all_mistakes_together_are_told_at_once(tmp_path):
    """Sixteen mistakes, of form and of cells, are sixteen problems of one plan."""
    assert told(tmp_path / "sweep.yaml", *MISTAKES) == set(MISTAKES.values())


def test_no_mistake_hides_another(tmp_path):
    """Of any two, both are told, and nothing else."""
    for first, second in PAIRS:
        assert told(tmp_path / "sweep.yaml", first, second) == {MISTAKES[first], MISTAKES[second]}, (first, second)


def test_nothing_is_planned_from_what_was_guessed(tmp_path):
    """A sweep whose mistakes are all of the kind that can be guessed is refused all the same."""
    assert told(tmp_path / "sweep.yaml", ("seeds: [0, 1]", "seedz: [0, 1]")) == {(16, "seedz")}


def test_problems_come_in_the_files_order(tmp_path):
    """From the first line to the last, as one meets them."""
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.replace("seeds", "seedz").replace("lr:", "lrr:").replace("device", "devise"), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_to_plan(path, ["train.epochs=x"])
    assert [problem.key for problem in caught.value.problems] == ["devise", "train.lrr", "seedz", "train.epochs"]


@pytest.mark.parametrize("given", ["heads=3", "mlp_dim=100", "dim=8", "heads=1"])
def test_what_the_budget_solves_is_said_to_be_solved(tmp_path, given):
    """Whether the value would do or not: that it must divide the width is no help where the width isn't yours."""
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP, encoding="utf-8")
    with pytest.raises(UserError, match="the budget solves the width") as caught:
        make_plan(read_to_plan(path, [f"model.{given}"]))
    assert "divide" not in str(caught.value)


def test_a_default_that_does_not_fit_is_said_to_be_one(tmp_path):
    """Nobody wrote a 5, so nobody can look for it."""
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.replace("backbones:\n  convmixer: {model: {kernel_size: 3}}\n", ""), encoding="utf-8")
    with pytest.raises(UserError, match=r"kernel_size must not exceed .* 5 is the default"):
        make_plan(read_to_plan(path))
