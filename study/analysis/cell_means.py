"""The mean accuracy of every cell with its uncertainty over seeds, its uncertainty from the test set, and its counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from study.analysis.cell_grid import read_grid
from study.analysis.intervals import CONFIDENCE, estimate_mean


def summarize_cells(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """One row per planned combination of the factors `by`, sorted. Accuracies are fractions.

    Reads from the run table: the factors, `seed`, `status`, `test_accuracy`; `test_images` and `num_classes` where present.

    - `planned`, `done`, `diverged`, `failed`, `missing`: numbers of runs; `n`: those with an accuracy.
    - `mean`, `sd` and `low`, `high`: 95 % Student's t interval. Population: the cell's expected accuracy over training
      seeds, on this data and this test set. NaN below three seeds or where all are equal; `note` says why.
    - `binomial_error` and `binomial_low`, `binomial_high`: standard error from the finite test set and 95 % Wilson interval,
      as near 1 the standard error approaches 0. NaN where the number of test images is unknown. Population: the accuracy of
      one such network on all images of the distribution of the test images.
    - `worst`, `best`: the mean if the diverged runs had ended at chance, or as well as they could have; equal to `mean`
      where none diverged.
    """
    grid = read_grid(table, by)
    accuracy = estimate_mean(grid.values)
    images = np.nan if grid.test_images is None else grid.test_images
    low, high = proportion_confint(accuracy.mean * images, images, alpha=1 - CONFIDENCE, method="wilson")
    return pd.DataFrame(list(grid.cells), columns=list(by)).assign(
        planned=(grid.status != "").sum(axis=1),
        **{status: (grid.status == status).sum(axis=1) for status in ("done", "diverged", "failed", "missing")},
        n=accuracy.n.astype(int),
        **{name: getattr(accuracy, name) for name in ("mean", "sd", "low", "high")},
        binomial_error=np.sqrt(accuracy.mean * (1 - accuracy.mean) / images),
        binomial_low=low,
        binomial_high=high,
        worst=estimate_mean(grid.fill_diverged("worst")).mean,
        best=estimate_mean(grid.fill_diverged("best")).mean,
        note=accuracy.notes,
    )


def clip_intervals(found: pd.DataFrame) -> pd.DataFrame:
    """The table with `low` and `high` clipped to [0, 1], for printing and drawing only.

    A t interval ignores the bounds of the scale and may exceed 100 %. Nothing is computed from clipped intervals.
    """
    return found.assign(low=found["low"].clip(lower=0.0), high=found["high"].clip(upper=1.0))


def describe_clipping(found: pd.DataFrame) -> str:
    """The ends of the scale at which `clip_intervals` clips an interval, such as "100 %"; "" where it clips none."""
    ends = {"0 %": (found["low"] < 0).any(), "100 %": (found["high"] > 1).any()}
    return " and ".join(end for end, clipped in ends.items() if clipped)
