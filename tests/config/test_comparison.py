"""What a sweep states about its comparison reaches the plan, and its mistakes have a line, a rule and a nearest match."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.config.sweep_file import read_sweep
from study.errors import UserError
from study.plan import check_statements
from study.planning.sweep_plan import make_plan
from study.records.plan_file import PlanFile, read_plan
from study.records.sweep_folder import write_new

SWEEP = """\
question: which?
data: {name: digits}
backbone: metaformer
model: {depth: 2, kernel_size: 3}
train: {epochs: 3}
match: {by: params, target: 20k, head_dim: 8}
axes:
  model.token_mixer: [attention, depthwise_conv]
  model.patch_size: [1, 2, 4]
seeds: 2
expected:
  - convolution is better
  - {contrast: attention - depthwise conv at 4, sign: negative}
  - {accuracy: 92.5%, tolerance: 0.5%, cell: {model.token_mixer: attention, model.patch_size: 1}}
contrasts:
  reference: {model.token_mixer: attention}
  own:
    curvature:
      - {weight: 1, model.patch_size: 1}
      - {weight: -2, model.patch_size: 2}
      - {weight: 1, model.patch_size: 4}
  primary: [curvature, depthwise conv - attention]
"""
VALID = SWEEP.replace("contrast: attention - depthwise conv at 4", "contrast: depthwise conv - attention at 4")


def plan_of(tmp_path: Path, text: str) -> PlanFile:
    path = tmp_path / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    plan = make_plan(read_sweep(path))
    check_statements(plan)
    return plan.file


def test_statements_reach_the_report_by_the_plan(tmp_path: Path) -> None:
    """The plan's file holds them, accuracies as fractions; the text says all of them; no run depends on them."""
    plan = plan_of(tmp_path, VALID)
    assert plan.facts.expected == (
        "convolution is better; depthwise conv - attention at 4: negative; accuracy 92.5 % within 0.5 points at token mixer "
        "attention, patch size 1"
    )
    assert plan.facts.expectations[1]["accuracy"] == pytest.approx(0.925)
    assert plan.facts.contrasts["primary"] == ["curvature", "depthwise conv - attention"]
    write_new(tmp_path / "plan.json", plan.to_json())
    assert read_plan(tmp_path / "plan.json", hint="").facts == plan.facts
    plain = VALID.partition("expected:")[0]
    assert plan_of(tmp_path, plain).run_ids == plan.run_ids


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("depthwise conv - attention at 4", "depthwise conv - atention at 4", "sweep.yaml:13: expected.0.contrast: no"),
        ("sign: negative", "sign: negativ", "did you mean 'negative'"),
        ("sign: negative", "sgn: negative", "did you mean 'expected.sign'"),
        ("tolerance: 0.5%", "tolerance: 0", "sweep.yaml:14: expected.tolerance"),
        (", model.patch_size: 1}}", ", model.patch_size: 3}}", "sweep.yaml:14: expected.cell.model.patch_size: no level"),
        (", model.patch_size: 1}}", "}}", "names 3 cells"),
        ("- convolution is better", "- 3", "expected is text, an entry"),
        ("{model.token_mixer: attention}\n", "{model.token_mixr: attention}\n", "contrasts.reference.model.token_mixer'"),
        ("{model.token_mixer: attention}\n", "{model.token_mixer: atention}\n", "did you mean 'attention'"),
        ("weight: -2", "weight: -1", "sweep.yaml:18: contrasts.own.curvature: a contrast has two terms or more"),
        ("weight: -2", "wight: -2", "every term has a `weight`"),
        ("model.patch_size: 2}", "model.patch_size: 8}", "sweep.yaml:18: contrasts.own.curvature.model.patch_size: no"),
        ("primary: [curvature,", "primary: [curvatur,", "sweep.yaml:22: contrasts.primary: no contrast of this name"),
        ("  primary:", "  primry:", "did you mean 'contrasts.primary'"),
    ],
)  # fmt: skip
def test_mistakes_name_line_rule_and_what_was_meant(tmp_path: Path, before: str, after: str, expected: str) -> None:
    """Every mistake in these keys is one of the plan, before a run."""
    assert before in VALID
    with pytest.raises(UserError) as caught:
        plan_of(tmp_path, VALID.replace(before, after))
    assert expected in "\n".join(map(str, caught.value.problems))
