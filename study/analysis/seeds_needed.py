"""How many seeds a study needs to find a difference of interest: planned before the runs, never read off afterwards.

The variance of a contrast over n seeds and m test images is `s^2 / n + v`: `s` is the standard deviation over seeds of a
contrast on fixed test images, `v` the squared standard error that the finite test set adds, which no seed reduces. So some
differences are out of reach with the test images at hand. Both come from a pilot, whose `s` is itself uncertain: with few
seeds it may be twice or half of the truth, so the number of seeds has an interval.

Power of a two-sided t test by the noncentral t distribution: Cohen, Statistical Power Analysis, 1988, chapter 2.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from study.analysis.crossed import Estimates
from study.analysis.intervals import MIN_SEEDS, POWER

MOST_SEEDS = 1000  # more are as good as out of reach


@dataclass(frozen=True)
class Spread:
    """What a contrast varies by: fractions of accuracy, or any one unit."""

    seed_sd: float  # over seeds, on fixed test images
    seed_df: float | None  # degrees of freedom behind it; None where it was stated, not estimated
    image_error: float  # standard error that no seed reduces, from the finite test set
    images: int | None  # None: on these test images, whose part is not known


@dataclass(frozen=True)
class SeedsNeeded:
    """Numbers of seeds; None is out of reach. `low` and `high`: at the ends of the 95 % interval of the spread over seeds."""

    seeds: int | None
    low: int | None
    high: int | None
    smallest_with_any_seeds: float  # the difference that infinitely many seeds would find with these test images


def find_spreads(estimates: Estimates) -> list[Spread | None]:
    """The spread of each contrast of a pilot; None where the pilot gives no standard error.

    The part of the variance that seeds don't reduce is what the standard error has beyond the spread over seeds: the finite
    test set's, and that of tuning's choice.
    """
    rest = estimates.standard_error**2 - estimates.sd**2 / estimates.n
    return [
        None if np.isnan(left) else Spread(float(sd), float(n) - 1, float(np.sqrt(max(left, 0.0))), estimates.images)
        for left, sd, n in zip(rest, estimates.sd, estimates.n, strict=True)
    ]


def seeds_needed(difference: float, spread: Spread, *, alpha: float = 0.05) -> SeedsNeeded:
    """The fewest seeds with which a two-sided test at `alpha` finds a true `difference` with 80 % power, three at least.

    `alpha` is the level of a single test: divide it by the number of primary contrasts for a safe family.
    """
    assert difference > 0
    factors = (1.0, 1.0, 1.0)
    if spread.seed_df is not None:
        low, high = stats.chi2.ppf([0.975, 0.025], spread.seed_df)
        factors = (1.0, float(np.sqrt(spread.seed_df / low)), float(np.sqrt(spread.seed_df / high)))
    seeds, low, high = (_fewest(difference, spread.seed_sd * factor, spread, alpha=alpha) for factor in factors)
    limit = (stats.norm.isf(alpha / 2) + stats.norm.isf(1 - POWER)) * spread.image_error
    return SeedsNeeded(seeds, low, high, float(limit))


def _fewest(difference: float, sd: float, spread: Spread, *, alpha: float) -> int | None:
    seeds = np.arange(MIN_SEEDS, MOST_SEEDS + 1)
    over_seeds, over_images = sd**2 / seeds, spread.image_error**2
    variance = over_seeds + over_images
    if not variance.any():
        return MIN_SEEDS
    df = variance**2 / (over_seeds**2 / (seeds - 1) + over_images**2 / ((spread.images or np.inf) - 1))
    critical, shift = stats.t.isf(alpha / 2, df), difference / np.sqrt(variance)
    enough = seeds[stats.nct.sf(critical, df, shift) + stats.nct.cdf(-critical, df, shift) >= POWER]
    return int(enough[0]) if len(enough) else None
