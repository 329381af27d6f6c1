"""The results of the planned contrasts, each paired by seed.

Runs of one seed share data order, augmentation and the initialization of the patch embedding; `correlation` shows how
much their accuracies have in common. Intervals come first; tests are corrected over the family; "equivalent" is a verdict
only where the study had the power to detect a difference of the margin.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from study.analysis.cell_grid import FloatArray, Grid, is_measured, read_grid
from study.analysis.intervals import CONFIDENCE, MIN_SEEDS, ZERO, estimate_mean, solve_detectable_difference
from study.analysis.planned_contrasts import Contrast
from study.rng import stream

EQUIVALENCE_MARGIN = 0.005  # half a percentage point: differences below it are no reason to choose an architecture
SIGNIFICANT = ("higher", "lower")
"""Verdicts of contrasts that differ significantly from zero (Holm-adjusted)."""

_EXACT_SEEDS = 13  # up to here all 2**n sign patterns are enumerated
_RESAMPLES = 9999


def estimate_contrasts(table: pd.DataFrame, plan: Sequence[Contrast]) -> pd.DataFrame:
    """One row per planned contrast, in the order of the plan. Differences are fractions.

    Reads from the run table: the plan's factors, `seed`, `status`, `test_accuracy`, `num_classes`. A seed counts only where
    all cells of the contrast were measured with it.

    - `family`, `contrast`, `subject`, `upper`, `lower`, `where`: what is compared, from the plan.
    - `difference`, `sd`, `n` and `low`, `high`: mean over seeds with its 95 % paired t interval. Population: the expected
      difference over training seeds, on this data and this test set.
    - `p`, `p_holm`: of the paired t test; corrected over the family, in which contrasts without a p count as members.
    - `correlation`: Pearson's, between the two sides over seeds.
    - `improvement` and `improvement_low`, `improvement_high`: share of seeds in which the upper side is better (ties count
      half), with its Clopper-Pearson interval. Population: seeds.
    - `detectable`: the smallest difference that this n and spread detect at the family's level with 80 % power.
    - `permutation_p`, `permutation_p_holm`: of the sign-flip test, a sensitivity check; `attainable_p`: the smallest p that
      n seeds can give. Missing where that exceeds the level that Holm's first step requires.
    - `bound_low`, `bound_high`: the difference with every diverged run at its worst and at its best for the upper side.
    - `verdict`: "higher", "lower" (significant), "equivalent", "inconclusive", "inconclusive: diverged runs", "too few
      seeds" or "no spread"; `note` says why an interval is missing.
    """
    assert plan, "no contrast is planned"
    grid = read_grid(table, plan[0].factors)
    weights = _build_weights(grid, plan)
    per_seed = compute_paired_differences(grid.values, weights)
    paired = estimate_mean(per_seed)
    names = ("family", "subject", "upper", "lower", "where")
    frame = pd.DataFrame({name: [getattr(contrast, name) for contrast in plan] for name in names}).assign(
        contrast=[contrast.name for contrast in plan],
        difference=paired.mean,
        low=paired.low,
        high=paired.high,
        n=paired.n.astype(int),
        sd=paired.sd,
        p=paired.p,
        correlation=_correlate_sides(grid.values, weights),
    )
    families = frame.groupby("family", sort=False)
    alpha = (1 - CONFIDENCE) / families["contrast"].transform("size").to_numpy(dtype=float)
    frame["p_holm"] = families["p"].transform(_adjust_holm)
    spreads = zip(frame["sd"], frame["n"], alpha, strict=True)
    frame["detectable"] = [solve_detectable_difference(sd, n, alpha=level) for sd, n, level in spreads]
    frame = frame.join(_estimate_improvement(per_seed)).join(_flip_signs(per_seed, plan, alpha=alpha))
    frame["permutation_p_holm"] = frame.groupby("family", sort=False)["permutation_p"].transform(_adjust_holm)
    frame["bound_low"], frame["bound_high"] = _bound_diverged(grid, weights)
    frame["verdict"] = [_decide_verdict(row) for row in frame.to_dict("records")]
    return frame.assign(note=paired.notes)


def _build_weights(grid: Grid, plan: Sequence[Contrast]) -> FloatArray:
    """The contrasts' weights as `contrasts cells`; every cell of the plan must be in the table."""
    places = {cell: place for place, cell in enumerate(grid.cells)}
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


def _correlate_sides(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Pearson's correlation over seeds between the two sides of each contrast; NaN below three seeds or without spread."""
    upper = compute_paired_differences(values, np.maximum(weights, 0.0))
    lower = compute_paired_differences(values, np.maximum(-weights, 0.0))
    found = np.full(len(weights), np.nan)
    for place, (a, b) in enumerate(zip(upper, lower, strict=True)):
        both = is_measured(a) & is_measured(b)
        if both.sum() >= MIN_SEEDS and min(np.ptp(a[both]), np.ptp(b[both])) > ZERO:
            found[place] = np.corrcoef(a[both], b[both])[0, 1]
    return found


def _adjust_holm(p: pd.Series) -> pd.Series:
    """Holm's step-down p over one family; members without a p count as if theirs were 1.

    Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    ordered = p.fillna(1.0).sort_values(kind="stable")
    steps = np.maximum.accumulate(np.minimum(ordered.to_numpy() * np.arange(len(p), 0, -1), 1.0))
    return pd.Series(steps, index=ordered.index).reindex(p.index).where(p.notna())


def _estimate_improvement(per_seed: FloatArray) -> pd.DataFrame:
    n = is_measured(per_seed).sum(axis=1)
    wins = (per_seed > ZERO).sum(axis=1) + 0.5 * (np.abs(per_seed) <= ZERO).sum(axis=1)
    tail = (1 - CONFIDENCE) / 2
    found = {
        "improvement": wins / np.maximum(n, 1),
        "improvement_low": np.where(wins > 0, stats.beta.ppf(tail, np.maximum(wins, 0.5), n - wins + 1), 0.0),
        "improvement_high": np.where(wins < n, stats.beta.isf(tail, wins + 1, np.maximum(n - wins, 0.5)), 1.0),
    }
    return pd.DataFrame({name: np.where(n >= MIN_SEEDS, column, np.nan) for name, column in found.items()})


def _flip_signs(per_seed: FloatArray, plan: Sequence[Contrast], *, alpha: FloatArray) -> pd.DataFrame:
    """Two-sided sign-flip tests of "the difference is symmetric about 0", where n seeds can reach the level `alpha`.

    The smallest p of n seeds is 2 / 2**n; a test that cannot reach the level could never reject and is omitted.
    """
    n = is_measured(per_seed).sum(axis=1)
    attainable = np.where(n > _EXACT_SEEDS, 2 / (_RESAMPLES + 1), 2.0 ** (1 - n))
    found = np.full(len(per_seed), np.nan)
    for place in map(int, np.flatnonzero((attainable <= alpha) & (n >= MIN_SEEDS))):
        differences = per_seed[place][is_measured(per_seed[place])]
        found[place] = stats.permutation_test(
            (differences,),
            np.mean,
            permutation_type="samples",
            n_resamples=2**_EXACT_SEEDS if n[place] <= _EXACT_SEEDS else _RESAMPLES,
            vectorized=True,
            rng=stream(0, "sign flips", plan[place].name),
        ).pvalue
    return pd.DataFrame({"attainable_p": np.where(n >= 1, attainable, np.nan), "permutation_p": found})


def _bound_diverged(grid: Grid, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The mean differences with all diverged runs against the upper side, and with all in its favor."""
    worst, best = grid.fill_diverged("worst"), grid.fill_diverged("best")
    upper, lower = np.maximum(weights, 0.0), np.maximum(-weights, 0.0)
    low = compute_paired_differences(worst, upper) - compute_paired_differences(best, lower)
    high = compute_paired_differences(best, upper) - compute_paired_differences(worst, lower)
    return estimate_mean(low).mean, estimate_mean(high).mean


def _decide_verdict(row: Mapping[Hashable, Any]) -> str:
    """Significant only where no diverged run could change the sign, equivalent only where n could detect the margin."""
    if row["n"] < MIN_SEEDS:
        return "too few seeds"
    if np.isnan(row["low"]):
        return "no spread"
    if row["p_holm"] <= 1 - CONFIDENCE:
        bound = row["bound_low"] if row["difference"] > 0 else -row["bound_high"]
        return ("higher" if row["difference"] > 0 else "lower") if bound > 0 else "inconclusive: diverged runs"
    if max(-row["low"], row["high"]) <= EQUIVALENCE_MARGIN and row["detectable"] <= EQUIVALENCE_MARGIN:
        return "equivalent"
    return "inconclusive"
