"""Curves of accuracy over cost: interpolation, area and power laws, each recomputed by other means."""

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats
from simulated_study import Truth, run_table

from study.analysis.cell_grid import FloatArray, Grid, read_grid
from study.analysis.cost_curves import average_over_costs, choose_budgets, fit_power_law, interpolate_at_budgets
from study.analysis.pareto_front import compute_cell_costs

BY = ["backbone", "dim"]
WIDTHS = [32, 64, 128, 256, 512]
COSTS = {"convmixer": 1.0, "vit": 3.0}


def study(means: np.ndarray | None = None, *, seeds: int = 5, widths: list[int] = WIDTHS) -> pd.DataFrame:
    """Two backbones over widths; cost is the width squared times a factor of the backbone."""
    rise = np.linspace(0.6, 0.9, len(widths))
    means = np.stack([rise, rise - 0.05]) if means is None else means
    table = run_table(Truth({"backbone": list(COSTS), "dim": widths}, means, 0.004, 0.003), seeds=seeds)
    return table.assign(macs=table["dim"] ** 2 * table["backbone"].map(COSTS))


def curves(table: pd.DataFrame, cost: str = "macs") -> tuple[Grid, FloatArray]:
    grid = read_grid(table, BY)
    return grid, compute_cell_costs(table, grid, cost=cost)


def by_seed(table: pd.DataFrame, backbone: str) -> tuple[np.ndarray, np.ndarray]:
    """Costs, and accuracies as `seeds sizes`."""
    own = table[table["backbone"] == backbone]
    wide = own.pivot_table(index="seed", columns="macs", values="test_accuracy")
    return wide.columns.to_numpy(dtype=float), wide.to_numpy()


def test_interpolation_at_a_budget_is_numpys_seed_by_seed() -> None:
    """Law: each seed's own interpolation in log cost, then Student's t over seeds; differences are paired."""
    table = study()
    found = interpolate_at_budgets(*curves(table), along="dim", budgets=[20_000.0]).set_index("backbone")
    read = {}
    for backbone in COSTS:
        cost, values = by_seed(table, backbone)
        read[backbone] = np.array([np.interp(np.log(20_000), np.log(cost), row) for row in values])
        low, high = stats.t.interval(0.95, 4, loc=read[backbone].mean(), scale=stats.sem(read[backbone]))
        row = found.loc[backbone]
        assert row[["accuracy", "low", "high"]].tolist() == pytest.approx([read[backbone].mean(), low, high])
    gap = stats.ttest_1samp(read["vit"] - read["convmixer"], 0).confidence_interval()
    assert found.loc["vit", ["difference_low", "difference_high"]].tolist() == pytest.approx([gap.low, gap.high])


def test_nothing_is_extrapolated_beyond_the_measured_sizes() -> None:
    """Law: a budget outside a curve's costs gives no accuracy but the reason."""
    found = interpolate_at_budgets(*curves(study()), along="dim", budgets=[1500.0]).set_index("backbone")
    assert found.loc["convmixer", "accuracy"] == pytest.approx(0.62, abs=0.03)
    assert np.isnan(found.loc["vit", "accuracy"])
    assert "outside the measured costs" in found.loc["vit", "note"]


def test_budgets_are_chosen_from_the_common_range() -> None:
    """Law: the ends and the geometric middle of the costs that every curve covers; none where there is no common range."""
    budgets = choose_budgets(*curves(study()), along="dim")
    np.testing.assert_allclose(budgets, [3 * 32**2, np.sqrt(3) * 32 * 512, 512**2])
    assert choose_budgets(*curves(study().iloc[:0]), along="dim") == []


def test_the_area_is_the_trapezoid_over_log_cost() -> None:
    """Law: numpy's trapezoid over the common range, divided by its width, seed by seed."""
    table = study()
    found = average_over_costs(*curves(table), along="dim").set_index("backbone")
    start, end = 3 * 32**2, 512**2
    for backbone in COSTS:
        cost, values = by_seed(table, backbone)
        fine = np.unique(np.concatenate([np.linspace(np.log(start), np.log(end), 2001), np.log(cost)]))
        fine = fine[(fine >= np.log(start) - 1e-12) & (fine <= np.log(end) + 1e-12)]
        areas = [integrate.trapezoid(np.interp(fine, np.log(cost), row), fine) / np.log(end / start) for row in values]
        assert found.loc[backbone, "accuracy"] == pytest.approx(np.mean(areas), rel=1e-5)


def test_a_flat_curve_has_its_accuracy_as_area() -> None:
    """Law: the area is normalized, so a constant accuracy is its own area."""
    table = study().assign(test_accuracy=0.75)
    np.testing.assert_allclose(average_over_costs(*curves(table), along="dim")["accuracy"], 0.75)


def test_the_exponent_of_a_power_law_is_recovered_and_covered() -> None:
    """Law: studies with error = a * cost ** -b give intervals that cover b in 95 % of cases, and a negligible misfit."""
    cost = np.array(WIDTHS, dtype=float) ** 2
    errors = 3.0 * cost**-0.25
    covered = []
    for number in range(150):
        truth = Truth({"backbone": ["vit"], "dim": WIDTHS}, (1 - errors)[None], 0.0, 0.002)
        table = run_table(truth, seeds=5, key=f"power {number}").assign(test_images=100_000)
        row = fit_power_law(*curves(table.assign(macs=table["dim"] ** 2)), along="dim").iloc[0]
        covered.append(row["low"] <= 0.25 <= row["high"])
        assert row["misfit"] < 0.06
    assert abs(np.mean(covered) - 0.95) < 3.5 * np.sqrt(0.95 * 0.05 / 150)


def test_the_exponent_is_that_of_least_squares() -> None:
    """Law: on complete curves the exponent is scipy's slope of the logarithms of the sizes' mean errors."""
    table = study()
    cost, values = by_seed(table, "vit")
    errors = ((1 - values.mean(axis=0)) * 360 + 0.5) / 361
    slope = stats.linregress(np.log(cost), np.log(errors)).slope
    assert fit_power_law(*curves(table), along="dim").set_index("backbone").loc["vit", "exponent"] == pytest.approx(-slope)


def test_three_sizes_are_too_few_for_a_law() -> None:
    """Law: below four sizes nothing is fitted, and the note says so."""
    found = fit_power_law(*curves(study(widths=[32, 64, 128])), along="dim")
    assert found["exponent"].isna().all()
    assert found["note"].str.contains("at least 4").all()


def test_a_cost_that_hardly_varies_makes_no_curve() -> None:
    """Law: cells matched on parameters have no curve over parameters."""
    table = study().assign(params=50_000)
    found = interpolate_at_budgets(*curves(table, "params"), along="dim", budgets=[50_000.0])
    assert found["accuracy"].isna().all()
    assert found["note"].str.contains("hardly differs").all()
    assert choose_budgets(*curves(table, "params"), along="dim") == []


def test_a_run_without_errors_has_a_logarithm() -> None:
    """Law: accuracy 1 counts as half a wrong image, so the fit stays finite."""
    means = np.stack([np.linspace(0.9, 1.0, 5)] * 2)
    table = study(means)
    found = fit_power_law(*curves(table.assign(test_accuracy=table["test_accuracy"].clip(upper=1.0))), along="dim")
    assert np.isfinite(found["exponent"]).all()
