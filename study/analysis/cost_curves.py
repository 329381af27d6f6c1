"""Accuracy as a function of cost: at an equal budget, averaged over a range of budgets, and as a power law.

A curve is the cells that differ in one factor only (the sizes of a model, or the patch sizes at one width), in order of
their cost. At fixed costs every result is a weighted sum of the cells' means (an exponent to first order), so that standard
errors are those of `estimate_weighted_means`, and its population is that of every interval here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from study.analysis.cell_grid import FloatArray, Grid, Level, average_measured, is_measured, sort_key
from study.analysis.contrast_results import compute_paired_differences
from study.analysis.crossed import estimate_weighted_means
from study.analysis.pareto_front import COST_TOLERANCE
from study.analysis.planned_contrasts import REFERENCES

MIN_SIZES = 4  # two parameters fitted to three points leave a single degree of freedom to show a misfit
BUDGETS = 3


@dataclass(frozen=True, eq=False)
class CostCurve:
    """Cells of one group in order of cost; cells of equal cost are averaged."""

    group: Mapping[str, Level]
    cost: FloatArray  # sizes; strictly increasing
    weights: FloatArray  # sizes cells; of each size's mean in the grid's cells

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


def interpolate_at_budgets(grid: Grid, costs: FloatArray, *, along: str, budgets: Sequence[float]) -> pd.DataFrame:
    """One row per budget and curve: the curve's accuracy at the budget, and its difference to the reference curve.

    `costs` (`cells`, as from `compute_cell_costs`) are the grid's cells' costs, of which less is better, `along` is the factor
    that curves run along, and `budgets` are in the costs' unit. Accuracies (fractions) are interpolated linearly over log
    cost, never beyond measured sizes.

    The factors but `along` name the curve. `accuracy`, `sd`, `n` and `low`, `high`; `difference`, `difference_low`,
    `difference_high`; `reference`: whether it is the reference curve; `budget`; `note`: why there is no value or interval.
    Population of the 95 % intervals: as in `estimate_weighted_means`, at these sizes. That the true curve is linear between
    two sizes is assumed and not covered.
    """
    curves = build_curves(grid, costs, along=along)
    frames = [
        _evaluate(grid, curves, [curve.interpolation_weights(budget) for curve in curves], at=budget).assign(
            budget=float(budget)
        )
        for budget in budgets
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def choose_budgets(grid: Grid, costs: FloatArray, *, along: str) -> list[float]:
    """The smallest, (geometrically) middle and largest cost that all curves cover; none where there is no such range."""
    start, end = _find_common_range(build_curves(grid, costs, along=along))
    return [float(budget) for budget in np.clip(np.geomspace(start, end, BUDGETS), start, end)] if end > start else []


def average_over_costs(grid: Grid, costs: FloatArray, *, along: str) -> pd.DataFrame:
    """One row per curve: its mean accuracy over log cost, in the range of costs that all curves cover.

    The area under accuracy over log cost divided by the width of the range, so it reads as an accuracy. Arguments, columns
    and population as in `interpolate_at_budgets`, with the range's `start` and `end` in place of `budget`.
    """
    curves = build_curves(grid, costs, along=along)
    if not curves:
        return pd.DataFrame()
    start, end = _find_common_range(curves)
    weights = [curve.average_weights(start, end) for curve in curves]
    return _evaluate(grid, curves, weights, at=start).assign(start=start, end=end)


def fit_power_law(grid: Grid, costs: FloatArray, *, along: str) -> pd.DataFrame:
    """One row per curve: error = constant * cost ** -exponent, fitted to the logarithms of mean errors, from four sizes on.

    `exponent` with its 95 % interval `low`, `high` (delta method); `misfit`: the largest factor, minus one, by which the mean
    error of a size departs from the line: a misfit larger than the errors' uncertainty speaks against a power law; `sizes`,
    `n`, `note`. Population: as in `estimate_weighted_means`; nothing is said about other sizes. Hestness et al., "Deep
    learning scaling is predictable, empirically", 2017.
    """
    curves = build_curves(grid, costs, along=along)
    return pd.DataFrame([{**curve.group, **_fit_exponent(grid, curve)} for curve in curves])


def _fit_exponent(grid: Grid, curve: CostCurve) -> dict[str, float | int | str]:
    sizes = len(curve.cost)
    values = compute_paired_differences(grid.values, curve.weights)
    complete = is_measured(values).all(axis=0)
    row: dict[str, float | int | str] = dict.fromkeys(("exponent", "low", "high", "misfit"), float("nan"))
    row |= {"sizes": sizes, "n": int(complete.sum())}
    if sizes < MIN_SIZES or not curve.varies():
        return row | {"note": f"no fit: {sizes} sizes of different cost, and a fit needs at least {MIN_SIZES}"}
    if not complete.any():
        return row | {"note": "no seed has runs of all sizes"}
    errors, shrink = 1 - values[:, complete].mean(axis=1), 1.0
    if grid.test_images is not None:
        shrink = grid.test_images / (grid.test_images + 1)
        errors = shrink * errors + 0.5 / (grid.test_images + 1)  # so that a size without errors has a logarithm
    centered = np.log(curve.cost) - np.log(curve.cost).mean()
    slopes = centered / (centered**2).sum()
    exponent = -float(slopes @ np.log(errors))
    residual = np.log(errors) - np.log(errors).mean() + exponent * centered
    found = estimate_weighted_means(grid, (shrink * slopes / errors @ curve.weights)[None])  # derivatives by the means
    (low,), (high,) = found.interval()
    row |= {"exponent": exponent, "misfit": float(np.exp(np.abs(residual).max()) - 1)}
    return row | {"low": exponent + low - found.mean[0], "high": exponent + high - found.mean[0], "note": found.notes[0]}


def build_curves(grid: Grid, costs: FloatArray, *, along: str) -> list[CostCurve]:
    """The curves of the grid, sorted by their groups; cells without cost or accuracy are excluded."""
    assert along in grid.factors, f"curves run along one of the factors {grid.factors}, not along {along!r}"
    place = grid.factors.index(along)
    groups = [(*cell[:place], *cell[place + 1 :]) for cell in grid.cells]
    usable = is_measured(costs + average_measured(grid.values))
    factors = [factor for factor in grid.factors if factor != along]
    curves = []
    known = {group for group, measured in zip(groups, usable, strict=True) if measured}
    for group in sorted(known, key=lambda levels: tuple(map(sort_key, levels))):
        own = usable & np.array([other == group for other in groups])
        sizes = np.unique(costs[own])
        equal = (own & (costs == sizes[:, None])).astype(float)
        curves.append(CostCurve(dict(zip(factors, group, strict=True)), sizes, equal / equal.sum(axis=1, keepdims=True)))
    return curves


def _find_common_range(curves: Sequence[CostCurve]) -> tuple[float, float]:
    """The costs that all curves cover; the end is not above the start where there are none."""
    usable = [curve for curve in curves if curve.varies()] or list(curves)
    return max((float(curve.cost[0]) for curve in usable), default=0), min((float(c.cost[-1]) for c in usable), default=0)


def _evaluate(grid: Grid, curves: Sequence[CostCurve], weights: Sequence[FloatArray], *, at: float) -> pd.DataFrame:
    """The curves' weighted sums and their differences to the reference curve; `at` is a cost that has to be covered."""
    cells = np.array([own @ curve.weights for curve, own in zip(curves, weights, strict=True)])
    # The first curve with the most reference levels; the first of all where no factor has one.
    reference = int(np.argmax([len(dict(REFERENCES).items() & curve.group.items()) for curve in curves]))
    accuracy, difference = (estimate_weighted_means(grid, rows) for rows in (cells, cells - cells[reference]))
    (low, high), (difference_low, difference_high) = accuracy.interval(), difference.interval()
    return pd.DataFrame([curve.group for curve in curves], index=range(len(curves))).assign(
        accuracy=accuracy.mean,
        low=low,
        high=high,
        sd=accuracy.sd,
        n=accuracy.n.astype(int),
        difference=difference.mean,
        difference_low=difference_low,
        difference_high=difference_high,
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
