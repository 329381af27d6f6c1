"""Student's t intervals over seeds, computed on whole arrays of studies at once.

Population: seeds. Training the same cells again with new seeds, on the same data and evaluated on the same test set, gives
intervals that cover the expected accuracy at the stated rate. They do not cover other data sets or another sample of
test images; for the latter the cells have a binomial standard error.

The last axis is seeds throughout; NaN marks a run that was not measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from study.analysis.cell_grid import FloatArray, is_measured

CONFIDENCE = 0.95  # of every interval; one minus it is the level of every test
MIN_SEEDS = 3  # with two seeds a t interval reaches 12.7 standard errors to each side: no picture of the spread
POWER = 0.8
ZERO = 1e-12
"""Differences of accuracies below this are rounding errors."""


@dataclass(frozen=True, eq=False)
class MeanEstimate:
    """Means with their uncertainty, one entry per averaged row; NaN where not available."""

    mean: FloatArray
    sd: FloatArray  # sample standard deviation (ddof = 1) of the averaged values
    n: FloatArray
    se: FloatArray
    low: FloatArray
    high: FloatArray

    @property
    def p(self) -> FloatArray:
        """Two-sided p of "the mean is 0": below 1 - CONFIDENCE exactly where the interval excludes 0; NaN without interval."""
        return np.asarray(2 * stats.t.sf(np.abs(self.mean / self.se), np.maximum(self.n - 1, 1)))

    @property
    def notes(self) -> list[str]:
        """Why each mean has no interval; "" where it has one."""
        return [_explain_missing_interval(int(n), float(sd)) for n, sd in zip(self.n.flat, self.sd.flat, strict=True)]


def estimate_mean(values: FloatArray) -> MeanEstimate:
    """Mean and Student's t interval over the last axis (`... seeds` -> `...`).

    No interval (NaN) with fewer than three values, nor where all values are equal: accuracies come in steps of one test
    image, so equal values show that the spread is below one step and not that it is zero.
    """
    known = is_measured(values)
    n = known.sum(axis=-1).astype(float)
    mean = _divide(np.where(known, values, 0.0).sum(axis=-1), n)
    deviation = np.where(known, values - mean[..., None], 0.0)
    sd = np.sqrt(_divide((deviation**2).sum(axis=-1), n - 1))
    se = _divide(sd, np.sqrt(n))
    allowed = (n >= MIN_SEEDS) & (se > ZERO * np.maximum(np.abs(mean), 1e-3))
    se = np.where(allowed, se, np.nan)
    half = se * stats.t.ppf(0.5 + CONFIDENCE / 2, np.maximum(n - 1, 1))
    return MeanEstimate(mean, sd, n, se, mean - half, mean + half)


def _divide(top: FloatArray, bottom: FloatArray) -> FloatArray:
    return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), np.nan)


def _explain_missing_interval(n: int, sd: float) -> str:
    if n == 0:
        return "no run was measured"
    if n < MIN_SEEDS:
        return f"no interval: {n} seed{'s' * (n > 1)}, and an interval needs at least {MIN_SEEDS}"
    if sd <= ZERO:
        return f"no interval: all {n} seeds gave the same value, so the spread is below one test image"
    return ""


def solve_detectable_difference(sd: float, n: int, *, alpha: float = 0.05) -> float:
    """The smallest true difference that a two-sided paired t test at level `alpha` detects with 80 % power.

    Solved on the noncentral t distribution for the observed spread `sd` of the paired differences; with few seeds that
    spread is itself uncertain. NaN below three seeds. Cohen, Statistical Power Analysis, chapter 2.
    """
    if n < MIN_SEEDS or not sd > 0:
        return float("nan")
    critical = stats.t.isf(alpha / 2, n - 1)

    def missing_power(noncentrality: float) -> float:
        return float(stats.nct.sf(critical, n - 1, noncentrality)) - POWER  # the tail of the wrong sign is below 1e-3

    upper = 1.0
    while missing_power(upper) < 0:
        upper *= 2
    return float(optimize.brentq(missing_power, 0.0, upper)) * sd / float(np.sqrt(n))
