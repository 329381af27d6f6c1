"""An ablation is a baseline and runs that differ from it in what their change sets, and in nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from study.backbones import build_backbone
from study.config.sweep_file import read_sweep
from study.errors import UserError
from study.planning.planned_run import PlannedRun
from study.planning.sweep_plan import Plan, make_plan
from study.records.columns import planned_columns

SWEEP = """\
question: which part?
data: {name: digits}
backbone: convmixer
model: {depth: 2, dim: 24, kernel_size: 3}
train: {epochs: 3, lr: 1e-2}
ablate:
  baseline: {model.residual: depthwise, augment.flip: true}
  changes:
    no residual: {model.residual: none}
    no flip: {augment.flip: false}
    larger kernel: {model.kernel_size: 5}
axes:
  model.patch_size: [1, 2]
seeds: 2
"""
TUNED = SWEEP.replace(", lr: 1e-2", "") + "tune: {axes: {train.lr: [1e-3, 1e-2]}, seeds: [100, 101]}\n"


def plan_of(tmp_path: Path, *overrides: str, text: str = SWEEP) -> Plan:
    path = tmp_path / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    return make_plan(read_sweep(path, overrides))


def mistakes(tmp_path: Path, *overrides: str, text: str = SWEEP) -> str:
    with pytest.raises(UserError) as caught:
        plan_of(tmp_path, *overrides, text=text)
    return "\n".join(map(str, caught.value.problems))


def flat_options(planned: PlannedRun) -> dict[str, Any]:
    run = planned.run.to_json()
    return {
        f"{section}.{name}": value for section in ("data", "model", "train", "augment") for name, value in run[section].items()
    }


def test_a_change_differs_from_its_baseline_in_its_own_options(tmp_path: Path) -> None:
    """Law, in the runs as workers get them: one option differs, at equal seed and patch size; the grid is crossed."""
    plan = plan_of(tmp_path)
    assert len(plan.runs) == 4 * 2 * 2
    found = {(each.change, each.run.model.patch_size, each.run.seed): flat_options(each) for each in plan.runs}
    changed = {"no residual": "model.residual", "no flip": "augment.flip", "larger kernel": "model.kernel_size"}
    for (change, patch, seed), own in found.items():
        baseline = found["baseline", patch, seed]
        assert {key for key in own if own[key] != baseline[key]} == ({changed[change]} if change in changed else set())


def test_a_runs_identity_has_no_name_of_its_change(tmp_path: Path) -> None:
    """Renamed changes are the same runs, and they are those of a sweep that varies the option as an axis."""
    own = {each.run_id for each in plan_of(tmp_path).runs}
    renamed = SWEEP.replace("no residual:", "without skips:").replace("no flip:", "unflipped:")
    assert {each.run_id for each in plan_of(tmp_path, text=renamed).runs} == own
    head, _, rest = SWEEP.partition("ablate:")
    axes = "axes:\n  model.residual: [depthwise, none]\n  " + rest.partition("axes:\n  ")[2]
    crossed = plan_of(tmp_path, text=head.replace("train:", "augment: {flip: true}\ntrain:") + axes)
    assert {each.run_id for each in crossed.runs} < own and len(crossed.runs) == 8


def test_the_run_table_names_the_change(tmp_path: Path) -> None:
    """The column `change` is there in an ablation alone, and the facts have its levels in the order of the file."""
    plan = plan_of(tmp_path)
    assert {planned_columns(each.entry)["change"] for each in plan.runs} == set(plan.file.facts.factors["change"])
    assert plan.file.facts.factors["change"] == ["baseline", "no residual", "no flip", "larger kernel"]
    plain = SWEEP.partition("ablate:")[0] + "axes: {model.patch_size: [1, 2]}\nseeds: 1\n"
    assert all("change" not in planned_columns(each.entry) for each in plan_of(tmp_path, text=plain).runs)


@pytest.mark.parametrize("by", ["params", "macs"])
def test_widths_are_solved_for_the_baselines_own_budget(tmp_path: Path, by: str) -> None:
    """What is built costs what the baseline costs, within the tolerance; a change that costs nothing keeps its width."""
    runs = {
        each.change: each
        for each in plan_of(tmp_path, f"ablate.match={by}", "model.patch_size=1", "seeds=1", "model.dim=64").runs
    }
    target = runs["baseline"]
    assert {runs[name].run.model.dim for name in ("baseline", "no residual", "no flip")} == {64}
    larger = runs["larger kernel"]
    assert larger.run.model.dim < 64
    built = [sum(p.numel() for p in build_backbone(each.run.model).parameters()) for each in (target, larger)]
    costs = built if by == "params" else [target.cost.macs, larger.cost.macs]
    assert abs(costs[1] / costs[0] - 1) <= 0.02
    assert larger.match.target == costs[0]


def test_changes_keep_the_baselines_width_where_the_sweep_says_so(tmp_path: Path) -> None:
    """Under a budget each row is solved for it, unless `ablate.match` is none: then only the baseline is."""
    text = SWEEP.replace("dim: 24, ", "") + "match: {by: params, target: 20k}\n"
    each = {(run.change, run.run.model.patch_size): run.run.model.dim for run in plan_of(tmp_path, text=text).runs}
    assert each["larger kernel", 1] < each["baseline", 1]
    kept = {
        (run.change, run.run.model.patch_size): run.run.model.dim
        for run in plan_of(tmp_path, "ablate.match=none", text=text).runs
    }
    assert all(dim == each["baseline", patch] for (_, patch), dim in kept.items())


def test_changes_are_tuned_again_or_take_their_baselines_choice(tmp_path: Path) -> None:
    """Each cell has its trials; with `tune: baseline` changes wait for their baseline's choice."""
    again = plan_of(tmp_path, text=TUNED)
    assert len(again.trials) == 4 * 2 * 4 and len({each.cell for each in again.finals}) == 8
    shared = plan_of(tmp_path, "ablate.tune=baseline", text=TUNED)
    assert {each.change for each in shared.trials} == {"baseline"} and len(shared.trials) == 2 * 4
    assert len(shared.finals) == len(again.finals) == 16 and {each.cell for each in shared.finals} == {
        each.cell for each in shared.trials
    }


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("model.residual: none", "model.residuel: none", "sweep.yaml:9: model.residuel"),
        ("model.residual: none", "residual: none", "a change sets `backbone` or `section.option`"),
        ("model.residual: none", "model.residual: depthwise", "comes out as the same run as 'baseline' at model.patch_size 1"),
        ("{augment.flip: false}", "{}", "at least one option"),
        ("no flip:", "baseline:", "other than baseline"),
        ("no flip: {augment.flip: false}", "p4: {model.patch_size: 4}", "sweep.yaml:10: ablate.changes.p4.model.patch_size: "),
        ("dim: 24", "dim: 24, residual: none", "sweep.yaml:7: ablate.baseline.model.residual: given here and given at"),
        ("  changes:", "  match: parms\n  changes:", "did you mean 'params'"),
        ("  changes:", "  tune: baseline\n  changes:", "only where something is tuned"),
        ("  changes:", "  chnges:", "did you mean 'ablate.changes'"),
        ("seeds: 2", "seeds: 2\nexclude: [{change: no flp}]", "did you mean 'no flip'"),
        ("seeds: 2", "seeds: 2\nexclude: [{change: baseline, model.patch_size: 2}]", "without its baseline at model"),
    ],
)  # fmt: skip
def test_mistakes_name_line_rule_and_what_was_meant(tmp_path: Path, before: str, after: str, expected: str) -> None:
    """Every mistake in `ablate` is one of the plan, not of a run."""
    assert before in SWEEP
    assert expected in mistakes(tmp_path, text=SWEEP.replace(before, after))
