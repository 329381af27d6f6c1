"""Which cells are worth their cost: the Pareto front, with how sure each cell's place on it is.

A cell is on the front if none that costs as much or less is more accurate. Means of a few seeds put cells there by
luck, so each cell carries the share of plausible means under which it belongs there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from study.analysis.cell_grid import BoolArray, FloatArray, Grid, is_measured, read_grid
from study.analysis.cell_means import describe_cell, summarize_cells
from study.analysis.intervals import MIN_SEEDS, estimate_mean
from study.rng import stream

FRONT_DRAWS = 4000
COST_TOLERANCE = 0.02
"""Costs that differ by less count as equal, as they do where budgets are matched."""


def find_pareto_front(table: pd.DataFrame, by: Sequence[str], *, cost: str) -> pd.DataFrame:
    """One row per cell with a cost and an accuracy, cheapest first: its mean, its place and how sure that place is.

    `cost` is any column of which less is better (`params`, `macs`, `train_seconds`); a cell costs the median of its
    done runs. `on_front` judges by the means. Population of `front_probability` (multivariate t, pairing by seed kept):
    the expected accuracies over seeds, on this data and this test set; NaN where a cell has fewer than three seeds.
    `beaten_by` names the most accurate cell that costs no more.
    """
    grid = read_grid(table, by)
    price = compute_cell_costs(table, grid, cost=cost)
    accuracy = estimate_mean(grid.values).mean
    placed = is_measured(price) & is_measured(accuracy)
    places = [place for place, has_both in enumerate(placed) if has_both]
    order = sorted(places, key=lambda place: (price[place], -accuracy[place]))
    grid, price, accuracy = grid.select(order), price[order], accuracy[order]
    found = summarize_cells(table, by).iloc[order].reset_index(drop=True)
    beaten = dominated(price, accuracy[None])[0]
    return found[[*by, "n", "mean", "low", "high"]].assign(
        cost=price,
        on_front=~beaten,
        front_probability=front_probability(grid, price),
        beaten_by=[beater(grid, price, accuracy, place=p) for p in range(len(order))],
    )


def estimate_front_band(table: pd.DataFrame, by: Sequence[str], *, cost: str) -> pd.DataFrame:
    """The front as a line with its uncertainty: from each cell's cost on, the best accuracy that this cost buys.

    One row per cost, cheapest first; between two costs the line is level. Population of `low` and `high` (95 % of drawn
    means, as in `front`): the best of the cells' expected accuracies over seeds, on this data and test set. NaN where a cell
    has fewer than three seeds.
    """
    grid = read_grid(table, by)
    price = compute_cell_costs(table, grid, cost=cost)
    accuracy = estimate_mean(grid.values).mean
    order = [int(place) for place in np.argsort(price, kind="stable") if np.isfinite(price[place] + accuracy[place])]
    ascending = price[order]
    bought = (
        np.searchsorted(ascending, ascending * (1 + COST_TOLERANCE), side="right") - 1
    )  # the dearest that counts as no dearer
    best = np.maximum.accumulate(accuracy[order])[bought]
    low = high = np.full(len(order), np.nan)
    if order and is_measured(grid.values[order]).sum(axis=1).min() >= MIN_SEEDS:
        drawn = np.maximum.accumulate(drawn_means(grid.values[order], draws=FRONT_DRAWS), axis=1)[:, bought]
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return pd.DataFrame({"cost": ascending, "best": best, "low": low, "high": high})


def compute_cell_costs(table: pd.DataFrame, grid: Grid, *, cost: str) -> FloatArray:
    """The median cost of each cell's done runs; NaN where it was not recorded."""
    done = table[(table["status"] == "done").to_numpy(dtype=bool)]
    own = read_grid(done, grid.factors, measure=cost) if len(done) else None
    known = dict(zip(own.cells, own.values, strict=True)) if own else {}
    rows = [known.get(cell, np.array([np.nan])) for cell in grid.cells]
    return np.array([np.median(row[is_measured(row)]) if is_measured(row).any() else np.nan for row in rows])


def dominated(price: FloatArray, accuracy: FloatArray) -> BoolArray:
    """Whether each cell is beaten by one that costs no more (`draws cells` -> `draws cells`)."""
    affordable = price[None, :] <= price[:, None] * (1 + COST_TOLERANCE)  # cell, other
    better = accuracy[:, None, :] > accuracy[:, :, None]  # draws cell other
    return np.asarray((better & affordable[None]).any(axis=2))


def front_probability(grid: Grid, price: FloatArray) -> FloatArray:
    """The share of drawn means under which each cell is on the front."""
    if is_measured(grid.values).sum(axis=1).min(initial=MIN_SEEDS) < MIN_SEEDS:
        return np.full(len(price), np.nan)
    return np.asarray(1 - dominated(price, drawn_means(grid.values, draws=FRONT_DRAWS)).mean(axis=0))


def drawn_means(values: FloatArray, *, draws: int) -> FloatArray:
    """Means that the seeds leave plausible, `draws cells`: each cell's own draws spread as its t interval does.

    Deviations of one seed enter all cells with the same random weight, so cells that rose and fell together do so here.
    Degrees of freedom are those of the cell with the fewest seeds.
    """
    there = is_measured(values)
    n = there.sum(axis=1)
    mean = np.where(there, values, 0.0).sum(axis=1) / n
    deviation = np.where(there, values - mean[:, None], 0.0) / np.sqrt(n * (n - 1))[:, None]
    df = int(n.min()) - 1
    rng = stream(0, "plausible means")
    weights = rng.normal(size=(draws, values.shape[1]))
    scale = np.sqrt(df / rng.chisquare(df, draws))
    return np.asarray(mean + (weights @ deviation.T) * scale[:, None])


def beater(grid: Grid, price: FloatArray, accuracy: FloatArray, *, place: int) -> str:
    """The most accurate cell that costs no more than the one at `place`; empty where that is itself."""
    affordable = np.where(price <= price[place] * (1 + COST_TOLERANCE), accuracy, -np.inf)
    best = int(np.argmax(affordable))
    return describe_cell(grid.factors, grid.cells[best]) if accuracy[best] > accuracy[place] else ""
