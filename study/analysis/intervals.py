"""Intervals over seeds: what the means of a few runs can say, computed on whole arrays of studies at once.

Population: seeds. Training the same cells again with new seeds, on the same data and judged by the same test set, gives
intervals that cover the expected accuracy at the stated rate. They say nothing about other data sets, nor about another
draw of the test set; for the latter stands the binomial error.

The last axis is seeds throughout; NaN marks a run that wasn't measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from study.analysis.cell_grid import BoolArray, FloatArray, is_measured

CONFIDENCE = 0.95  # of every interval and, less one, the level of every test
MIN_SEEDS = 3  # two seeds give a t interval 12.7 standard errors wide to each side: no picture of the spread
FEWEST_FOR_BOOTSTRAP = 20  # simulated: percentile intervals that promise 95 % cover 75 % at n = 3 and 84 % at n = 5
POWER = 0.8


@dataclass(frozen=True, eq=False)
class MeanEstimate:
    """A mean per study with what is needed to judge it; NaN where it can't be had."""

    mean: FloatArray
    sd: FloatArray  # sample standard deviation of what was averaged, ddof = 1
    n: FloatArray
    se: FloatArray
    df: FloatArray
    low: FloatArray
    high: FloatArray

    def study(self, place: int) -> MeanEstimate:
        """One of many studies."""
        fields = (self.mean, self.sd, self.n, self.se, self.df, self.low, self.high)
        return MeanEstimate(*(field[place] for field in fields))

    @property
    def p(self) -> FloatArray:
        """Two-sided p of "the mean is 0"; NaN where no interval is given."""
        return two_sided_p(self)


def estimate_mean(values: FloatArray) -> MeanEstimate:
    """Mean and Student's t interval over the last axis (`... seeds` -> `...`).

    No interval (NaN) with fewer than three values, nor where all values are equal: accuracies come in steps of one test
    image, so equal ones show that the spread is below the step and not that it is zero.
    """
    there = is_measured(values)
    n = there.sum(axis=-1).astype(float)
    mean = divided(np.where(there, values, 0.0).sum(axis=-1), n)
    deviation = np.where(there, values - mean[..., None], 0.0)
    sd = np.sqrt(divided((deviation**2).sum(axis=-1), n - 1))
    return with_interval(mean, sd, n=n, se=divided(sd, np.sqrt(n)), df=n - 1)


def with_interval(mean: FloatArray, sd: FloatArray, *, n: FloatArray, se: FloatArray, df: FloatArray) -> MeanEstimate:
    """The estimate with its t interval, where three seeds and a spread above rounding allow one."""
    spread = se > 1e-12 * np.maximum(np.abs(mean), 1e-3)
    allowed = (n >= MIN_SEEDS) & (df >= 1) & spread
    half = np.where(allowed, se * stats.t.ppf(0.5 + CONFIDENCE / 2, np.maximum(df, 1)), np.nan)
    return MeanEstimate(mean, sd, n, np.where(np.isnan(half), np.nan, se), df, mean - half, mean + half)


def two_sided_p(estimate: MeanEstimate) -> FloatArray:
    """p of the t test that belongs to the interval: below 1 - confidence exactly where the interval leaves out 0."""
    return np.asarray(2 * stats.t.sf(np.abs(estimate.mean / estimate.se), np.maximum(estimate.df, 1)))


def divided(top: FloatArray, bottom: FloatArray) -> FloatArray:
    """`top / bottom`, NaN where the divisor isn't positive."""
    return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), np.nan)


def block_estimate(values: FloatArray, weights: FloatArray) -> MeanEstimate:
    """Contrasts of cell means with seeds as blocks (`studies cells seeds`, `contrasts cells` -> `studies contrasts`).

    Accuracy = cell + seed + rest, with one variance of the rest for all cells. Fitted within blocks (least squares with
    a term per seed), which for complete tables is the mixed model with a random seed, and whose t intervals are exact
    at every n, where the usual z intervals of a mixed model cover too rarely below about ten seeds. It borrows the
    spread of all cells, so it is narrower than the paired t interval, and wrong where cells spread unequally. All
    studies share the pattern of measured runs. Montgomery, Design and Analysis of Experiments, section 4.1.
    """
    there: BoolArray = np.asarray(is_measured(values).all(axis=0))
    rows, columns = np.nonzero(there)
    n_cells, n_seeds = there.shape
    design = np.hstack([np.eye(n_cells)[rows], np.eye(n_seeds)[columns]])
    inverse = np.linalg.pinv(design.T @ design)
    observed = values[:, rows, columns]  # studies runs
    coefficients = observed @ design @ inverse
    residual = observed - coefficients @ design.T
    df = float(len(rows) - np.linalg.matrix_rank(design))
    full = np.hstack([weights, np.zeros((len(weights), n_seeds))])
    mean = coefficients @ full.T
    variance = (residual**2).sum(axis=1, keepdims=True) / df if df > 0 else np.full((len(values), 1), np.nan)
    se = np.sqrt(variance * np.maximum(((full @ inverse) * full).sum(axis=1), 0.0))  # rounding may leave -1e-17
    estimable = np.isclose(full @ inverse @ design.T @ design, full).all(axis=1)  # no empty cell is asked for
    complete = (there[None] | (weights == 0)[:, :, None]).all(axis=1)  # contrasts seeds
    n = np.where(estimable, complete.sum(axis=1), 0).astype(float)
    shape = mean.shape
    return with_interval(
        np.where(n > 0, mean, np.nan),
        np.broadcast_to(np.sqrt(variance), shape),
        n=np.broadcast_to(n, shape),
        se=se,
        df=np.full(shape, df),
    )


def solve_detectable_difference(sd: float, n: int, *, alpha: float = 0.05) -> float:
    """The smallest true difference that a two-sided paired t test at `alpha` would see in four of five studies.

    Solved on the noncentral t distribution, for the spread `sd` of the paired differences that was observed; with few
    seeds that spread is itself uncertain. NaN below three seeds. Cohen, Statistical Power Analysis, chapter 2.
    """
    if n < MIN_SEEDS or not sd > 0:
        return float("nan")
    critical = stats.t.isf(alpha / 2, n - 1)

    def shortfall(noncentrality: float) -> float:
        return float(stats.nct.sf(critical, n - 1, noncentrality)) - POWER  # the wrong sign's tail is below 1e-3

    above = 1.0
    while shortfall(above) < 0:
        above *= 2
    return float(optimize.brentq(shortfall, 0.0, above)) * sd / float(np.sqrt(n))
