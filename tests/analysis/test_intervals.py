"""Intervals over seeds cover what they promise, at the smallest numbers of seeds; block intervals are a mixed model's."""

import itertools

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from simulated_study import metaformer, run_table

from study.analysis.cell_grid import read_grid
from study.analysis.intervals import block_estimate, estimate_mean, solve_detectable_difference
from study.rng import stream

STUDIES = 4000
MONTE_CARLO = 3.5 * np.sqrt(0.95 * 0.05 / STUDIES)  # the error of a simulated 95 % coverage
SEEDS = [3, 5, 10]


def contrast_of(first: int, second: int, cells: int = 9) -> np.ndarray:
    """One cell minus another."""
    weights = np.zeros((1, cells))
    weights[0, [first, second]] = 1, -1
    return weights


@pytest.mark.parametrize("seeds", SEEDS)
def test_t_intervals_of_cells_cover_nominally(seeds: int) -> None:
    """Law: 95 % t intervals of cell means cover the expected accuracy in 95 % of studies."""
    truth = metaformer()
    estimate = estimate_mean(truth.values(STUDIES, seeds=seeds, key=f"cells {seeds}"))
    covered = (estimate.low <= truth.means.ravel()) & (truth.means.ravel() <= estimate.high)
    assert np.abs(covered.mean(axis=0) - 0.95).max() < MONTE_CARLO


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("seed_sd", [0.0, 0.01])
def test_paired_intervals_cover_nominally_and_hold_their_level(seeds: int, seed_sd: float) -> None:
    """Law: whether seeds share much or nothing, paired t covers in 95 % of studies and rejects a true null in 5 %."""
    truth = metaformer(seed_sd=seed_sd)
    values = truth.values(STUDIES, seeds=seeds, key=f"paired {seeds} {seed_sd}")
    estimate = estimate_mean(values[:, 0] - values[:, 1])
    real = truth.means.ravel()[0] - truth.means.ravel()[1]
    assert abs(((estimate.low <= real) & (real <= estimate.high)).mean() - 0.95) < MONTE_CARLO
    null = estimate_mean(values[:, 0] - values[:, 1] - real)
    assert abs((null.p < 0.05).mean() - 0.05) < MONTE_CARLO


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("seed_sd", [0.0, 0.01])
def test_block_intervals_cover_nominally_and_are_narrower(seeds: int, seed_sd: float) -> None:
    """Law: the mixed model's intervals cover in 95 % of studies at 3, 5 and 10 seeds, also where seeds don't matter."""
    truth = metaformer(seed_sd=seed_sd)
    values = truth.values(STUDIES, seeds=seeds, key=f"block {seeds} {seed_sd}")
    weights = contrast_of(0, 1)
    estimate = block_estimate(values, weights)
    real = float((weights @ truth.means.ravel())[0])
    covered = (estimate.low <= real) & (real <= estimate.high)
    assert abs(covered.mean() - 0.95) < MONTE_CARLO
    paired = estimate_mean(values[:, 0] - values[:, 1])
    assert np.mean(estimate.high - estimate.low) < np.mean(paired.high - paired.low)


def test_block_intervals_cover_where_runs_are_missing() -> None:
    """Law: with holes in the table the block intervals still cover in 95 % of studies."""
    truth = metaformer()
    values = truth.values(STUDIES, seeds=5, key="block holes")
    for cell, seed in [(0, 0), (1, 4), (3, 2), (8, 1)]:
        values[:, cell, seed] = np.nan
    estimate = block_estimate(values, contrast_of(0, 1))
    real = truth.means.ravel()[0] - truth.means.ravel()[1]
    assert abs(((estimate.low <= real) & (real <= estimate.high)).mean() - 0.95) < MONTE_CARLO


def test_block_estimates_are_those_of_a_mixed_model_with_a_random_seed() -> None:
    """Law: for a complete table, difference and standard error equal statsmodels' REML fit."""
    table = run_table(metaformer(seed_sd=0.02), seeds=6)
    grid = read_grid(table, ["patch_size", "token_mixer"])
    table["cell"] = [f"{p} {m}" for p, m in zip(table["patch_size"], table["token_mixer"], strict=True)]
    names = [f"{p} {m}" for p, m in grid.cells]
    table["points"] = 1000 * table["test_accuracy"]  # the fit takes variances below 0.01 for zero
    fitted = smf.mixedlm("points ~ C(cell, Treatment('1 depthwise_conv'))", table, groups=table["seed"]).fit(reml=True)
    place = next(name for name in fitted.params.index if "1 attention" in name)
    weights = contrast_of(names.index("1 attention"), names.index("1 depthwise_conv"))
    estimate = block_estimate(grid.values[None], weights).study(0)
    assert 1000 * estimate.mean[0] == pytest.approx(fitted.params[place], rel=1e-6)
    assert 1000 * estimate.se[0] == pytest.approx(fitted.bse[place], rel=1e-3)


def test_block_estimates_with_holes_are_those_of_least_squares() -> None:
    """Law: with missing runs, difference, interval and df are statsmodels' for cell and seed as factors."""
    table = run_table(metaformer(), seeds=5).drop(index=[0, 7, 13, 14, 40]).reset_index(drop=True)
    grid = read_grid(table, ["patch_size", "token_mixer"])
    table["cell"] = [grid.cells.index((p, m)) for p, m in zip(table["patch_size"], table["token_mixer"], strict=True)]
    fitted = smf.ols("test_accuracy ~ C(cell) + C(seed)", table).fit()
    estimate = block_estimate(grid.values[None], contrast_of(1, 0)).study(0)
    assert estimate.df[0] == fitted.df_resid
    np.testing.assert_allclose((estimate.low[0], estimate.high[0]), fitted.conf_int().loc["C(cell)[T.1]"], rtol=1e-9)


def test_contrasts_of_an_empty_cell_have_no_block_estimate() -> None:
    """Law: what no run speaks about is NaN, not a figure of the fit."""
    values = metaformer().values(1, seeds=5)
    values[:, 0] = np.nan
    estimate = block_estimate(values, np.vstack([contrast_of(0, 1), contrast_of(1, 2)])).study(0)
    assert np.isnan([estimate.mean[0], estimate.low[0]]).all()
    assert not np.isnan(estimate.low[1])


@pytest.mark.parametrize(("seeds", "alpha"), list(itertools.product(SEEDS, [0.05, 0.01])))
def test_the_detectable_difference_is_seen_in_four_of_five_studies(seeds: int, alpha: float) -> None:
    """Law: simulated studies with just this difference reject in 80 % of cases."""
    difference = solve_detectable_difference(1.0, seeds, alpha=alpha)
    drawn = stream(0, "power", seeds).normal(difference, 1.0, (STUDIES, seeds))
    power = (estimate_mean(drawn).p < alpha).mean()
    assert abs(power - 0.8) < 3.5 * np.sqrt(0.8 * 0.2 / STUDIES)


def test_without_three_seeds_or_a_spread_nothing_is_detectable() -> None:
    """Law: no claim about what could have been seen without a spread to judge by."""
    assert np.isnan(
        [solve_detectable_difference(1.0, 2), solve_detectable_difference(0.0, 5), solve_detectable_difference(float("nan"), 5)]
    ).all()


def test_p_and_interval_agree_with_scipy() -> None:
    """Law: the p is that of scipy's one-sample t test, and is below 5 % exactly where the interval leaves out zero."""
    drawn = stream(0, "t test").normal(0.5, 1.0, (200, 6))
    estimate = estimate_mean(drawn)
    np.testing.assert_allclose(estimate.p, stats.ttest_1samp(drawn, 0, axis=1).pvalue)
    np.testing.assert_array_equal(estimate.p < 0.05, (estimate.low > 0) | (estimate.high < 0))


def test_missing_values_are_left_out_row_by_row() -> None:
    """Law: a row with holes gives the figures of its measured values."""
    drawn = stream(0, "holes").normal(size=(3, 8))
    drawn[1, [0, 5]] = np.nan
    frame = pd.DataFrame(drawn)
    estimate = estimate_mean(drawn)
    np.testing.assert_allclose(estimate.mean, frame.mean(axis=1))
    np.testing.assert_allclose(estimate.sd, frame.std(axis=1))
    np.testing.assert_array_equal(estimate.n, frame.notna().sum(axis=1))
