"""Laws of all statistics: the order of rows and the numbers of the seeds are irrelevant; one table gives the same bytes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_study import metaformer, run_table

from study.analysis.answer import answer_question
from study.analysis.cell_grid import FloatArray, Grid, read_grid
from study.analysis.cell_means import summarize_cells
from study.analysis.compute_usage import summarize_compute
from study.analysis.contrast_results import estimate_contrasts
from study.analysis.cost_curves import average_over_costs, fit_power_law, interpolate_at_budgets
from study.analysis.pareto_front import compute_cell_costs, find_pareto_front
from study.analysis.planned_contrasts import plan_contrasts
from study.analysis.protocol_check import check_protocol
from study.analysis.study_comparison import join_contrasts
from study.analysis.study_results import StudyResults
from study.analysis.variance_shares import decompose_variance

AXES = ["patch_size", "token_mixer"]


def costs(table: pd.DataFrame) -> tuple[Grid, FloatArray]:
    grid = read_grid(table, AXES)
    return grid, compute_cell_costs(table, grid, cost="macs")


STATISTICS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "cells": lambda table: summarize_cells(read_grid(table, AXES)),
    "contrasts": lambda table: estimate_contrasts(read_grid(table, AXES), plan_contrasts(metaformer().axes)),
    "decomposition": lambda table: decompose_variance(read_grid(table, AXES), draws=200),
    "front": lambda table: find_pareto_front(*costs(table)),
    "at_budget": lambda table: interpolate_at_budgets(*costs(table), along="patch_size", budgets=[100_000.0]),
    "area": lambda table: average_over_costs(*costs(table), along="patch_size"),
    "power_law": lambda table: fit_power_law(*costs(table), along="patch_size"),
    "fairness": lambda table: check_protocol(table, AXES),
    "compute_spent": summarize_compute,
    "join_contrasts": lambda table: join_contrasts(
        dict.fromkeys("ab", estimate_contrasts(read_grid(table, AXES), plan_contrasts(metaformer().axes)))
    ),
    "answer": lambda table: pd.DataFrame({"sentence": answer_question(StudyResults(table, metaformer().axes)).sentences}),
}


def study() -> pd.DataFrame:
    """A study with every kind of outcome."""
    table = run_table(metaformer(), seeds=5).convert_dtypes()
    table = table.assign(lr=table["token_mixer"].str.len() / 1000, dim=table["patch_size"] * table["token_mixer"].str.len())
    table.loc[[4, 30], "device_name"] = "another cpu"
    table.loc[table["patch_size"] == 2, "match_residual"] = 0.03
    table.loc[[3, 20], "status"] = ["diverged", "failed"]
    table.loc[41, ["status", "test_accuracy", "train_seconds", "device_name"]] = ["missing", pd.NA, pd.NA, pd.NA]
    return table


def csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False).encode()


@pytest.mark.parametrize("name", STATISTICS)
def test_the_order_of_rows_is_irrelevant(name: str) -> None:
    """Law: a shuffled table gives the same bytes."""
    table = study()
    shuffled = table.sample(frac=1, random_state=np.random.RandomState(7))
    assert csv(STATISTICS[name](shuffled)) == csv(STATISTICS[name](table))


@pytest.mark.parametrize("name", STATISTICS)
def test_twice_the_same_bytes(name: str) -> None:
    """Law: computing again gives the same bytes: every random number is keyed."""
    assert csv(STATISTICS[name](study())) == csv(STATISTICS[name](study()))


@pytest.mark.parametrize("name", STATISTICS)
def test_the_table_is_not_modified(name: str) -> None:
    """Law: statistics do not modify the table they read."""
    table = study()
    before = table.copy(deep=True)
    STATISTICS[name](table)
    pd.testing.assert_frame_equal(table, before)


@settings(deadline=None, max_examples=20)
@given(shift=st.floats(-0.05, 0.05), scale=st.floats(0.2, 2.0))
def test_differences_follow_a_change_of_scale(shift: float, scale: float) -> None:
    """Law: a shift changes no difference and no share; a factor scales differences and intervals, and changes no p."""
    table = run_table(metaformer(), seeds=4)
    changed = table.assign(test_accuracy=table["test_accuracy"] * scale + shift)
    plan = plan_contrasts(metaformer().axes)
    before, after = (estimate_contrasts(read_grid(t, AXES), plan) for t in (table, changed))
    for column in ("difference", "low", "high", "low_single", "se"):
        np.testing.assert_allclose(after[column], scale * before[column], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(after["p_adjusted"], before["p_adjusted"], rtol=1e-6)
    shares = [decompose_variance(read_grid(t, AXES), draws=50)[["share", "low", "high"]] for t in (table, changed)]
    np.testing.assert_allclose(shares[0], shares[1], rtol=1e-5, atol=1e-9)


def test_the_numbers_of_the_seeds_are_irrelevant() -> None:
    """Law: seeds 0 to 4 and 100 to 104 give the same results."""
    table = run_table(metaformer(), seeds=5)
    plan = plan_contrasts(metaformer().axes)
    renamed = table.assign(seed=table["seed"] + 100)
    pd.testing.assert_frame_equal(*(estimate_contrasts(read_grid(t, AXES), plan) for t in (table, renamed)))


def test_no_statistic_needs_torch() -> None:
    """Law: reports can be drawn on machines without torch."""
    import subprocess
    import sys

    names = sorted(path.stem for path in (Path(__file__).parents[2] / "study/analysis").glob("[a-z]*.py"))
    assert "answer" in names
    imports = "; ".join(f"import study.analysis.{name}" for name in names)
    code = f"import sys; {imports}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
