"""Plans of runs that start from weights: every mistake is told before a second of GPU time; no weights are a level too."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console
from safetensors.torch import save_file

from study.backbones import build_backbone, specify
from study.config.sweep_file import read_sweep
from study.errors import UserError
from study.plan import show_plan
from study.planning.sweep_plan import Plan, make_plan
from study.records.columns import planned_columns

SOURCE = specify(
    "vit",
    {
        "image_size": 8,
        "in_channels": 1,
        "num_classes": 10,
        "patch_size": 2,
        "dim": 32,
        "depth": 1,
        "position_embedding": "learned",
    },
)
SWEEP = """\
question: from weights?
backbone: vit
data: {name: digits, train_images: 100}
model: {depth: 1, dim: 32}
train: {epochs: 1, batch_size: 50}
axes:
  train.start: [null, start/w.safetensors]
  model.patch_size: [2, 4]
seeds: [0, 1]
"""
GAIN = "contrasts: {own: {gain: [{weight: 1, train.start: start/w.safetensors}, {weight: -1, train.start: null}]}}"


@pytest.fixture
def plan_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Plans the sweep with overrides, in a folder with a file of weights."""
    monkeypatch.chdir(tmp_path)
    Path("start").mkdir()
    save_file(build_backbone(SOURCE).state_dict(), "start/w.safetensors")
    Path("sweep.yaml").write_text(SWEEP, encoding="utf-8")

    def plan(*overrides: str) -> Plan:
        return make_plan(read_sweep("sweep.yaml", overrides))

    return plan


def test_scratch_and_weights_are_two_levels(plan_here, capsys) -> None:
    """A level null is `scratch` in the table, a file has its name; runs from scratch are those of sweeps without the option."""
    Path("sweep.yaml").write_text(SWEEP + GAIN, encoding="utf-8")
    plan = plan_here()
    levels = {planned_columns(run.entry)["start"] for run in plan.runs}
    assert levels == {"scratch", "w.safetensors"} and plan.file.facts.factors["start"] == ["scratch", "w.safetensors"]
    terms = plan.file.facts.contrasts["own"]["gain"]
    assert [term["train.start"] for term in terms] == ["w.safetensors", "scratch"]
    Path("sweep.yaml").write_text(SWEEP, encoding="utf-8")
    without = {run.run_id for run in plan_here("train.start=null").runs}
    assert {run.run_id for run in plan.runs if run.run.train.start is None} == without and len(without) == 4
    show_plan(plan, Console(width=200))
    shown = capsys.readouterr().out
    assert "starts from start/w.safetensors (SHA-256" in shown and "from 4 x 4 to 2 x 2 tokens" in shown


def test_another_content_is_another_run_and_another_place_is_not(plan_here) -> None:
    """Identity has the file's digest, not its path; a digest that the sweep states is required."""
    before = [run.run_id for run in plan_here("train.start=start/w.safetensors").runs]
    digest = plan_here().runs[-1].run.train.start_sha256
    Path("start/w.safetensors").rename("moved.safetensors")
    assert [run.run_id for run in plan_here("train.start=moved.safetensors", f"train.start_sha256={digest}").runs] == before
    save_file(build_backbone(SOURCE, seed=1).state_dict(), "moved.safetensors")
    assert not {run.run_id for run in plan_here("train.start=moved.safetensors").runs} & set(before)
    with pytest.raises(UserError, match=r"train\.start_sha256: the file's content has another SHA-256"):
        plan_here("train.start=moved.safetensors", f"train.start_sha256={digest}")


def test_what_does_not_fit_is_told_at_plan_time(plan_here) -> None:
    """The sweep's line, the tensor with both shapes, for every architecture; and that a file fixes the widths of a budget."""
    with pytest.raises(UserError) as error:
        plan_here("model.dim=64")
    problems = error.value.problems
    assert len(problems) == 2 and all(problem.place == "sweep.yaml:7" for problem in problems)
    assert "stem.patch_embedding.projection.bias is 32 instead of 64" in str(problems[0])
    with pytest.raises(UserError, match=r"12 missing: blocks\.1\.channel_mixing\.mixer\.expand\.bias"):
        plan_here("model.depth=2")
    Path("sweep.yaml").write_text(SWEEP.replace(", dim: 32", ""), encoding="utf-8")
    with pytest.raises(UserError, match=r"these weights fix them: set match\.by: none, and theirs"):
        plan_here("match.by=params", "match.target=30k")
    with pytest.raises(UserError, match=r"train\.start: nowhere: no such weights file"):
        plan_here("train.start=nowhere", "model.dim=32")


def test_a_frozen_body_is_not_charged_for_its_gradients(plan_here) -> None:
    """One forward pass, and as many MACs again for the gradient of the classifier's weights; not three forward passes."""
    whole, frozen = (
        plan_here("train.start=start/w.safetensors", f"train.freeze={freeze}").runs[0] for freeze in ("none", "body")
    )
    assert whole.run.run_id != frozen.run.run_id and whole.cost == frozen.cost
    assert whole.training_flops == 6 * whole.cost.macs * 100
    assert frozen.training_flops == 2 * (whole.cost.macs + 32 * 10) * 100


def test_what_a_frozen_body_makes_senseless_is_refused(plan_here) -> None:
    """In the plan, with the place of the option."""
    with pytest.raises(UserError, match=r"freeze: body keeps blocks as they are, on which alone this acts: stochastic_depth"):
        plan_here("train.freeze=body", "train.stochastic_depth=0.1")
