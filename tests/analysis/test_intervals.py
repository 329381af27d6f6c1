"""Intervals over seeds have their nominal coverage, also at the smallest numbers of seeds."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from simulated_study import metaformer

from study.analysis.intervals import estimate_mean, solve_detectable_difference
from study.rng import stream

STUDIES = 4000
MONTE_CARLO = 3.5 * np.sqrt(0.95 * 0.05 / STUDIES)  # the error of a simulated 95 % coverage
SEEDS = [3, 5, 10]


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
    """Law: with correlated and uncorrelated sides, paired t covers in 95 % of studies and rejects a true null in 5 %."""
    truth = metaformer(seed_sd=seed_sd)
    values = truth.values(STUDIES, seeds=seeds, key=f"paired {seeds} {seed_sd}")
    estimate = estimate_mean(values[:, 0] - values[:, 1])
    real = truth.means.ravel()[0] - truth.means.ravel()[1]
    assert abs(((estimate.low <= real) & (real <= estimate.high)).mean() - 0.95) < MONTE_CARLO
    null = estimate_mean(values[:, 0] - values[:, 1] - real)
    assert abs((null.p < 0.05).mean() - 0.05) < MONTE_CARLO


@pytest.mark.parametrize(("seeds", "alpha"), list(itertools.product(SEEDS, [0.05, 0.01])))
def test_the_detectable_difference_has_80_percent_power(seeds: int, alpha: float) -> None:
    """Law: 80 % of simulated studies with this true difference reject."""
    difference = solve_detectable_difference(1.0, seeds, alpha=alpha)
    drawn = stream(0, "power", seeds).normal(difference, 1.0, (STUDIES, seeds))
    power = (estimate_mean(drawn).p < alpha).mean()
    assert abs(power - 0.8) < 3.5 * np.sqrt(0.8 * 0.2 / STUDIES)


def test_without_three_seeds_or_a_spread_nothing_is_detectable() -> None:
    """Law: without an estimate of the spread the detectable difference is NaN."""
    assert np.isnan(
        [solve_detectable_difference(1.0, 2), solve_detectable_difference(0.0, 5), solve_detectable_difference(float("nan"), 5)]
    ).all()


def test_p_and_interval_agree_with_scipy() -> None:
    """Law: p is that of scipy's one-sample t test, and is below 5 % exactly where the interval excludes zero."""
    drawn = stream(0, "t test").normal(0.5, 1.0, (200, 6))
    estimate = estimate_mean(drawn)
    np.testing.assert_allclose(estimate.p, stats.ttest_1samp(drawn, 0, axis=1).pvalue)
    np.testing.assert_array_equal(estimate.p < 0.05, (estimate.low > 0) | (estimate.high < 0))


def test_missing_values_are_excluded_row_by_row() -> None:
    """Law: a row with missing values has the statistics of its measured values."""
    drawn = stream(0, "gaps").normal(size=(3, 8))
    drawn[1, [0, 5]] = np.nan
    frame = pd.DataFrame(drawn)
    estimate = estimate_mean(drawn)
    np.testing.assert_allclose(estimate.mean, frame.mean(axis=1))
    np.testing.assert_allclose(estimate.sd, frame.std(axis=1))
    np.testing.assert_array_equal(estimate.n, frame.notna().sum(axis=1))
