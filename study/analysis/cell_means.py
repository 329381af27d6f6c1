"""One row per cell: mean accuracy over seeds with its interval, beside it the error that a finite test set brings.

Two errors are told apart because they answer to different remedies. More seeds narrow the t interval; only more test
images narrow the binomial one, which all seeds share, since they are judged by the same images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from study.analysis.cell_grid import CellLevels, FloatArray, Grid, count_runs, is_measured, read_grid
from study.analysis.intervals import CONFIDENCE, FEWEST_FOR_BOOTSTRAP, MIN_SEEDS, estimate_mean
from study.analysis.labels import format_setting
from study.rng import stream

RESAMPLES = 9999


def summarize_cells(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """One row per planned combination of `by`: n, mean, sd, intervals and what became of its runs.

    Population of `low`, `high` (Student's t): expected accuracy of the cell over seeds, on this data and this test set.
    Population of `bootstrap_low`, `bootstrap_high` (BCa, from 20 seeds): the same, without assuming normality.
    Population of `binomial_low`, `binomial_high` (Wilson): accuracy of one such network on all images of the kind the
    test images were drawn from. `worst` and `best` are the mean if the diverged runs had gone as badly or as well as
    they could; they equal `mean` where none diverged. `note` says why an interval is missing. Accuracies are fractions.
    """
    grid = read_grid(table, by)
    estimate = estimate_mean(grid.values)
    bootstrap = bootstrap_intervals(grid)
    binomial = binomial_intervals(estimate.mean, grid.test_images)
    keys = pd.DataFrame(list(grid.cells), columns=list(by))
    figures = {
        **count_runs(grid),
        "n": estimate.n.astype(int),
        "mean": estimate.mean,
        "sd": estimate.sd,
        "low": estimate.low,
        "high": estimate.high,
        "bootstrap_low": bootstrap[:, 0],
        "bootstrap_high": bootstrap[:, 1],
        "binomial_error": binomial[:, 0],
        "binomial_low": binomial[:, 1],
        "binomial_high": binomial[:, 2],
        "worst": estimate_mean(grid.fill_diverged("worst")).mean,
        "best": estimate_mean(grid.fill_diverged("best")).mean,
        "note": [explain_missing_interval(int(n), float(sd)) for n, sd in zip(estimate.n, estimate.sd, strict=True)],
    }
    return keys.assign(**{name: pd.Series(column) for name, column in figures.items()})


def clip_intervals(found: pd.DataFrame) -> pd.DataFrame:
    """The table with `low` and `high` cut to [0, 1], for printing and drawing alone.

    A t interval knows nothing of the scale: near 100 % it runs past it, where no accuracy is. What others compute with
    stays uncut.
    """
    return found.assign(low=found["low"].clip(lower=0.0), high=found["high"].clip(upper=1.0))


def describe_clipping(found: pd.DataFrame) -> str:
    """At which ends of the scale `bounded` cuts an interval, in words: "100 %"; "" where it cuts none."""
    ends = {"0 %": (found["low"] < 0).any(), "100 %": (found["high"] > 1).any()}
    return " and ".join(end for end, cut in ends.items() if cut)


def describe_cell(factors: Sequence[str], cell: CellLevels) -> str:
    """A cell in words: "patch size 2, attention"; an option that it hasn't got goes unsaid."""
    return ", ".join(format_setting(factor, level) for factor, level in zip(factors, cell, strict=True) if level is not None)


def explain_missing_interval(n: int, sd: float) -> str:
    """Why a mean over `n` seeds carries no t interval; empty where it does."""
    if n == 0:
        return "no run was measured"
    if n < MIN_SEEDS:
        return f"no interval: {n} seed{'s' * (n > 1)}, and fewer than {MIN_SEEDS} show no spread worth drawing"
    if sd <= 1e-12:
        return f"no interval: all {n} seeds gave the same figure, so the spread is below one test image"
    return ""


def binomial_intervals(mean: FloatArray, test_images: int | None) -> FloatArray:
    """Standard error, lower and upper Wilson limit of each mean accuracy (`cells` -> `cells 3`); NaN without a count.

    Wilson's, because at accuracies near 1 the usual error is 0, which nobody should believe.
    """
    if test_images is None:
        return np.full((len(mean), 3), np.nan)
    known = is_measured(mean)
    inside = np.where(known, mean, 0.5)
    low, high = proportion_confint(inside * test_images, test_images, alpha=1 - CONFIDENCE, method="wilson")
    error = np.sqrt(inside * (1 - inside) / test_images)
    return np.where(known[:, None], np.stack([error, low, high], axis=1), np.nan)


def bootstrap_intervals(grid: Grid) -> FloatArray:
    """BCa limits of each mean (`cells 2`); NaN below 20 seeds, where they cover far less than they promise."""
    limits = np.full((len(grid.cells), 2), np.nan)
    for place, row in enumerate(grid.values):
        accuracies = row[is_measured(row)]
        if len(accuracies) < FEWEST_FOR_BOOTSTRAP or np.ptp(accuracies) == 0:
            continue
        found = stats.bootstrap(
            (accuracies,),
            np.mean,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method="BCa",
            rng=stream(0, "cell bootstrap", describe_cell(grid.factors, grid.cells[place])),
        )
        limits[place] = found.confidence_interval
    return limits
