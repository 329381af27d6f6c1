"""The results of the planned contrasts: differences with simultaneous intervals, and verdicts read off these alone.

Runs of one seed share data order, augmentation and the initialization of the patch embedding, so contrasts are formed within
seeds. All primary contrasts are one family, each exploratory family is its own; within a family all intervals hold at once.
"""

from collections.abc import Hashable, Mapping, Sequence
from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from study.analysis.cell_grid import FloatArray, Grid, average_measured, is_measured
from study.analysis.crossed import estimate_weighted_means
from study.analysis.group_sequential import Look, adjust_family
from study.analysis.intervals import MIN_SEEDS
from study.analysis.margin import Margin
from study.analysis.planned_contrasts import Contrast
from study.analysis.simultaneous import DRAWS

SIGNIFICANT = ("higher", "lower")
"""Verdicts of contrasts whose simultaneous interval leaves out zero."""

DIVERGED = "inconclusive: diverged runs"

_MOST_SUMS = 1 << 20  # different sums of signed differences: beyond, no sign-flip p


def estimate_contrasts(
    grid: Grid, plan: Sequence[Contrast], *, margin: Margin | None = None, look: Look | None = None, draws: int = DRAWS
) -> pd.DataFrame:
    """One row per planned contrast, in the order of the plan. Differences are fractions.

    Reads the grid's cells by the plan's factors; other factors of the grid have one level. A seed counts only where all
    cells of the contrast were measured with it.

    - `family`, `contrast`, `subject`, `upper`, `lower`, `where`, `primary`, `control`: what is compared, from the plan.
    - `difference`, `se`, `df`, `n` (seeds), `images`: as from `estimate_weighted_means`. Population: new training seeds and
      new test images of this kind; where `images` is missing, new seeds on these test images. `seed_share`: of the variance,
      what more seeds would reduce.
    - `low`, `high`: limits that hold for all of the family at once (95 %), `p_adjusted` with them; `low_single`,
      `high_single`, `p`: by itself. `family` is one of the plan's, except that all primary contrasts are adjusted together;
      at a `look` their limits hold at all looks as well.
    - `margin`: the smallest effect of interest; missing where none is stated.
    - `sign_flip_p`: exact, of "the difference is symmetric about 0" over seeds, on these test images; a sensitivity check.
    - `bound_low`, `bound_high`: the difference with every diverged run at its worst and at its best for the upper side.
    - `verdict`: "higher", "lower" where the simultaneous interval leaves out 0; "equivalent" where it is within the margin;
      "inconclusive"; "inconclusive: diverged runs" where the bounds contradict what it shows, or where it is missing because
      runs diverged; "too few seeds" below three. `note` says why an interval is missing.
    """
    assert plan, "no contrast is planned"
    weights = build_weights(grid, plan)
    found = estimate_weighted_means(grid, weights)
    names = ("family", "subject", "upper", "lower", "where", "primary", "control")
    low_single, high_single = found.interval()
    frame = pd.DataFrame({name: [getattr(contrast, name) for contrast in plan] for name in names}).assign(
        contrast=[contrast.name for contrast in plan],
        difference=found.mean,
        se=found.standard_error,
        df=found.df,
        n=found.n.astype(int),
        images=pd.array([found.images or pd.NA] * len(plan), dtype="Int64"),
        low=np.nan,
        high=np.nan,
        low_single=low_single,
        high_single=high_single,
        p_adjusted=np.nan,
        p=found.p,
        seed_share=found.seed_share,
        margin=_find_margins(grid, weights, margin or Margin()),
        sign_flip_p=_flip_signs(grid, weights),
    )
    for name, rows in frame.groupby(frame["family"].mask(frame["primary"], ""), sort=False):
        together = adjust_family(found.select(rows.index), look=None if name else look, draws=draws)
        frame.loc[rows.index, ["low", "high", "p_adjusted"]] = np.transpose([together.low, together.high, together.p])
    frame["bound_low"], frame["bound_high"], outcomes = _bound_diverged(grid, weights)
    frame["verdict"] = [_decide_verdict(row, n) for row, n in zip(frame.to_dict("records"), outcomes, strict=True)]
    return frame.assign(note=found.notes)


def build_weights(grid: Grid, plan: Sequence[Contrast]) -> FloatArray:
    """The contrasts' weights as `contrasts cells`; every cell of the plan must be in the grid."""
    axes = [grid.factors.index(factor) for factor in plan[0].factors]
    places = {tuple(cell[axis] for axis in axes): place for place, cell in enumerate(grid.cells)}
    assert len(places) == len(grid.cells), f"the plan lacks one of the factors {grid.factors}"
    matrix = np.zeros((len(plan), len(grid.cells)))
    for row, contrast in enumerate(plan):
        for cell, weight in contrast.weights:
            assert cell in places, f"{contrast.name!r} needs the cell {cell}, which is not in the table"
            matrix[row, places[cell]] += weight
    return matrix


def compute_paired_differences(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted sums of cells within each seed (`... cells seeds`, `contrasts cells` -> `... contrasts seeds`).

    NaN where a cell with a nonzero weight was not measured.
    """
    known = is_measured(values)
    sums = np.einsum("kc,...cs->...ks", weights, np.where(known, values, 0.0))
    lacking = np.einsum("kc,...cs->...ks", (weights != 0).astype(float), (~known).astype(float))
    return np.where(lacking > 0, np.nan, sums)


def _find_margins(grid: Grid, weights: FloatArray, margin: Margin) -> FloatArray:
    """The margin of each contrast, a fraction, by the mean error of its cells."""
    means = average_measured(grid.values)
    sizes = np.abs(weights) / np.abs(weights).sum(axis=1, keepdims=True)
    return np.array([margin.in_points(1 - float(row[row > 0] @ means[row > 0])) / 100 for row in sizes])


def _flip_signs(grid: Grid, weights: FloatArray) -> FloatArray:
    """Two-sided p of the sign-flip test of each contrast over its seeds; NaN below three seeds.

    In integers, so that sums that are equal count as equal: accuracies as numbers of test images, weights over their common
    denominator. NaN where accuracies are no such numbers.
    """
    images = grid.test_images or 0
    counts = np.rint(grid.values * images)
    if not images or not np.allclose(counts, grid.values * images, rtol=0, atol=1e-4, equal_nan=True):
        return np.full(len(weights), np.nan)
    found = []
    for row in weights:
        cells = np.flatnonzero(row)
        parts = [Fraction(weight).limit_denominator(100_000) for weight in row[cells]]
        scale = lcm(*(part.denominator for part in parts))
        differences = np.array([float(part * scale) for part in parts]) @ counts[cells]
        found.append(compute_sign_flip_p(differences[is_measured(differences)].astype(np.int64)))
    return np.array(found)


def compute_sign_flip_p(differences: npt.NDArray[np.int64]) -> float:
    """The share of all sign patterns under which the absolute sum of the integers is as large as it is, or larger (exact).

    The sums are enumerated with their numbers of patterns; NaN below three differences, and with too many different sums.
    """
    if len(differences) < MIN_SEEDS:
        return float("nan")
    total = int(np.abs(differences).sum())
    if total < _MOST_SUMS:  # quicker than to sort: all sums from -total to total
        sums, patterns = np.arange(-total, total + 1), np.zeros(2 * total + 1)
        patterns[total] = 1
        for size in np.abs(differences):
            former, patterns = patterns, np.zeros_like(patterns)
            patterns[size:] = former[: len(former) - size]
            patterns[: len(former) - size] += former[size:]
    else:
        sums, patterns = np.zeros(1, dtype=np.int64), np.ones(1)
        for size in np.abs(differences):
            sums, places = np.unique(np.concatenate([sums + size, sums - size]), return_inverse=True)
            if len(sums) > _MOST_SUMS:
                return float("nan")
            patterns = np.bincount(places, weights=np.tile(patterns, 2)).astype(float)  # exact up to 2^53
    return float(patterns[np.abs(sums) >= abs(differences.sum())].sum() / 2.0 ** len(differences))


def _bound_diverged(grid: Grid, weights: FloatArray) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int_]]:
    """The mean differences with all diverged runs against the upper side, with all in its favor, and the seeds of these."""
    worst, best = grid.fill_diverged("worst"), grid.fill_diverged("best")
    upper, lower = np.maximum(weights, 0.0), np.maximum(-weights, 0.0)
    low = compute_paired_differences(worst, upper) - compute_paired_differences(best, lower)
    high = compute_paired_differences(best, upper) - compute_paired_differences(worst, lower)
    return average_measured(low), average_measured(high), is_measured(low).sum(axis=-1)


def _decide_verdict(row: Mapping[Hashable, Any], outcomes: int) -> str:
    """What the simultaneous interval shows, unless diverged runs could turn the sign or leave the margin.

    `outcomes`: the seeds that the contrast has with diverged runs counted.
    """
    if row["n"] < MIN_SEEDS:
        return "too few seeds" if outcomes < MIN_SEEDS else DIVERGED
    if row["low"] > 0 or row["high"] < 0:
        claim, holds = ("higher", row["bound_low"] > 0) if row["low"] > 0 else ("lower", row["bound_high"] < 0)
    elif max(-row["low"], row["high"]) <= row["margin"]:
        claim, holds = "equivalent", max(-row["bound_low"], row["bound_high"]) <= row["margin"]
    else:
        return "inconclusive"
    return claim if holds else DIVERGED
