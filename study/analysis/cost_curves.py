"""Accuracy as a function of cost: at an equal budget, over a range of budgets, and as a power law.

A curve is the cells that differ in one factor only (the sizes of a model, or the patch sizes at one width), ordered by
what they cost. Everything read off it here is linear in accuracies (or in logarithms of errors) at fixed costs, so it
is computed seed by seed and gets a plain t interval, and curves are compared paired by seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from study.analysis.cell_grid import CellLevels, FloatArray, is_measured, read_grid, sort_key
from study.analysis.cell_means import explain_missing_interval
from study.analysis.contrast_results import compute_paired_differences
from study.analysis.intervals import estimate_mean
from study.analysis.pareto_front import COST_TOLERANCE, compute_cell_costs
from study.analysis.planned_contrasts import REFERENCES

FEWEST_SIZES = 4  # two parameters fitted to three points leave a single degree of freedom to show a misfit
BUDGETS = 3


@dataclass(frozen=True, eq=False)
class CostCurve:
    """Cells of one group in the order of their cost; cells that cost the same are averaged within seeds."""

    group: CellLevels
    cost: FloatArray  # sizes; strictly rising
    values: FloatArray  # sizes seeds; fractions

    def varies(self) -> bool:
        """Whether the cost differs enough along the curve to be called a curve."""
        return len(self.cost) > 1 and self.cost[-1] > self.cost[0] * (1 + 2 * COST_TOLERANCE)

    def weights(self, budget: float) -> FloatArray:
        """What each size counts when interpolating linearly in log cost; NaN outside the costs that were measured."""
        if not self.varies() or not self.cost[0] <= budget <= self.cost[-1]:
            return np.full(len(self.cost), np.nan)
        return np.array([np.interp(np.log(budget), np.log(self.cost), unit) for unit in np.eye(len(self.cost))])


def interpolate_at_budgets(
    table: pd.DataFrame, by: Sequence[str], *, along: str, cost: str, budgets: Sequence[float]
) -> pd.DataFrame:
    """One row per curve and budget: the accuracy it has there, and its distance to the reference curve.

    Curves run `along` one of the factors in `by`. Interpolated linearly between accuracies over log cost, never beyond the
    sizes measured. Population of `low`, `high` and (paired by seed) `difference_low`, `difference_high`: new seeds, on this
    data and test set, at these sizes; that the true curve is straight between two sizes is assumed and not covered.
    """
    curves = build_curves(table, by, along=along, cost=cost)
    groups = [factor for factor in by if factor != along]
    frames = []
    for budget in budgets:
        found = readings(curves, groups, weights=[curve.weights(budget) for curve in curves])
        frames.append(found.assign(budget=float(budget), note=remarks(found, curves, budget)))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def choose_budgets(table: pd.DataFrame, by: Sequence[str], *, along: str, cost: str) -> list[float]:
    """The least, the (geometrically) middle and the greatest cost that all curves cover; none where there is no such range."""
    curves = build_curves(table, by, along=along, cost=cost)
    if not curves:
        return []
    start, end = common_range(curves)
    return [float(budget) for budget in np.clip(np.geomspace(start, end, BUDGETS), start, end)] if end > start else []


def average_over_costs(table: pd.DataFrame, by: Sequence[str], *, along: str, cost: str) -> pd.DataFrame:
    """One row per curve: its mean accuracy over log cost, in the range of costs that all curves cover.

    The area under the accuracy/log-cost curve divided by the range's width, so it reads as an accuracy. Population of
    the limits: as in `at_budget`; `difference` is to the reference curve, paired by seed.
    """
    curves = build_curves(table, by, along=along, cost=cost)
    if not curves:
        return pd.DataFrame()
    groups = [factor for factor in by if factor != along]
    start, end = common_range(curves)
    weights = [area_weights(curve, start, end) for curve in curves]
    found = readings(curves, groups, weights=weights)
    return found.assign(start=start, end=end, note=remarks(found, curves, start))


def fit_power_law(table: pd.DataFrame, by: Sequence[str], *, along: str, cost: str) -> pd.DataFrame:
    """One row per curve: error = constant * cost ** -exponent, fitted to the logarithms, from four sizes on.

    Population of `low`, `high`: the exponent of the fit over new seeds at these sizes (t over seeds of each seed's own
    least-squares exponent); nothing is said about sizes beyond. `misfit` is the largest factor, less one, by which the
    mean error of a size departs from the line: a power law that misses by more than the seeds spread is no law.
    Hestness et al., "Deep learning scaling is predictable, empirically", 2017.
    """
    curves = build_curves(table, by, along=along, cost=cost)
    groups = [factor for factor in by if factor != along]
    images = read_grid(table, by).test_images
    rows = [exponent(curve, images) for curve in curves]
    return group_columns(curves, groups).join(pd.DataFrame(rows))


def exponent(curve: CostCurve, images: int | None) -> dict[str, float | int | str]:
    """The fitted exponent of one curve, with limits and misfit."""
    sizes = len(curve.cost)
    row: dict[str, float | int | str] = dict.fromkeys(("exponent", "low", "high", "misfit"), float("nan"))
    row |= {"sizes": sizes, "n": int(is_measured(curve.values).all(axis=0).sum())}
    if sizes < FEWEST_SIZES or not curve.varies():
        return row | {"note": f"no fit: {sizes} sizes of different cost, and {FEWEST_SIZES} are the fewest"}
    errors = np.log(smoothed_errors(curve.values, images))
    centred = np.log(curve.cost) - np.log(curve.cost).mean()
    own = read_off(CostCurve(curve.group, curve.cost, errors), -centred / (centred**2).sum())
    slope = estimate_mean(own)
    level = estimate_mean(errors).mean
    residual = level - level.mean() + float(slope.mean) * centred
    misfit = float(np.exp(np.abs(residual).max()) - 1)
    row |= {"exponent": float(slope.mean), "low": float(slope.low), "high": float(slope.high), "misfit": misfit}
    return row | {"note": explain_missing_interval(int(slope.n), float(slope.sd))}


def smoothed_errors(values: FloatArray, images: int | None) -> FloatArray:
    """Errors as (wrong + 1/2) / (images + 1), so that a flawless run has a logarithm too."""
    return np.asarray((1 - values) if images is None else ((1 - values) * images + 0.5) / (images + 1))


def build_curves(table: pd.DataFrame, by: Sequence[str], *, along: str, cost: str) -> list[CostCurve]:
    """The curves of the table, in the order of their groups; cells without cost or accuracy are not on them."""
    assert along in by, f"curves run along one of the factors {list(by)}, and {along!r} is none"
    grid = read_grid(table, by)
    price = compute_cell_costs(table, grid, cost=cost)
    place = list(by).index(along)
    group_of = [(*cell[:place], *cell[place + 1 :]) for cell in grid.cells]
    usable = is_measured(price) & np.asarray(is_measured(grid.values).any(axis=1))
    curves = []
    for group in sorted(set(group_of), key=lambda cell: tuple(map(sort_key, cell))):
        own = [place for place, theirs in enumerate(group_of) if theirs == group and usable[place]]
        if own:
            sizes = np.unique(price[own])
            alike = (price[own][None, :] == sizes[:, None]).astype(float)
            values = compute_paired_differences(grid.values[own], alike / alike.sum(axis=1, keepdims=True))
            curves.append(CostCurve(group, sizes, values))
    return curves


def read_off(curve: CostCurve, weights: FloatArray) -> FloatArray:
    """The weighted sum of the curve within each seed (`seeds`); NaN where a size that counts wasn't measured."""
    if np.isnan(weights).any():
        return np.full(curve.values.shape[1], np.nan)
    return np.asarray(compute_paired_differences(curve.values, weights[None])[0])


def area_weights(curve: CostCurve, start: float, end: float) -> FloatArray:
    """What each size counts in the mean over log cost from `start` to `end` (trapezoids between all sizes inside)."""
    if not end > start:
        return np.full(len(curve.cost), np.nan)
    inside = curve.cost[(curve.cost > start) & (curve.cost < end)]
    knots = np.array([start, *inside, end])
    width = np.diff(np.log(knots)) / np.log(end / start)
    share: FloatArray = (np.append(width, 0) + np.append(0, width)) / 2
    return np.asarray(share @ np.array([curve.weights(float(knot)) for knot in knots]))


def common_range(curves: Sequence[CostCurve]) -> tuple[float, float]:
    """The costs that all curves cover; the end is below the start where there are none."""
    usable = [curve for curve in curves if curve.varies()] or list(curves)
    return max(float(curve.cost[0]) for curve in usable), min(float(curve.cost[-1]) for curve in usable)


def reference_curve(curves: Sequence[CostCurve], groups: Sequence[str]) -> int:
    """The curve that others are compared with: the first at the reference levels of its factors, else the first."""
    wanted = dict(REFERENCES)
    score = [sum(wanted.get(name) == level for name, level in zip(groups, c.group, strict=True)) for c in curves]
    return score.index(max(score)) if score else 0


def group_columns(curves: Sequence[CostCurve], groups: Sequence[str]) -> pd.DataFrame:
    """The levels that name each curve."""
    return pd.DataFrame([curve.group for curve in curves], columns=list(groups), index=range(len(curves)))


def readings(curves: Sequence[CostCurve], groups: Sequence[str], *, weights: Sequence[FloatArray]) -> pd.DataFrame:
    """What the weights read off each curve, with limits, and paired by seed its distance to the reference curve."""
    level = np.array([read_off(curve, own) for curve, own in zip(curves, weights, strict=True)])
    accuracy = estimate_mean(level)
    gap = estimate_mean(level - level[reference_curve(curves, groups)])
    return group_columns(curves, groups).assign(
        accuracy=accuracy.mean,
        low=accuracy.low,
        high=accuracy.high,
        sd=accuracy.sd,
        n=accuracy.n.astype(int),
        difference=gap.mean,
        difference_low=gap.low,
        difference_high=gap.high,
        reference=np.arange(len(curves)) == reference_curve(curves, groups),
    )


def remarks(found: pd.DataFrame, curves: Sequence[CostCurve], budget: float) -> list[str]:
    """Why each curve has no figure or no interval at the budget."""
    seeds = zip(curves, found["n"], found["sd"], strict=True)
    return [_explain_missing(curve, budget, int(n), float(sd)) for curve, n, sd in seeds]


def _explain_missing(curve: CostCurve, budget: float, n: int, sd: float) -> str:
    """Why a curve has no figure or no interval; empty where it has both."""
    if not curve.varies():
        return "no curve: this cost hardly differs between the cells"
    if np.isnan(curve.weights(budget)).any():
        return f"outside the costs measured, {curve.cost[0]:.3g} to {curve.cost[-1]:.3g}"
    return explain_missing_interval(n, sd)
