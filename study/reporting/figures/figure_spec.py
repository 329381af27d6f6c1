"""One figure of a report with its words: name, title, caption, and a text alternative.

Captions state n, so that a figure used outside the report still says how many runs it shows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from study.analysis import labels
from study.analysis.cell_means import describe_clipping
from study.analysis.findings import StudyPart
from study.analysis.intervals import MIN_SEEDS


@dataclass(frozen=True)
class FigureSpec:
    """One figure of a report. `alt` describes it to readers who can't see it."""

    name: str
    title: str
    caption: str
    alt: str
    plot: Callable[..., Figure]  # takes the keyword `style`


def describe_n(part: StudyPart) -> str:
    """The number of seeds: "n = 5 seeds per cell", "n = 2 to 5 seeds per cell"."""
    return f"n = {describe_range(part.cells['n'])} seeds per cell"


def describe_range(counts: pd.Series) -> str:
    """The counts as one number or a range."""
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low} to {high}"


def describe_intervals(part: StudyPart) -> str:
    """Which intervals a figure of cells draws."""
    ends = describe_clipping(part.cells)
    text = f"95 % interval over {part.population}{f', clipped at {ends}' if ends else ''}"
    return text if part.cells["low"].notna().all() else f"{text}, for cells with at least {MIN_SEEDS} seeds that differ"


def describe_means(part: StudyPart) -> str:
    """The mean of each cell, as the text alternative of a figure."""
    means = []
    for row in part.cells.to_dict("records"):
        cell = labels.format_cell(list(part.levels), tuple(row[name] if pd.notna(row[name]) else None for name in part.levels))
        means.append(f"{cell}: {labels.format_percent(row['mean'])} %" if row["n"] else f"{cell}: no run")
    return "; ".join(means)
