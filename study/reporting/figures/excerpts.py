"""What a figure has room for: of a large study some panels, series and runs, evenly spaced, and a sentence that says so.

Nothing is left out of means, intervals and tables: every cell is in the report's tables, every run in runs.csv.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from study.analysis.cell_grid import TEST_ACCURACY, BoolArray, read_cells, read_numbers
from study.analysis.factor_layout import group_rows
from study.reporting.figures.style import MARKS

MAX_PANELS = 12
MAX_SERIES = len(MARKS)
MAX_POINTS = 1000
"""Runs that a figure shows as points of their own."""


@dataclass(frozen=True, eq=False)
class Excerpt:
    """The runs of what a figure shows; `note` ends its caption, "" where it shows everything."""

    table: pd.DataFrame
    note: str


def excerpt_study(
    table: pd.DataFrame, panels: Sequence[str], series: Sequence[str], *, most: int = MAX_SERIES, what: str = "series"
) -> Excerpt:
    """The runs of at most `MAX_PANELS` panels and `most` series, the first and the last of each among them."""
    kept, parts = np.ones(len(table), dtype=bool), []
    for factors, limit, noun in ((panels, MAX_PANELS, "panels"), (series, most, what)):
        groups = group_rows(table, factors)
        if len(groups) > limit:
            shown = [groups[place].rows for place in space_evenly(len(groups), limit)]
            kept &= np.logical_or.reduce(shown)
            parts.append(f"{limit} of {len(groups)} {noun}")
    note = f" Shown are {' and '.join(parts)}, evenly spaced; the report's tables have all of them." if parts else ""
    return Excerpt(table[kept], note)


def space_evenly(count: int, most: int) -> list[int]:
    """At most so many indices below `count`, evenly spaced, the first and the last among them."""
    return sorted({int(place) for place in np.linspace(0, count - 1, min(count, most)).round()})


def thin_runs(table: pd.DataFrame, factors: Sequence[str]) -> BoolArray:
    """Which of the runs are points of a figure: all, or as many of each cell, evenly spaced from the lowest to the highest."""
    each = count_points(table, factors)
    if each is None:
        return np.ones(len(table), dtype=bool)
    cells = pd.factorize(pd.Series(read_cells(table, factors)))[0]
    frame = pd.DataFrame({"cell": cells, "value": read_numbers(table, TEST_ACCURACY)}).dropna()
    groups = frame.groupby("cell")["value"]
    rank, last = groups.rank(method="first") - 1, groups.transform("size") - 1
    nearest = (rank * (each - 1) / last.clip(lower=1)).round()  # of as many points as are shown, evenly spaced
    shown = (last < each) | ((nearest * last / (each - 1)).round() == rank)
    kept = (table["status"] == "diverged").to_numpy(dtype=bool, copy=True)
    kept[frame.index[shown]] = True
    return kept


def count_points(table: pd.DataFrame, factors: Sequence[str]) -> int | None:
    """How many runs of each cell are points; None: all."""
    cells = len(set(read_cells(table, factors)))
    return None if len(table) <= MAX_POINTS else max(2, MAX_POINTS // cells)


def describe_points(table: pd.DataFrame, factors: Sequence[str]) -> str:
    """What the small points of a figure are, for its caption."""
    each = count_points(table, factors)
    return "individual runs" if each is None else f"runs, at most {each} of each cell, evenly spaced by accuracy"
