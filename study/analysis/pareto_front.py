"""Pareto fronts of accuracy over cost, with the probability that each cell is on the front.

A cell is on the front if no cell that costs as much or less is more accurate. With few seeds or test images, membership by
means is partly chance, so each cell has the fraction of plausible means under which it is on the front.
"""

import numpy as np
import pandas as pd

from study.analysis.cell_grid import BoolArray, FloatArray, Grid, is_measured, read_grid, select_done
from study.analysis.cell_means import summarize_cells
from study.analysis.crossed import estimate_weighted_means
from study.analysis.simultaneous import draw_multivariate_t, share_df

FRONT_DRAWS = 4000
FRONT_SEEDS = 5  # with fewer, means are too uncertain for a probability: with three, "0 %" was true in one of 65 cases
COST_TOLERANCE = 0.02
"""Costs that differ by less count as equal, as they do where budgets are matched."""


def find_pareto_front(grid: Grid, costs: FloatArray) -> pd.DataFrame:
    """One row per cell with a cost and an accuracy, in order of cost; `costs` as from `compute_cell_costs`, less is better.

    - the grid's factors, `n`, `mean`, `low`, `high`: as in `summarize_cells`; `cost`: the cell's cost.
    - `on_front`: membership judged by the means. `front_probability`: fraction of plausible means under which the cell is on
      the front (multivariate t with the covariances of the cells' means; population as in `estimate_weighted_means`). NaN
      where a cell has fewer than five seeds.
    """
    found = summarize_cells(grid)
    means = found["mean"].to_numpy(dtype=float)
    order = np.array([place for place in np.lexsort((-means, costs)) if np.isfinite(costs[place] + means[place])], dtype=int)
    costs, means = costs[order], means[order]
    probability = np.full(len(order), np.nan)
    if found["n"].iloc[order].min() >= FRONT_SEEDS:
        estimates = estimate_weighted_means(grid, np.eye(len(grid.cells))).select(order)
        spread = draw_multivariate_t(np.nan_to_num(estimates.covariance), share_df(estimates), draws=FRONT_DRAWS)
        probability = 1 - _is_dominated(costs, means + spread).mean(axis=0)
    found = found.iloc[order].reset_index(drop=True)[[*grid.factors, "n", "mean", "low", "high"]]
    return found.assign(cost=costs, on_front=~_is_dominated(costs, means[None])[0], front_probability=probability)


def compute_cell_costs(table: pd.DataFrame, grid: Grid, *, cost: str) -> FloatArray:
    """The median of the column `cost` over each cell's done runs (`cells`); NaN where it was not recorded."""
    done = select_done(table)
    own = read_grid(done, grid.factors, measure=cost) if len(done) else None
    known = {cell: row[is_measured(row)] for cell, row in zip(own.cells, own.values, strict=True)} if own else {}
    return np.array([np.median(row) if len(row := known.get(cell, np.array([]))) else np.nan for cell in grid.cells])


def _is_dominated(costs: FloatArray, accuracy: FloatArray) -> BoolArray:
    """Whether a cell that costs no more is more accurate (`draws cells` -> `draws cells`); cells in order of cost."""
    most_expensive = np.searchsorted(costs, costs * (1 + COST_TOLERANCE), side="right") - 1  # affordable at each cell's cost
    return np.asarray(np.maximum.accumulate(accuracy, axis=1)[:, most_expensive] > accuracy)
