"""Epochs solved for a budget of training: against a count of steps one by one, and against networks traced and timed apart."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from study.backbones import build_backbone
from study.config.options import TrainOptions
from study.config.sweep_file import read_sweep
from study.errors import UserError
from study.planning.sweep_plan import Plan, make_plan
from study.planning.traced_cost import count_cost
from study.records.benchmark_file import Benchmark, Speed
from study.records.sweep_folder import write_whole

SWEEP = """\
question: which, at equal training?
device: cpu
data: {name: digits}
model: {depth: 1, dim: 8}
train: {batch_size: 32}
match: {by: training_macs, target: 300M}
backbones:
  convmixer: {model: {kernel_size: 3}}
  vit: {model: {heads: 1}}
axes:
  backbone: [vit, convmixer, mlp_mixer]
  model.patch_size: [1, 2, 4]
seeds: 1
"""
EPOCH_STEPS = 1018 // 32


def planned(folder: Path, *overrides: str, text: str = SWEEP) -> Plan:
    (folder / "sweep.yaml").write_text(text, encoding="utf-8")
    return make_plan(read_sweep(folder / "sweep.yaml", overrides))


def fewest_steps(step_cost: float, target: float, tolerance: float) -> int:
    """Counted up from one step, as a person would who trains until the budget is met."""
    return next(steps for steps in count(1) if steps * step_cost >= (1 - tolerance) * target)


@pytest.mark.parametrize("tolerance", [0.004, 0.02, 0.3])
def test_epochs_are_the_fewest_steps_within_the_tolerance(tmp_path, tolerance):
    """With the forward pass of each built network traced, three of them per image and 32 images per step."""
    plan = planned(tmp_path, "match.target=1G", f"match.tolerance={tolerance}")
    seen = set()
    for each in plan.runs:
        macs = count_cost(build_backbone(each.run.model), image_size=8, in_channels=1).macs
        steps = fewest_steps(32 * 3 * macs, 1e9, tolerance)
        assert (each.run.train.epochs * EPOCH_STEPS, each.image_passes) == (pytest.approx(steps), 32 * steps)
        assert each.match.residual == pytest.approx(32 * steps * 3 * macs / 1e9 - 1) and abs(each.match.residual) <= tolerance
        assert each.training_flops == pytest.approx(2e9, rel=tolerance)
        seen.add(steps)
    assert len(seen) == 9 and max(seen) > 20 * min(seen)


def test_seconds_are_those_of_the_benchmark(tmp_path, monkeypatch):
    """Steps of 2 ms and 5 ms: 625 and 250 of them in 1.25 seconds, less the tolerance of one percent."""
    monkeypatch.chdir(tmp_path)
    networks = planned(tmp_path, "model.patch_size=2", "backbone=[vit, mlp_mixer]").runs
    speeds = tuple(
        Speed(
            label=one.label,
            backbone=one.run.backbone,
            model=one.run.model.model_dump(mode="json"),
            precision="fp32",
            batch_size=32,
            memory_layout="contiguous",
            train_step_seconds=(seconds,),
            inference_step_seconds=(1.0,),
            inference_latency_seconds=(1.0,),
            peak_memory_mib=None,
        )
        for one, seconds in zip(networks, (0.002, 0.005), strict=True)
    )
    around = {"sweep": "s", "began": "2026-01-02T10:15:00Z", "rounds": 1, "device": "cuda", "device_name": "abacus"}
    file = Benchmark(**around, fingerprint={}, provenance={}, architectures=speeds, inputs=())
    write_whole(Path("speeds.json"), file.model_dump_json())
    words = ["match.by=training_seconds", "match.target=1.25", "match.tolerance=1%", "match.benchmark=speeds.json"]
    plan = planned(tmp_path, *words, "model.patch_size=2", "backbone=[vit, mlp_mixer]")
    assert [one.image_passes // 32 for one in plan.runs] == [619, 248]
    with pytest.raises(UserError, match=r"convmixer .* has not been measured with all of its options"):
        planned(tmp_path, *words, "model.patch_size=2")


def test_epochs_are_part_of_the_identity_and_the_budget_is_not(tmp_path):
    """The same epochs, given by hand, are the same run; another target is another one, and 3.0 is spelled as 3 always was."""
    solved = planned(tmp_path, "backbone=vit", "model.patch_size=2").runs[0]
    given = ["match.by=none", "match.target=null", f"train.epochs={solved.run.train.epochs!r}"]
    assert planned(tmp_path, "backbone=vit", "model.patch_size=2", *given).runs[0].run_id == solved.run_id
    assert planned(tmp_path, "backbone=vit", "model.patch_size=2", "match.target=400M").runs[0].run_id != solved.run_id
    whole, point = (TrainOptions(epochs=epochs) for epochs in (3, 3.0))
    assert whole.model_dump_json() == point.model_dump_json() and '"epochs":3,' in point.model_dump_json()


def test_trials_and_final_runs_train_for_equal_compute(tmp_path):
    """Final runs on 180 more images have longer epochs, and as many steps."""
    text = SWEEP + "tune: {axes: {train.lr: [1e-3, 3e-3]}}\nfinal: {fit_on: train+val}\n"
    plan = planned(tmp_path, "backbone=vit", "model.patch_size=2", text=text)
    assert {one.image_passes for one in plan.trials} == {one.image_passes for one in plan.finals}
    assert plan.finals[0].run.train.epochs * 37 == pytest.approx(plan.trials[0].run.train.epochs * 31)


def test_a_recipe_is_stretched(tmp_path):
    """A recipe's epochs are replaced, its other options kept."""
    plan = planned(tmp_path, "recipe=convmixer_cifar10_25", "backbone=vit", "model.patch_size=2")
    assert plan.runs[0].run.train.schedule == "one_cycle" and plan.runs[0].run.train.epochs != 25
    assert plan.runs[0].training_flops == pytest.approx(6e8, rel=0.02)


TUNED = "tune: {axes: {train.batch_size: [32, 48]}}\n"
ABLATION = "ablate: {changes: {relu: {model.activation: relu}}, match: params}\n"


@pytest.mark.parametrize(
    ("overrides", "more", "expected"),
    [
        (["train.epochs=3"], "", ["train.epochs", "the budget solves the epochs"]),
        (["train.warmup_epochs=9"], "", ["warmup_epochs must be smaller than epochs"]),
        (["match.target=300k"], "", ["match.target", "no number of training steps of vit", "is within 2% of this budget"]),
        (["match.target=convmixer_256_8 k5 p2"], "", ["a target in training_macs is a number"]),
        (["match.by=training_seconds"], "", ["benchmark names the file of measurements"]),
        (["match.benchmark=speeds.json"], "", ["benchmark names the file of measurements"]),
        ([], ABLATION, ["ablate.match", "changes keep their widths"]),
        (["train.lr=1e-3"], TUNED, ["tune.axes", "change the model or a budget's epochs"]),
    ],
)
def test_budgets_that_mean_nothing_are_refused(tmp_path, overrides, more, expected):
    """At plan time, each with its key and nothing that follows from it."""
    with pytest.raises(UserError) as caught:
        planned(tmp_path, *overrides, text=(SWEEP.replace("batch_size: 32", "") if more == TUNED else SWEEP) + more)
    lines = {str(problem) for problem in caught.value.problems}
    assert all(word in "\n".join(lines) for word in expected)
    assert not any("required and missing" in line for line in lines)
