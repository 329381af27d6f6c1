"""How many seeds a study needs to find a difference of interest: planned before the runs, never read off afterwards.

The variance of a contrast over n seeds and m test images is `s^2 / n + v`: `s` is the standard deviation over seeds of a
contrast on fixed test images, `v` the squared standard error that the finite test set adds, which no seed reduces. So some
differences are out of reach with the test images at hand, whatever the number of seeds. Both come from a pilot (`from_pilot`),
whose `s` is itself uncertain: with few seeds it may be twice or half of the truth, so the number of seeds has an interval.

Power of a two-sided t test by the noncentral t distribution: Cohen, Statistical Power Analysis, 1988, chapter 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from study.analysis.crossed import Array, crossed_estimate
from study.analysis.intervals import POWER

MOST_SEEDS = 1000  # more are as good as out of reach


@dataclass(frozen=True)
class Spread:
    """What a contrast varies by: fractions of accuracy, or any one unit."""

    seed_sd: float  # over seeds, on fixed test images
    seed_df: float | None  # degrees of freedom behind it; None where it was stated, not estimated
    image_error: float  # standard error from the finite test set alone
    images: int


@dataclass(frozen=True)
class SeedsNeeded:
    """Numbers of seeds; None is out of reach. `low` and `high`: at the ends of the 95 % interval of the spread over seeds."""

    seeds: int | None
    low: int | None
    high: int | None
    smallest_with_any_seeds: float  # the difference that infinitely many seeds would find with these test images


def from_pilot(differences: Array) -> Spread:
    """The spread of a contrast by a pilot's `n m` differences of correctness, seeds by images (two seeds at least)."""
    n, m = differences.shape
    total = crossed_estimate(differences[None]).covariance[0, 0]
    seed = float(differences.mean(axis=1).var(ddof=1))
    return Spread(float(np.sqrt(seed)), n - 1, float(np.sqrt(max(total - seed / n, 0.0))), m)


def seeds_needed(difference: float, spread: Spread, *, alpha: float = 0.05, power: float = POWER) -> SeedsNeeded:
    """The fewest seeds with which a two-sided test at `alpha` finds a true `difference` with the given power.

    `alpha` is the level of a single test: divide it by the number of primary contrasts for a safe family.
    """
    assert difference > 0
    factors = (1.0, 1.0, 1.0)
    if spread.seed_df is not None:
        low, high = stats.chi2.ppf([0.975, 0.025], spread.seed_df)
        factors = (1.0, float(np.sqrt(spread.seed_df / low)), float(np.sqrt(spread.seed_df / high)))
    seeds, low, high = (_fewest(difference, spread.seed_sd * factor, spread, alpha=alpha, power=power) for factor in factors)
    limit = (stats.norm.isf(alpha / 2) + stats.norm.isf(1 - power)) * spread.image_error
    return SeedsNeeded(seeds, low, high, float(limit))


def _fewest(difference: float, sd: float, spread: Spread, *, alpha: float, power: float) -> int | None:
    """By bisection, since power grows with the number of seeds."""
    low, high = 1, 2
    while high <= MOST_SEEDS and _power(difference, high, sd, spread, alpha=alpha) < power:
        low, high = high, 2 * high
    if high > MOST_SEEDS:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(difference, middle, sd, spread, alpha=alpha) >= power else (middle, high)
    return high


def _power(difference: float, seeds: int, sd: float, spread: Spread, *, alpha: float) -> float:
    over_seeds, over_images = sd**2 / seeds, spread.image_error**2
    variance = over_seeds + over_images
    if variance == 0:
        return 1.0
    df = variance**2 / (over_seeds**2 / (seeds - 1) + over_images**2 / (spread.images - 1))
    critical, shift = stats.t.isf(alpha / 2, df), difference / np.sqrt(variance)
    return float(stats.nct.sf(critical, df, shift) + stats.nct.cdf(-critical, df, shift))
