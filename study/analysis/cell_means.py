"""The mean accuracy of every cell with its uncertainty over seeds, its uncertainty from the test set, and its counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from study.analysis.cell_grid import FloatArray, count_runs, is_measured, read_grid
from study.analysis.intervals import CONFIDENCE, estimate_mean, explain_missing_interval


def summarize_cells(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """One row per planned combination of the factors `by`, sorted. Accuracies are fractions.

    Reads from the run table: the factors, `seed`, `status`, `test_accuracy`; `test_images` and `num_classes` where present.

    - `planned`, `done`, `diverged`, `failed`, `missing`: numbers of runs; `n`: those with an accuracy.
    - `mean`, `sd` and `low`, `high`: 95 % Student's t interval. Population: the cell's expected accuracy over training
      seeds, on this data and this test set. NaN below three seeds or where all are equal; `note` says why.
    - `binomial_error` and `binomial_low`, `binomial_high`: standard error from the finite test set and 95 % Wilson interval.
      Population: the accuracy of one such network on all images of the distribution of the test images.
    - `worst`, `best`: the mean if the diverged runs had ended at chance, or as well as they could have; equal to `mean`
      where none diverged.
    """
    grid = read_grid(table, by)
    estimate = estimate_mean(grid.values)
    error, binomial_low, binomial_high = _estimate_sampling_error(estimate.mean, grid.test_images)
    columns = {
        **count_runs(grid),
        "n": estimate.n.astype(int),
        "mean": estimate.mean,
        "sd": estimate.sd,
        "low": estimate.low,
        "high": estimate.high,
        "binomial_error": error,
        "binomial_low": binomial_low,
        "binomial_high": binomial_high,
        "worst": estimate_mean(grid.fill_diverged("worst")).mean,
        "best": estimate_mean(grid.fill_diverged("best")).mean,
        "note": [explain_missing_interval(int(n), float(sd)) for n, sd in zip(estimate.n, estimate.sd, strict=True)],
    }
    keys = pd.DataFrame(list(grid.cells), columns=list(by))
    return keys.assign(**{name: pd.Series(column) for name, column in columns.items()})


def clip_intervals(found: pd.DataFrame) -> pd.DataFrame:
    """The table with `low` and `high` clipped to [0, 1], for printing and drawing only.

    A t interval ignores the bounds of the scale and may exceed 100 %. Nothing is computed from clipped intervals.
    """
    return found.assign(low=found["low"].clip(lower=0.0), high=found["high"].clip(upper=1.0))


def describe_clipping(found: pd.DataFrame) -> str:
    """The ends of the scale at which `clip_intervals` clips an interval, such as "100 %"; "" where it clips none."""
    ends = {"0 %": (found["low"] < 0).any(), "100 %": (found["high"] > 1).any()}
    return " and ".join(end for end, clipped in ends.items() if clipped)


def _estimate_sampling_error(mean: FloatArray, test_images: int | None) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Standard error, lower and upper Wilson limit of each mean accuracy; NaN where the number of images is unknown.

    Wilson's interval, because at accuracies near 1 the standard error approaches 0.
    """
    if test_images is None:
        unknown = np.full(len(mean), np.nan)
        return unknown, unknown, unknown
    known = is_measured(mean)
    p = np.where(known, mean, 0.5)
    low, high = proportion_confint(p * test_images, test_images, alpha=1 - CONFIDENCE, method="wilson")
    error = np.sqrt(p * (1 - p) / test_images)
    return np.where(known, error, np.nan), np.where(known, low, np.nan), np.where(known, high, np.nan)
