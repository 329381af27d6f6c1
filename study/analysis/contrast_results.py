"""The planned contrasts with what came out of them, each paired by seed.

Runs of one seed share data order, augmentation and the patch embedding's initialization, so their differences vary less
than the accuracies do; `correlation` shows how much of that there was. Intervals come first; tests are corrected over
the family; and "no difference" is a verdict only where the study could have seen one.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from study.analysis.cell_grid import FloatArray, Grid, is_measured, read_grid
from study.analysis.cell_means import explain_missing_interval
from study.analysis.intervals import CONFIDENCE, MIN_SEEDS, block_estimate, estimate_mean, solve_detectable_difference
from study.analysis.planned_contrasts import Contrast
from study.rng import stream

EQUIVALENCE_MARGIN = 0.005  # half a percentage point: differences below it are not worth choosing an architecture for
EXACT_SEEDS = 13  # up to here all 2**n sign patterns are enumerated
_RESAMPLES = 9999

_COLUMNS = (
    *("family", "contrast", "subject", "upper", "lower", "where"),
    *("difference", "low", "high", "block_low", "block_high", "n", "sd", "p", "p_holm", "correlation"),
    *("improvement", "improvement_low", "improvement_high", "detectable", "attainable_p", "permutation_p"),
    *("permutation_p_holm", "bound_low", "bound_high", "verdict", "note"),
)


def estimate_contrasts(table: pd.DataFrame, plan: Sequence[Contrast]) -> pd.DataFrame:
    """One row per contrast: the mean difference between cells trained with the same seeds, and what it can bear.

    Population of `low`, `high` (paired t) and of `block_low`, `block_high` (a mixed model with seeds as blocks, which pools
    the spread of all cells): expected difference over seeds, on this data and this test set. Population of `improvement`
    (Clopper-Pearson): the chance that a new seed, used for both sides, favours the first. `p_holm` is corrected over the
    family, contrasts without a p counting as members. `detectable`: the smallest difference that this n and spread show at
    the family's level with 80 % power.
    `bound_low`, `bound_high`: the difference if every diverged run had gone as badly or as well as it could for it.
    Seeds count only where all the cells of the contrast were measured. Differences are fractions.
    """
    if not plan:
        return pd.DataFrame(columns=list(_COLUMNS))
    grid = read_grid(table, plan[0].factors)
    weights = weight_matrix(grid, plan)
    per_seed = compute_paired_differences(grid.values, weights)
    frame = estimates(grid, plan, weights)
    families = frame.groupby("family", sort=False)
    alpha = (1 - CONFIDENCE) / families["contrast"].transform("size").to_numpy(dtype=float)
    frame["p_holm"] = families["p"].transform(holm)
    frame = frame.join(improvement(per_seed))
    frame["detectable"] = [
        solve_detectable_difference(s, n, alpha=a) for s, n, a in zip(frame["sd"], frame["n"], alpha, strict=True)
    ]
    frame = frame.join(permutation(per_seed, alpha=alpha, names=list(frame["contrast"])))
    frame["permutation_p_holm"] = frame.groupby("family", sort=False)["permutation_p"].transform(holm)
    frame["bound_low"], frame["bound_high"] = divergence_bounds(grid, weights)
    frame["verdict"] = [verdict(row, alpha=1 - CONFIDENCE) for row in frame.to_dict("records")]
    frame["note"] = [explain_missing_interval(int(n), float(sd)) for n, sd in zip(frame["n"], frame["sd"], strict=True)]
    return frame[list(_COLUMNS)]


def estimates(grid: Grid, plan: Sequence[Contrast], weights: FloatArray) -> pd.DataFrame:
    """The contrasts' names with their paired estimates, and the intervals of the block model beside them."""
    paired = estimate_mean(compute_paired_differences(grid.values, weights))
    pooled = block_estimate(grid.values[None], weights).study(0)
    return pd.DataFrame(
        {
            "family": [contrast.family for contrast in plan],
            "contrast": [contrast.name for contrast in plan],
            "subject": [contrast.subject for contrast in plan],
            "upper": [contrast.upper for contrast in plan],
            "lower": [contrast.lower for contrast in plan],
            "where": [contrast.where for contrast in plan],
            "difference": paired.mean,
            "low": paired.low,
            "high": paired.high,
            "block_low": pooled.low,
            "block_high": pooled.high,
            "n": paired.n.astype(int),
            "sd": paired.sd,
            "p": paired.p,
            "correlation": pairing_correlation(grid.values, weights),
        }
    )


def weight_matrix(grid: Grid, plan: Sequence[Contrast]) -> FloatArray:
    """The contrasts as `contrasts cells`; a cell that the table never heard of is a broken plan."""
    places = {cell: place for place, cell in enumerate(grid.cells)}
    matrix = np.zeros((len(plan), len(grid.cells)))
    for row, contrast in enumerate(plan):
        for cell, weight in contrast.weights:
            assert cell in places, f"{contrast.name!r} needs the cell {cell}, which the table doesn't plan"
            matrix[row, places[cell]] += weight
    return matrix


def compute_paired_differences(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Each contrast within each seed (`... cells seeds` -> `... contrasts seeds`); NaN where a needed cell is."""
    there = is_measured(values)
    sums = np.einsum("kc,...cs->...ks", weights, np.where(there, values, 0.0))
    lacking = np.einsum("kc,...cs->...ks", (weights != 0).astype(float), (~there).astype(float))
    return np.where(lacking > 0, np.nan, sums)


def pairing_correlation(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Pearson's correlation over seeds between the two sides of each contrast; NaN below three seeds or no spread."""
    plus = compute_paired_differences(values, np.maximum(weights, 0.0))
    minus = compute_paired_differences(values, np.maximum(-weights, 0.0))
    found = np.full(len(weights), np.nan)
    for place, (a, b) in enumerate(zip(plus, minus, strict=True)):
        both = is_measured(a) & is_measured(b)
        if both.sum() >= MIN_SEEDS and min(np.ptp(a[both]), np.ptp(b[both])) > 1e-12:
            found[place] = np.corrcoef(a[both], b[both])[0, 1]
    return found


def holm(p: pd.Series) -> pd.Series:
    """Holm's step-down p over the whole family; members without a p count as if theirs were 1.

    Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    ordered = p.fillna(1.0).sort_values(kind="stable")
    steps = np.maximum.accumulate(np.minimum(ordered.to_numpy() * np.arange(len(p), 0, -1), 1.0))
    return pd.Series(steps, index=ordered.index).reindex(p.index).where(p.notna())


def improvement(per_seed: FloatArray) -> pd.DataFrame:
    """The share of seeds that favour the first side (ties count half), with Clopper-Pearson limits."""
    n = is_measured(per_seed).sum(axis=1)
    wins = (per_seed > 1e-12).sum(axis=1) + 0.5 * (np.abs(per_seed) <= 1e-12).sum(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low = np.where(wins > 0, stats.beta.ppf(tail, np.maximum(wins, 0.5), n - wins + 1), 0.0)
    high = np.where(wins < n, stats.beta.isf(tail, wins + 1, np.maximum(n - wins, 0.5)), 1.0)
    shown = n >= MIN_SEEDS
    share = np.where(shown, wins / np.maximum(n, 1), np.nan)
    limits = {"improvement_low": np.where(shown, low, np.nan), "improvement_high": np.where(shown, high, np.nan)}
    return pd.DataFrame({"improvement": share, **limits})


def permutation(per_seed: FloatArray, *, alpha: FloatArray, names: Sequence[str]) -> pd.DataFrame:
    """Two-sided sign-flip tests of "the difference is symmetric about 0", only where n can reach the level.

    `attainable_p` is the smallest p that n seeds can give, 2 / 2**n; where it exceeds the level that Holm asks of the
    family's first, `permutation_p` is missing: such a test could never reject.
    """
    n = is_measured(per_seed).sum(axis=1)
    attainable = np.where(n > EXACT_SEEDS, 2 / (_RESAMPLES + 1), 2.0 ** (1 - n))
    found = np.full(len(per_seed), np.nan)
    able = (attainable <= alpha) & (n >= MIN_SEEDS)
    for place in [place for place, can in enumerate(able) if can]:
        differences = per_seed[place][is_measured(per_seed[place])]
        found[place] = stats.permutation_test(
            (differences,),
            np.mean,
            permutation_type="samples",
            n_resamples=2**EXACT_SEEDS if n[place] <= EXACT_SEEDS else _RESAMPLES,
            vectorized=True,
            rng=stream(0, "sign flips", names[place]),
        ).pvalue
    return pd.DataFrame({"attainable_p": np.where(n >= 1, attainable, np.nan), "permutation_p": found})


def divergence_bounds(grid: Grid, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The mean difference if diverged runs had gone against the first side throughout, and for it throughout."""
    worst, best = grid.fill_diverged("worst"), grid.fill_diverged("best")
    plus, minus = np.maximum(weights, 0.0), np.maximum(-weights, 0.0)
    low = compute_paired_differences(worst, plus) - compute_paired_differences(best, minus)
    high = compute_paired_differences(best, plus) - compute_paired_differences(worst, minus)
    return estimate_mean(low).mean, estimate_mean(high).mean


def verdict(row: Mapping[Hashable, Any], *, alpha: float) -> str:
    """What may be said: higher, lower, no difference, undecided, or why nothing can be.

    "no difference" needs both an interval inside the margin and an n that would have shown the margin; "higher" and
    "lower" need the corrected p, and that no diverged run could turn the sign.
    """
    if row["n"] < MIN_SEEDS:
        return "too few seeds"
    if np.isnan(row["low"]):
        return "no spread"
    if row["p_holm"] <= alpha:
        bound = row["bound_low"] if row["difference"] > 0 else -row["bound_high"]
        return ("higher" if row["difference"] > 0 else "lower") if bound > 0 else "undecided: diverged runs"
    if max(-row["low"], row["high"]) <= EQUIVALENCE_MARGIN and row["detectable"] <= EQUIVALENCE_MARGIN:
        return "no difference"
    return "undecided"
