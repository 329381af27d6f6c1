"""Accuracy as a function of cost: at an equal budget, averaged over a range of budgets, and as a power law.

A curve is the cells that differ in one factor only (the sizes of a model, or the patch sizes at one width), in order of
their cost. Every result is linear in accuracies (or in logarithms of errors) at fixed costs, so it is computed seed by
seed with a t interval, and curves are compared paired by seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from study.analysis.cell_grid import FloatArray, Level, is_measured, read_grid, sort_key
from study.analysis.contrast_results import compute_paired_differences
from study.analysis.intervals import estimate_mean
from study.analysis.pareto_front import COST_TOLERANCE, compute_cell_costs
from study.analysis.planned_contrasts import REFERENCES

MIN_SIZES = 4  # two parameters fitted to three points leave a single degree of freedom to show a misfit
BUDGETS = 3


@dataclass(frozen=True, eq=False)
class CostCurve:
    """Cells of one group in order of cost; cells of equal cost are averaged within seeds."""

    group: Mapping[str, Level]
    cost: FloatArray  # sizes; strictly increasing
    values: FloatArray  # sizes seeds; fractions

    def varies(self) -> bool:
        """Whether the cost differs along the curve by more than matched budgets do."""
        return len(self.cost) > 1 and self.cost[-1] > self.cost[0] * (1 + 2 * COST_TOLERANCE)

    def interpolation_weights(self, budget: float) -> FloatArray:
        """Weight of each size when interpolating linearly in log cost (`sizes`); NaN outside the measured costs."""
        if not self.varies() or not self.cost[0] <= budget <= self.cost[-1]:
            return np.full(len(self.cost), np.nan)
        return np.array([np.interp(np.log(budget), np.log(self.cost), unit) for unit in np.eye(len(self.cost))])

    def average_weights(self, start: float, end: float) -> FloatArray:
        """Weight of each size in the mean over log cost from `start` to `end` (trapezoids between all sizes inside)."""
        if not end > start:
            return np.full(len(self.cost), np.nan)
        inside = self.cost[(self.cost > start) & (self.cost < end)]
        knots = np.array([start, *inside, end])
        width = np.diff(np.log(knots)) / np.log(end / start)
        weights: FloatArray = (np.append(width, 0) + np.append(0, width)) / 2
        return np.asarray(weights @ np.array([self.interpolation_weights(float(knot)) for knot in knots]))

    def weigh(self, weights: FloatArray) -> FloatArray:
        """The weighted sum of the sizes within each seed (`sizes` -> `seeds`); NaN where a size with weight is missing."""
        if np.isnan(weights).any():
            return np.full(self.values.shape[1], np.nan)
        return np.asarray(compute_paired_differences(self.values, weights[None])[0])


def interpolate_at_budgets(
    table: pd.DataFrame, by: Sequence[str], *, along: str, cost: str, budgets: Sequence[float]
) -> pd.DataFrame:
    """One row per budget and curve: the curve's accuracy at the budget, and its difference to the reference curve.

    `by` names the factors, `along` the one of them that curves run along, `cost` a column of which less is better, and
    `budgets` are in its unit. Accuracies (fractions) are interpolated linearly over log cost, never beyond measured sizes.

    The factors but `along` name the curve. `accuracy`, `sd`, `n` and `low`, `high`; `difference`, `difference_low`,
    `difference_high`, paired by seed; `reference`: whether it is the reference curve; `budget`; `note`: why there is no
    value or interval. Population of the 95 % intervals: training seeds, on this data and test set, at these sizes. That the
    true curve is linear between two sizes is assumed and not covered.
    """
    curves = build_curves(table, by, along=along, cost=cost)
    frames = [
        _evaluate(curves, [curve.interpolation_weights(budget) for curve in curves], at=budget).assign(budget=float(budget))
        for budget in budgets
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def choose_budgets(table: pd.DataFrame, by: Sequence[str], *, along: str, cost: str) -> list[float]:
    """The smallest, (geometrically) middle and largest cost that all curves cover; none where there is no such range."""
    curves = build_curves(table, by, along=along, cost=cost)
    start, end = _find_common_range(curves)
    return [float(budget) for budget in np.clip(np.geomspace(start, end, BUDGETS), start, end)] if end > start else []


def average_over_costs(table: pd.DataFrame, by: Sequence[str], *, along: str, cost: str) -> pd.DataFrame:
    """One row per curve: its mean accuracy over log cost, in the range of costs that all curves cover.

    The area under accuracy over log cost divided by the width of the range, so it reads as an accuracy. Arguments, columns
    and population as in `interpolate_at_budgets`, with the range's `start` and `end` in place of `budget`.
    """
    curves = build_curves(table, by, along=along, cost=cost)
    if not curves:
        return pd.DataFrame()
    start, end = _find_common_range(curves)
    weights = [curve.average_weights(start, end) for curve in curves]
    return _evaluate(curves, weights, at=start).assign(start=start, end=end)


def fit_power_law(table: pd.DataFrame, by: Sequence[str], *, along: str, cost: str) -> pd.DataFrame:
    """One row per curve: error = constant * cost ** -exponent, fitted to the logarithms, from four sizes on.

    `exponent` with its 95 % interval `low`, `high`; `misfit`: the largest factor, minus one, by which the mean error of a
    size departs from the line: a misfit larger than the spread over seeds speaks against a power law; `sizes`, `n`, `note`.
    Population: the exponent over training seeds at these sizes (t over the least-squares exponents of the seeds);
    nothing is said about other sizes. Hestness et al., "Deep learning scaling is predictable, empirically", 2017.
    """
    curves = build_curves(table, by, along=along, cost=cost)
    images = read_grid(table, by).test_images
    return pd.DataFrame([{**curve.group, **_fit_exponent(curve, images)} for curve in curves])


def _fit_exponent(curve: CostCurve, images: int | None) -> dict[str, float | int | str]:
    sizes = len(curve.cost)
    row: dict[str, float | int | str] = dict.fromkeys(("exponent", "low", "high", "misfit"), float("nan"))
    row |= {"sizes": sizes, "n": int(is_measured(curve.values).all(axis=0).sum())}
    if sizes < MIN_SIZES or not curve.varies():
        return row | {"note": f"no fit: {sizes} sizes of different cost, and a fit needs at least {MIN_SIZES}"}
    errors = 1 - curve.values
    if images is not None:
        errors = (errors * images + 0.5) / (images + 1)  # so that a run without errors has a logarithm
    errors = np.log(errors)
    centered = np.log(curve.cost) - np.log(curve.cost).mean()
    exponent = estimate_mean(CostCurve(curve.group, curve.cost, errors).weigh(-centered / (centered**2).sum()))
    level = estimate_mean(errors).mean
    residual = level - level.mean() + float(exponent.mean) * centered
    misfit = float(np.exp(np.abs(residual).max()) - 1)
    row |= {"exponent": float(exponent.mean), "low": float(exponent.low), "high": float(exponent.high), "misfit": misfit}
    return row | {"note": exponent.notes[0]}


def build_curves(table: pd.DataFrame, by: Sequence[str], *, along: str, cost: str) -> list[CostCurve]:
    """The curves of the table, sorted by their groups; cells without cost or accuracy are excluded."""
    assert along in by, f"curves run along one of the factors {list(by)}, not along {along!r}"
    grid = read_grid(table, by)
    costs = compute_cell_costs(table, grid, cost=cost)
    factors = [factor for factor in by if factor != along]
    group_of = [tuple(cell[list(by).index(factor)] for factor in factors) for cell in grid.cells]
    usable = is_measured(costs) & np.asarray(is_measured(grid.values).any(axis=1))
    curves = []
    for group in sorted(set(group_of), key=lambda cell: tuple(map(sort_key, cell))):
        own = [place for place, other in enumerate(group_of) if other == group and usable[place]]
        if own:
            sizes = np.unique(costs[own])
            equal = (costs[own][None, :] == sizes[:, None]).astype(float)
            values = compute_paired_differences(grid.values[own], equal / equal.sum(axis=1, keepdims=True))
            curves.append(CostCurve(dict(zip(factors, group, strict=True)), sizes, values))
    return curves


def _find_common_range(curves: Sequence[CostCurve]) -> tuple[float, float]:
    """The costs that all curves cover; the end is not above the start where there are none."""
    usable = [curve for curve in curves if curve.varies()] or list(curves)
    return max((float(curve.cost[0]) for curve in usable), default=0), min((float(c.cost[-1]) for c in usable), default=0)


def _evaluate(curves: Sequence[CostCurve], weights: Sequence[FloatArray], *, at: float) -> pd.DataFrame:
    """The curves' weighted sums and their differences to the reference curve; `at` is a cost that has to be covered."""
    level = np.array([curve.weigh(own) for curve, own in zip(curves, weights, strict=True)])
    # The first curve with the most reference levels; the first of all where no factor has one.
    reference = int(np.argmax([len(dict(REFERENCES).items() & curve.group.items()) for curve in curves]))
    accuracy, difference = estimate_mean(level), estimate_mean(level - level[reference])
    return pd.DataFrame([curve.group for curve in curves], index=range(len(curves))).assign(
        accuracy=accuracy.mean,
        **{name: getattr(accuracy, name) for name in ("low", "high", "sd")},
        n=accuracy.n.astype(int),
        difference=difference.mean,
        difference_low=difference.low,
        difference_high=difference.high,
        reference=np.arange(len(curves)) == reference,
        note=[_explain_gap(curve, at) or note for curve, note in zip(curves, accuracy.notes, strict=True)],
    )


def _explain_gap(curve: CostCurve, budget: float) -> str:
    """Why a curve has no value at the budget; "" where it has one."""
    if not curve.varies():
        return "no curve: this cost hardly differs between the cells"
    if np.isnan(curve.interpolation_weights(budget)).any():
        return f"outside the measured costs, {curve.cost[0]:.3g} to {curve.cost[-1]:.3g}"
    return ""
