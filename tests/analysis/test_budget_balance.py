"""What a budget leaves unequal, against traced counts of built networks, and against a kernel's reach in a grid."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from study.analysis.budget_balance import describe_balance
from study.backbones import build_backbone
from study.config.sweep_file import read_sweep
from study.planning.sweep_plan import Plan, make_plan
from study.planning.traced_cost import count_cost
from study.records.columns import planned_columns

SWEEPS = Path(__file__).resolve().parents[2] / "sweeps"


def planned(name: str, *overrides: str) -> tuple[Plan, pd.DataFrame]:
    """A shipped sweep's plan, and its columns of the run table."""
    plan = make_plan(read_sweep(SWEEPS / f"{name}.yaml", [*overrides, "seeds=1"]))
    return plan, pd.DataFrame([planned_columns(run.entry) for run in plan.finals]).convert_dtypes()


def ratios(plan: Plan, backbone: str, cost: str) -> float:
    """Largest over smallest of the backbone's networks, as traced."""
    runs = [run.run.model for run in plan.finals if run.run.backbone == backbone]
    counted = [getattr(count_cost(build_backbone(one), image_size=8, in_channels=1), cost) for one in runs]
    return max(counted) / min(counted)


@pytest.mark.parametrize(
    ("name", "start", "cost"),
    [
        ("digits_patch_size", "MACs differ at equal parameters: at patch size 1 ", "macs"),
        ("digits_patch_size_macs", "Parameters differ at equal MACs: at patch size 4 ", "params"),
    ],
)
def test_the_cost_that_is_not_held_has_the_traced_ratios(name: str, start: str, cost: str) -> None:
    plan, table = planned(name)
    balance, kernel = describe_balance(table, ["backbone", "patch_size"])
    assert balance.startswith(start)
    for backbone, shown in (("convmixer", "ConvMixer"), ("mlp_mixer", "MLP-Mixer"), ("vit", "ViT")):
        [ratio] = re.findall(rf"([\d.]+) \({shown}\)", balance)
        assert float(ratio) == pytest.approx(ratios(plan, backbone, cost), rel=0.05)
    assert kernel == (
        "The kernel covers 3, 6 and 12 pixels (3, 3 and 3 tokens) at patch size 1, 2 and 4; "
        "at patch size 4 every token reaches every other, as with attention."
    )


def test_token_mixers_are_compared_within_their_body() -> None:
    """And a mixer without a kernel takes no part in the sentence on kernels."""
    _, table = planned("digits_token_mixer")
    balance, kernel = describe_balance(table, ["token_mixer", "patch_size"])
    assert "(attention)" in balance and "between token mixers at one patch size up to" in balance and "3, 6 and 12" in kernel


def test_a_kernel_in_pixels_and_kernels_under_study() -> None:
    """In pixels the tokens change instead; with several kernels their range is named."""
    _, table = planned("kernel_pixels", "model.kernel_pixels=16")
    assert "The kernel covers 17, 18, 20 and 24 pixels (17, 9, 5 and 3 tokens)" in describe_balance(table, ["backbone"])[-1]
    _, table = planned("kernel_size")
    assert describe_balance(table, ["kernel_size", "patch_size"])[-1] == "Kernels of 3 to 17 tokens cover 3 to 36 pixels."


@pytest.mark.parametrize(("grid", "kernel"), [(2, 3), (4, 5), (4, 7), (3, 5)])
def test_a_kernel_is_said_to_reach_every_token_where_it_does(grid: int, kernel: int) -> None:
    """By brute force over all pairs of positions."""
    places = np.arange(grid)
    reaches = bool((np.abs(places[:, None] - places) <= kernel // 2).all())
    table = pd.DataFrame({"match_by": "params", "params": 1, "macs": 1, "patch_size": [1, 2], "kernel_size": kernel})
    [sentence] = describe_balance(table.assign(image_size=[4 * grid, 2 * grid]), ["patch_size"])
    assert ("at patch size 2 every token reaches" in sentence) == reaches


def test_equal_training_leaves_the_images_seen_unequal() -> None:
    """Counted as steps times batch size in the plan; what differs by depth alone is said of all cells."""
    plan, table = planned("digits_patch_size_training_macs")
    sentence = describe_balance(table, ["backbone", "patch_size"])[0]
    seen = {(run.run.backbone, run.run.model.patch_size): run.image_passes for run in plan.finals}
    assert sentence.startswith("Images seen in training differ at equal training MACs: at patch size 4 they are ")
    for backbone, shown in (("convmixer", "ConvMixer"), ("vit", "ViT")):
        [ratio] = re.findall(rf"([\d.]+) \({shown}\)", sentence)
        assert float(ratio) == pytest.approx(seen[backbone, 4] / seen[backbone, 1], rel=0.05)
    deeper = pd.DataFrame({"match_by": "training_macs", "params": [1, 3], "macs": [1, 3], "patch_size": 2, "depth": [1, 3]})
    assert describe_balance(deeper.assign(epochs=[9.0, 3.0], train_images=50), ["depth"]) == [
        f"{name} at equal training MACs: between cells up to 3.0 times."
        for name in ("Images seen in training differ", "Parameters differ", "MACs per image differ")
    ]


def test_equal_seconds_leave_both_costs_unequal_and_older_tables_say_nothing() -> None:
    table = pd.DataFrame({"match_by": "seconds", "params": [10, 30], "macs": [400, 100], "patch_size": [1, 2]})
    assert describe_balance(table, ["patch_size"]) == [
        "Parameters differ at equal training time per image: at patch size 2 they are 3.0 times those at patch size 1.",
        "MACs differ at equal training time per image: at patch size 1 they are 4.0 times those at patch size 2.",
    ]
    assert describe_balance(table.drop(columns="match_by"), ["patch_size"]) == []
    assert describe_balance(table.assign(macs=1, match_by="params"), ["patch_size"]) == []
