"""The plan resolves everything or says why not; what it promises is what is built."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from study.backbones import build_backbone
from study.config.run import Run
from study.config.sweep_file import read_sweep
from study.errors import UserError
from study.planning.sweep_plan import make_plan
from study.records.plan_file import read_plan
from study.records.sweep_folder import write_new

SWEEP = """\
question: which?
data: {name: digits}
model: {depth: 2}
train: {epochs: 3, lr: 1e-3}
match: {by: params, target: 20k, head_dim: 8}
backbones:
  convmixer: {model: {kernel_size: 3}}
axes:
  backbone: [vit, convmixer, mlp_mixer]
  model.patch_size: [1, 2, 4]
seeds: [0, 1]
"""


def planned(tmp_path: Path, *overrides: str, text: str = SWEEP):
    path = tmp_path / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    return make_plan(read_sweep(path, overrides))


def mistakes(tmp_path: Path, *overrides: str, text: str = SWEEP) -> str:
    with pytest.raises(UserError) as caught:
        planned(tmp_path, *overrides, text=text)
    return "\n".join(map(str, caught.value.problems))


def test_the_grid_is_crossed_with_the_seeds(tmp_path):
    """Three backbones, three patch sizes, two seeds: 18 runs of 9 architectures, every identity once."""
    plan = planned(tmp_path)
    assert len(plan.runs) == 18
    assert len({run.run_id for run in plan.runs}) == 18
    assert len({run.architecture for run in plan.runs}) == 9


def test_splits_are_by_seed_unless_a_sweep_says_otherwise(tmp_path):
    """A run without the option, as 0.1 recorded it, had the fixed split; a sweep without it gets `by_seed`."""
    assert {each.run.data.split for each in planned(tmp_path).runs} == {"by_seed"}
    fixed = planned(tmp_path, "data.split=fixed", "seeds=1").runs[0].run
    document = fixed.to_json()
    del document["data"]["split"]
    assert Run.from_json(document) == fixed


def test_budgets_are_met_by_what_is_built(tmp_path):
    """The parameters of the built module, not of a formula, are within the tolerance of the target that the plan states."""
    assert planned(tmp_path).file.facts.match == {"by": "params", "target": 20_000, "tolerance": 0.02}
    for run in planned(tmp_path, "seeds=1").runs:
        built = sum(p.numel() for p in build_backbone(run.run.model).parameters())
        assert built == run.cost.params
        assert abs(built / 20_000 - 1) <= 0.02
        assert run.match.residual == pytest.approx(built / 20_000 - 1)
        assert run.match.tolerance == 0.02


def test_runs_survive_the_way_to_a_worker(tmp_path):
    """A share is JSON: what comes out of it has the identity that was planned."""
    for run in planned(tmp_path).runs:
        assert Run.from_json(json.loads(json.dumps(run.entry.to_json()))["run"]).run_id == run.run_id


def test_an_axis_that_a_backbone_lacks_merges_its_runs(tmp_path):
    """kernel_size is no option of vit: its levels are one run there, and the plan counts what it merged."""
    text = SWEEP.replace("model.patch_size: [1, 2, 4]", "model.kernel_size: [3, 5]")
    text = text.replace("model: {depth: 2}", "model: {depth: 2, patch_size: 2}")
    plan = planned(tmp_path, text=text.replace("backbones:\n  convmixer: {model: {kernel_size: 3}}\n", ""))
    counts = {name: sum(run.run.backbone == name for run in plan.runs) for name in ("vit", "convmixer", "mlp_mixer")}
    assert counts == {"vit": 2, "convmixer": 4, "mlp_mixer": 2}
    assert plan.merged == 4


def test_merged_runs_keep_the_place_of_the_first(tmp_path):
    """Where the axis that vit lacks varies slowest, vit's merged run comes first as in the grid, not last."""
    text = SWEEP.replace("axes:\n", "axes:\n  model.kernel_size: [3, 5]\n").replace("  model.patch_size: [1, 2, 4]\n", "")
    text = text.replace("model: {depth: 2}", "model: {depth: 2, patch_size: 2}")
    text = text.replace("backbones:\n  convmixer: {model: {kernel_size: 3}}\n", "")
    plan = planned(tmp_path, "seeds=1", text=text)
    assert [run.run.backbone for run in plan.runs] == ["vit", "convmixer", "mlp_mixer", "convmixer"]
    assert plan.runs[0].levels["model.kernel_size"] == 3


def test_the_order_of_axes_changes_no_identity(tmp_path):
    """Axes in another order give the same runs."""
    swapped = SWEEP.replace(
        "  backbone: [vit, convmixer, mlp_mixer]\n  model.patch_size: [1, 2, 4]\n",
        "  model.patch_size: [4, 1, 2]\n  backbone: [mlp_mixer, vit, convmixer]\n",
    )
    assert {r.run_id for r in planned(tmp_path).runs} == {r.run_id for r in planned(tmp_path, text=swapped).runs}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.patch_size=[1,3,5]"], ["8 is divisible by 1, 2, 4, 8 (got 3)", "(got 5)"]),
        (["backbone=[vit,[convmixer]]"], ["no backbone of this name (got ['convmixer'])"]),
        (["backbone=[vit,convmixr]"], ["no backbone of this name (got 'convmixr')", "did you mean 'convmixer'?"]),
        (["match.target=700"], ["vit (patch size 4, depth 2) reaches no budget of 700", "convmixer", "nearest is"]),
        (["train.lrr=3", "model.dpth=1"], ["did you mean 'train.lr'?", "did you mean 'model.depth'?"]),
        (["model.dim=64"], ["the budget solves the width"]),
        (["match.target=resnet"], ["no published variant of this name"]),
        (["train.epochs=fast"], ["valid number (got 'fast')"]),
        (["train.batch_size=2000"], ["a batch is larger than the 1,018 training images"]),
        (["train.batch_size=32", "train.accumulate=2"], ["convmixer has BatchNorm"]),
        (["data.name=digit"], ["did you mean 'digits'?"]),
        (["data.train_images=5000"], ["to choose from"]),
        (["match.by=flops"], ["valid: params, macs"]),
        (["train.precision=fp8"], ["valid: fp32, bf16, fp16"]),
        (["model.image_size=16"], ["the data decides this option"]),
        (["data.permute_pixels=true", "data.permute_patches=true"], ["permute_pixels or permute_patches, not both"]),
        (["data.permute_patches=true", "model.patch_size=[8]", "match.tolerance=50%"], ["an image that is one patch"]),
        (["train.warmup_epochs=3"], ["must be smaller than epochs"]),
    ],
)
def test_mistakes_are_reported_before_anything_is_trained(tmp_path, overrides, message):
    """Whatever can't be built or trained is named with its rule and the nearest valid choice, all of it at once."""
    screen = mistakes(tmp_path, *overrides)
    for words in message:
        assert words in screen


def test_a_mistake_in_a_backbones_own_settings_is_reported_there(tmp_path):
    """An option that this backbone doesn't have is wrong in its own section, though another backbone has it."""
    screen = mistakes(tmp_path, text=SWEEP.replace("convmixer: {model", "vit: {model"))
    assert "no option of vit" in screen
    assert "sweep.yaml:7" in screen


def test_settings_of_a_misspelt_backbone_are_reported(tmp_path):
    """Settings that would reach no run are a mistake with a nearest match; those of a backbone left out here are none."""
    screen = mistakes(tmp_path, text=SWEEP.replace("convmixer: {model", "convmixr: {model"))
    assert "did you mean 'convmixer'?" in screen
    assert "sweep.yaml:7" in screen
    assert planned(tmp_path, "backbone=vit").runs


def test_dropout_is_cleared_where_nothing_drops(tmp_path):
    """Only what a backbone has is part of its runs: a study over backbones may set a recipe's dropout for all."""
    text = "question: q\ndata: {name: digits}\nmodel: {patch_size: 4, dim: 32, depth: 2, kernel_size: 3}\ntrain: {epochs: 1}\n"
    text += "axes: {backbone: [convmixer, convnext, mlp_mixer, vit]}\nseeds: [0]\n"
    (tmp_path / "sweep.yaml").write_text(text, encoding="utf-8")
    options = ["attention_dropout", "mlp_dropout", "head_dropout"]
    runs = make_plan(read_sweep(tmp_path / "sweep.yaml", [f"train.{name}=0.1" for name in options])).runs
    kept = {planned.run.backbone: [name for name in options if getattr(planned.run.train, name)] for planned in runs}
    assert kept == {"convmixer": options[2:], "convnext": options[1:], "mlp_mixer": options[1:], "vit": options}
    one, other = (make_plan(read_sweep(tmp_path / "sweep.yaml", words)).runs for words in ([], ["train.attention_dropout=0.1"]))
    same = {left.run.backbone for left, right in zip(one, other, strict=True) if left.run_id == right.run_id}
    assert same == {"convmixer", "convnext", "mlp_mixer"}


def test_a_plan_survives_its_file(tmp_path):
    """What is read back from disk is what was planned, tuned options included."""
    tuned = "question: q\ndata: {name: digits}\nbackbone: vit\nmodel: {depth: 1, patch_size: 4, dim: 32}\n"
    tuned += "train: {epochs: 1}\naxes: {train.batch_size: [8, 9]}\nseeds: 2\n"
    tuned += "tune: {axes: {train.lr: [0.1, 0.2]}, seeds: [5]}\n"
    (tmp_path / "tuned.yaml").write_text(tuned, encoding="utf-8")
    stated = planned(tmp_path, "effect_of_interest={error_ratio: 1.5}")
    assert stated.file.facts.effect_of_interest == {"error_ratio": 1.5}
    assert {run.run_id for run in stated.runs} == {run.run_id for run in planned(tmp_path).runs}
    for plan in (stated, planned(tmp_path, "effect_of_interest=0.5"), make_plan(read_sweep(tmp_path / "tuned.yaml"))):
        path = tmp_path / f"{plan.digest}.json"
        write_new(path, plan.file.to_json())
        assert read_plan(path, hint="") == plan.file
        assert all(entry.options.train.lr is None for entry in plan.file.pending)


def test_the_plans_digest_is_its_content(tmp_path):
    """Equal plans have one name; another seed is another plan."""
    assert planned(tmp_path).digest == planned(tmp_path).digest
    assert planned(tmp_path, "seeds=[0,2]").digest != planned(tmp_path).digest


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_too_few_validation_images_are_reported_before_any_download(tmp_path, name):
    """A published set's sizes are known: with fewer images than classes some class would never be validated."""
    screen = mistakes(tmp_path, f"data.name={name}", "data.val_fraction=0.0001", "match.target=100k", "train.batch_size=8")
    classes = {"cifar10": 10, "cifar100": 100}[name]
    assert f"data.val_fraction: leaves 5 validation images for {classes} classes" in screen
    least = classes / 50_000
    assert f"at least {least:g}" in screen
    assert planned(tmp_path, f"data.name={name}", f"data.val_fraction={least}", "match.target=100k").runs
