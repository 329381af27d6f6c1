"""Pareto fronts of accuracy over cost, with the uncertainty of each cell's membership.

A cell is on the front if no cell that costs as much or less is more accurate. With few seeds, membership by means is
partly chance, so each cell has the fraction of plausible means under which it is on the front.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from study.analysis.cell_grid import BoolArray, FloatArray, Grid, is_measured, read_grid, select_done
from study.analysis.cell_means import summarize_cells
from study.analysis.intervals import CONFIDENCE, MIN_SEEDS, estimate_mean
from study.rng import stream

FRONT_DRAWS = 4000
COST_TOLERANCE = 0.02
"""Costs that differ by less count as equal, as they do where budgets are matched."""


def find_pareto_front(table: pd.DataFrame, by: Sequence[str], *, cost: str) -> pd.DataFrame:
    """One row per cell with a cost and an accuracy, in order of cost.

    `cost` is a column of which less is better (`params`, `macs`, `cost`); a cell costs the median of its done runs.

    - the factors `by`, `n`, `mean`, `low`, `high`: as in `summarize_cells`; `cost`: the cell's cost.
    - `on_front`: membership judged by the means. `front_probability`: fraction of plausible means under which the cell is on
      the front (multivariate t, pairing by seed kept). Population: the expected accuracies over training seeds, on this
      data and this test set. NaN where a cell has fewer than three seeds.
    """
    grid = read_grid(table, by)
    costs = compute_cell_costs(table, grid, cost=cost)
    accuracy = estimate_mean(grid.values).mean
    order = [int(place) for place in np.lexsort((-accuracy, costs)) if np.isfinite(costs[place] + accuracy[place])]
    values, costs, accuracy = grid.values[order], costs[order], accuracy[order]
    probability = np.full(len(order), np.nan)
    if is_measured(values).sum(axis=1).min(initial=MIN_SEEDS) >= MIN_SEEDS:
        probability = 1 - _is_dominated(costs, draw_means(values, draws=FRONT_DRAWS)).mean(axis=0)
    found = summarize_cells(grid).iloc[order].reset_index(drop=True)
    return found[[*by, "n", "mean", "low", "high"]].assign(
        cost=costs, on_front=~_is_dominated(costs, accuracy[None])[0], front_probability=probability
    )


def estimate_front_band(table: pd.DataFrame, by: Sequence[str], *, cost: str) -> pd.DataFrame:
    """The front as a step function with its uncertainty: the best accuracy among the cells up to each cell's cost.

    One row per cost, in order: `cost`, `best`, and `low`, `high`: the central 95 % of the fronts of plausible means, as in
    `find_pareto_front`. Population: the best of the cells' expected accuracies over training seeds, on this data and this
    test set. NaN where a cell has fewer than three seeds.
    """
    grid = read_grid(table, by)
    costs = compute_cell_costs(table, grid, cost=cost)
    accuracy = estimate_mean(grid.values).mean
    order = [int(place) for place in np.argsort(costs, kind="stable") if np.isfinite(costs[place] + accuracy[place])]
    costs = costs[order]
    most_expensive = np.searchsorted(costs, costs * (1 + COST_TOLERANCE), side="right") - 1  # affordable at each cost
    best = np.maximum.accumulate(accuracy[order])[most_expensive]
    low = high = np.full(len(order), np.nan)
    if order and is_measured(grid.values[order]).sum(axis=1).min() >= MIN_SEEDS:
        fronts = np.maximum.accumulate(draw_means(grid.values[order], draws=FRONT_DRAWS), axis=1)[:, most_expensive]
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(fronts, [tail, 1 - tail], axis=0)
    return pd.DataFrame({"cost": costs, "best": best, "low": low, "high": high})


def compute_cell_costs(table: pd.DataFrame, grid: Grid, *, cost: str) -> FloatArray:
    """The median of the column `cost` over each cell's done runs (`cells`); NaN where it was not recorded."""
    done = select_done(table)
    own = read_grid(done, grid.factors, measure=cost) if len(done) else None
    known = {cell: row[is_measured(row)] for cell, row in zip(own.cells, own.values, strict=True)} if own else {}
    return np.array([np.median(row) if len(row := known.get(cell, np.array([]))) else np.nan for cell in grid.cells])


def _is_dominated(costs: FloatArray, accuracy: FloatArray) -> BoolArray:
    """Whether a cell that costs no more is more accurate (`draws cells` -> `draws cells`)."""
    affordable = costs[None, :] <= costs[:, None] * (1 + COST_TOLERANCE)  # cells others
    better = accuracy[:, None, :] > accuracy[:, :, None]  # draws cells others
    return np.asarray((better & affordable[None]).any(axis=2))


def draw_means(values: FloatArray, *, draws: int) -> FloatArray:
    """Plausible means given the seeds (`cells seeds` -> `draws cells`): each cell's draws spread as its t interval does.

    The deviations of one seed enter all cells with the same random weight, so cells whose accuracies are correlated over
    seeds have correlated draws. Degrees of freedom are those of the cell with the fewest seeds.
    """
    known = is_measured(values)
    n = known.sum(axis=1)
    mean = np.where(known, values, 0.0).sum(axis=1) / n
    deviation = np.where(known, values - mean[:, None], 0.0) / np.sqrt(n * (n - 1))[:, None]
    df = int(n.min()) - 1
    rng = stream(0, "plausible means")
    weights = rng.normal(size=(draws, values.shape[1]))
    scale = np.sqrt(df / rng.chisquare(df, draws))
    return np.asarray(mean + (weights @ deviation.T) * scale[:, None])
