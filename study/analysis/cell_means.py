"""The mean accuracy of every cell with its interval and its counts."""

import numpy as np
import pandas as pd
from scipy import stats

from study.analysis.cell_grid import FloatArray, Grid, average_measured
from study.analysis.crossed import Estimates, estimate_weighted_means
from study.analysis.intervals import CONFIDENCE, MIN_SEEDS


def summarize_cells(grid: Grid) -> pd.DataFrame:
    """One row per planned combination of the grid's factors, sorted. Accuracies are fractions.

    - `planned`, `done`, `diverged`, `failed`, `missing`: numbers of runs; `n`: those with an accuracy.
    - `mean`, `sd` (over seeds, on these test images), `se`, `images`, `seed_share` (of the variance, what more seeds would
      reduce), as from `estimate_weighted_means`.
    - `low`, `high`: 95 % interval. Population: new training seeds and new test images of this kind (Wilson's interval with
      the effective number of images); without correctness per image new seeds, on these test images (Student's t). NaN below
      three seeds; `note` says why.
    - `worst`, `best`: the mean if the diverged runs had ended at chance, or as well as they could have; equal to `mean`
      where none diverged.
    """
    found = estimate_weighted_means(grid, np.eye(len(grid.cells)))
    low, high = compute_cell_intervals(found)
    return pd.DataFrame(list(grid.cells), columns=list(grid.factors), index=range(len(grid.cells))).assign(
        planned=(grid.status != "").sum(axis=1),
        **{status: (grid.status == status).sum(axis=1) for status in ("done", "diverged", "failed", "missing")},
        n=found.n.astype(int),
        images=pd.array([found.images or pd.NA] * len(grid.cells), dtype="Int64"),
        mean=found.mean,
        sd=found.sd,
        se=found.standard_error,
        low=low,
        high=high,
        seed_share=found.seed_share,
        worst=average_measured(grid.fill_diverged("worst")),
        best=average_measured(grid.fill_diverged("best")),
        note=np.where(np.isnan(low), found.notes, ""),
    )


def compute_cell_intervals(found: Estimates) -> tuple[FloatArray, FloatArray]:
    """Lower and upper limits of mean accuracies: Student's t, or over seeds and images Wilson's interval.

    That has the effective number of images p (1 - p) / variance and the quantile of Student's t; where no run errs at all,
    the effective number is that of the images. Student's own interval undercovers near the ceiling, where the standard error
    goes to 0 with the error. Miller 2024; Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    if found.images is None:
        return found.interval()
    p = found.mean
    certain = (found.n >= MIN_SEEDS) & ((p == 0) | (p == 1))
    effective = np.where(certain, found.images, p * (1 - p) / found.standard_error**2)
    t = stats.t.ppf(0.5 + CONFIDENCE / 2, np.where(certain, found.images - 1, found.df))
    center = (p + t**2 / (2 * effective)) / (1 + t**2 / effective)
    half = t / (1 + t**2 / effective) * np.sqrt(p * (1 - p) / effective + t**2 / (4 * effective**2))
    return center - half, center + half


def clip_intervals(found: pd.DataFrame) -> pd.DataFrame:
    """The table with `low` and `high` clipped to [0, 1], for printing and drawing only.

    A t interval ignores the bounds of the scale and may exceed 100 %. Nothing is computed from clipped intervals.
    """
    return found.assign(low=found["low"].clip(lower=0.0), high=found["high"].clip(upper=1.0))


def describe_clipping(found: pd.DataFrame) -> str:
    """The ends of the scale at which `clip_intervals` clips an interval, such as "100 %"; "" where it clips none."""
    ends = {"0 %": (found["low"] < 0).any(), "100 %": (found["high"] > 1).any()}
    return " and ".join(end for end, clipped in ends.items() if clipped)
