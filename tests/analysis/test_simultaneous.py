"""Families of contrasts: one contrast is Student's t, many equal ones are one, familywise error and coverage in simulations."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from simulated_study import correctness_grid, estimate_values

from study.analysis.crossed import Estimates, estimate_weighted_means
from study.analysis.simultaneous import SimultaneousIntervals, share_df, simultaneous_intervals

CELLS = list(itertools.product(range(3), range(3)))


def estimate(mean: list[float], covariance: list[list[float]], df: float) -> Estimates:
    size = len(mean)
    n, zeros = np.full(size, 5.0), np.zeros(size)
    return Estimates(np.array(mean), np.array(covariance), np.full(size, df), n, zeros, zeros, 100)


def critical(found: SimultaneousIntervals) -> float:
    """Half the width of the first interval."""
    return float(found.high[0] - found.low[0]) / 2


def main_effects_and_interactions() -> np.ndarray:
    """Ten contrasts of a 3 x 3 design: all pairs of levels of both factors averaged over the other, and the interactions."""
    rows = []
    for a, b in itertools.combinations(range(3), 2):
        rows.append([((p == b) - (p == a)) / 3 for p, _ in CELLS])
        rows.append([((q == b) - (q == a)) / 3 for _, q in CELLS])
    for p, q in itertools.product((1, 2), (1, 2)):
        signs = {(p, q): 1, (0, q): -1, (p, 0): -1, (0, 0): 1}
        rows.append([signs.get(cell, 0) for cell in CELLS])
    return np.array(rows, dtype=float)


@pytest.mark.parametrize("df", [2.0, 9.0, 300.0])
def test_one_contrast_is_a_t_test(df: float) -> None:
    found = simultaneous_intervals(estimate([1.3], [[0.25]], df))
    assert critical(found) / 0.5 == pytest.approx(stats.t.ppf(0.975, df), rel=0.02)
    assert found.p[0] == pytest.approx(2 * stats.t.sf(2.6, df), rel=0.05)


def test_copies_of_a_contrast_cost_nothing_and_independent_ones_what_they_must() -> None:
    """Fully correlated contrasts need no adjustment; eight independent ones need Sidak's (at many degrees of freedom)."""
    copies = simultaneous_intervals(estimate([0.0] * 8, np.ones((8, 8)).tolist(), 1e6))
    apart = simultaneous_intervals(estimate([0.0] * 8, np.eye(8).tolist(), 1e6))
    assert critical(copies) == pytest.approx(stats.norm.ppf(0.975), rel=0.01)
    assert critical(apart) == pytest.approx(stats.norm.ppf((1 + 0.95 ** (1 / 8)) / 2), rel=0.01)


def test_critical_value_is_dunnetts() -> None:
    """Three treatments against a control, 16 degrees of freedom, correlation 1/2: 2.59 in Dunnett's table (1964, two-sided)."""
    covariance = (np.eye(3) + 1) / 2
    assert critical(simultaneous_intervals(estimate([0.0] * 3, covariance.tolist(), 16.0))) == pytest.approx(2.59, abs=0.02)


def test_adjusted_p_and_interval_agree() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 5, 40)) + rng.normal(size=(6, 5, 1)) * 0.1 + np.linspace(0, 0.7, 6)[:, None, None]
    found = simultaneous_intervals(estimate_values(values))
    outside = (found.low > 0) | (found.high < 0)
    assert outside.any() and not outside.all()
    assert np.array_equal(found.p < 0.05, outside)


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize(
    "seed_sd", [0.01, 0.05, 0.15]
)  # of an accuracy, in residual standard deviations; the images' part is 0.04
def test_familywise_error_is_at_most_nominal(seeds: int, seed_sd: float) -> None:
    """In null studies some contrast of ten is called significant in at most 5 % (Monte Carlo error 1.5 points)."""
    rng, studies, images = np.random.default_rng(11), 200, 360
    weights, wrong = main_effects_and_interactions(), 0
    for _ in range(studies):
        values = (
            rng.normal(size=(9, seeds, images)) + 0.7 * rng.normal(size=(9, 1, images)) + 0.7 * rng.normal(size=(1, 1, images))
        )
        values += seed_sd * rng.normal(size=(9, seeds, 1))
        found = simultaneous_intervals(estimate_weighted_means(correctness_grid(values), weights), draws=4000)
        wrong += bool((found.p < 0.05).any())
    assert wrong / studies <= 0.05 + 2 * 0.0155


def test_contrasts_with_fewer_seeds_have_wider_intervals_of_the_same_tail() -> None:
    """Two independent contrasts of 3 and 10 seeds: equal tails, between a single test's and Bonferroni's."""
    two = estimate([0.0, 0.0], np.eye(2).tolist(), 1.0)
    found = simultaneous_intervals(replace(two, df=np.array([2.0, 9.0]), n=np.array([3.0, 10.0])))
    tails = 2 * stats.t.sf(found.high, [2, 9])
    assert tails[0] == pytest.approx(tails[1])
    assert 0.025 <= tails[0] < 0.035
    assert found.p == pytest.approx([1.0, 1.0])


def test_few_seeds_never_lend_their_contrast_more_degrees_of_freedom_than_many_have() -> None:
    """A contrast of 3 seeds that happen to agree counts with the smallest degrees of freedom of all with as many or more."""
    two = replace(estimate([0.0] * 3, np.eye(3).tolist(), 1.0), df=np.array([300.0, 9.0, 40.0]), n=np.array([3.0, 10.0, 10.0]))
    assert share_df(two).tolist() == [9.0, 9.0, 9.0]
