"""Mistakes are reported layer by layer: all of one layer at once, the next layer once these are corrected, no consequences."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from study.config.sweep_file import read_sweep
from study.errors import UserError
from study.planning.sweep_plan import make_plan

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

LAYERS = (  # from the first to the last: what is written instead, and the line and key that are named for it
    {  # the form of the document
        ("device: cpu", "devise: cpu"): (2, "devise"),
        ("augment: {crop", "augmnt: {crop"): (6, "augmnt"),
        ("[0.1, 0.2]", "[0.1, 0.1]"): (13, "axes.train.weight_decay"),
        ("seeds: [0, 1]", "seeds: [0, -1]"): (16, "seeds"),
    },
    {  # rules between its keys
        ("model: {depth: 2}", "model: {depth: 2, patch_size: 1}"): (12, "model.patch_size"),
        ("device: cpu", "recipe: convmixer_25"): (2, "recipe"),
    },
    {  # options of its sections
        ("name: digits", "name: digit"): (3, "data.name"),
        ("val_fraction", "val_fration"): (3, "data.val_fration"),
        ("depth: 2", "dept: 2"): (4, "model.dept"),
        ("epochs: 3", "epochs: some"): (5, "train.epochs"),
        ("lr: 1e-3", "lrr: 1e-3"): (5, "train.lrr"),
        ("crop: 1", "crop: 1, batch_size: 5"): (6, "augment.batch_size"),
        ("by: params", "by: param"): (7, "match.by"),
        ("convmixer: {model", "convmixr: {model"): (9, "backbones"),
        ("mlp_mixer]", "mlpmixer]"): (11, "backbone"),
    },
    {  # models and budgets
        ("epochs: 3", "epochs: 3, batch_size: 5000"): (5, "train.batch_size"),
        ("kernel_size: 3", "kernel_size: 4"): (9, "model.kernel_size"),
        ("[1, 2, 4]", "[1, 2, 3]"): (12, "model.patch_size"),
    },
)
LAYER_OF = {mistake: number for number, layer in enumerate(LAYERS) for mistake in layer}
PLACES = {mistake: place for layer in LAYERS for mistake, place in layer.items()}
PAIRS = [pair for pair in itertools.combinations(PLACES, 2) if pair[0][0] != pair[1][0]]


def find_problems(path: Path, *mistakes: tuple[str, str]) -> set[tuple[int, str]]:
    """Line and key of every problem that is reported for the sweep with these mistakes."""
    text = SWEEP
    for right, wrong in mistakes:
        assert right in text
        text = text.replace(right, wrong, 1)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        make_plan(read_sweep(path))
    return {(int(problem.place.rpartition(":")[2]), problem.key) for problem in caught.value.problems}


@pytest.mark.parametrize("mistake", PLACES, ids=lambda pair: pair[1])
def test_each_mistake_is_reported_at_its_line(tmp_path, mistake):
    """And it alone: what is missing because of it is no second mistake."""
    assert find_problems(tmp_path / "sweep.yaml", mistake) == {PLACES[mistake]}


@pytest.mark.parametrize("layer", LAYERS, ids=("form", "rules", "options", "models"))
def test_all_mistakes_of_a_layer_are_reported_at_once(tmp_path, layer):
    """As many problems as mistakes, at their lines."""
    assert find_problems(tmp_path / "sweep.yaml", *layer) == set(layer.values())


def test_no_mistake_hides_another_of_its_layer(tmp_path):
    """Of any two, those of the first layer are reported, and nothing else."""
    for first, second in PAIRS:
        number = min(LAYER_OF[first], LAYER_OF[second])
        expected = {PLACES[mistake] for mistake in (first, second) if LAYER_OF[mistake] == number}
        assert find_problems(tmp_path / "sweep.yaml", first, second) == expected, (first, second)


def test_an_exclusion_by_an_unknown_option_is_reported(tmp_path):
    """At its line; not where the option itself may be what is misspelt."""
    path, unset = tmp_path / "sweep.yaml", ("{backbone: vit", "{train.betas: 3")
    assert find_problems(path, unset) == {(15, "train.betas")}
    misspelt = ("train.weight_decay: [", "weight_decay: [")
    assert find_problems(path, misspelt, ("{backbone: vit", "{train.weight_decay: 0.1")) == {(13, "weight_decay")}


def test_a_former_name_is_answered_with_the_current_one(tmp_path):
    """In a section as on the command line."""
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.replace("crop: 1", "colour_jitter: 0.1"), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        make_plan(read_sweep(path, ["model.tokeniser=overlap"]))
    assert {(problem.key, problem.rule) for problem in caught.value.problems} == {
        ("augment.colour_jitter", "this option is now called augment.color_jitter"),
        ("model.tokeniser", "this option is now called model.stem"),
    }
    with pytest.raises(UserError, match=r"tune\.axes\.augment\.colour_jitter: this option is now called augment\.color_jitter"):
        read_sweep(path, ["tune.axes.augment.colour_jitter=[0.0,0.1]", "tune.seeds=[7]"])


def test_problems_come_in_the_files_order(tmp_path):
    """From the first line to the last, then those of the command line."""
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.replace("seeds", "seedz").replace("device", "devise"), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_sweep(path, ["epochs=3"])
    assert [problem.key for problem in caught.value.problems] == ["devise", "seedz", "epochs"]


@pytest.mark.parametrize("given", ["heads=3", "mlp_dim=100", "dim=8", "heads=1"])
def test_what_the_budget_solves_is_said_to_be_solved(tmp_path, given):
    """Whether the value would do or not: that it must divide the width is no help where the width isn't yours."""
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP, encoding="utf-8")
    with pytest.raises(UserError, match="the budget solves the width") as caught:
        make_plan(read_sweep(path, [f"model.{given}"]))
    assert "divide" not in str(caught.value)


def test_a_default_that_does_not_fit_is_said_to_be_one(tmp_path):
    """The value 5 is not in the file, so a user could not find it there."""
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.replace("backbones:\n  convmixer: {model: {kernel_size: 3}}\n", ""), encoding="utf-8")
    with pytest.raises(UserError, match=r"kernel_size must not exceed .* 5 is the default"):
        make_plan(read_sweep(path))
