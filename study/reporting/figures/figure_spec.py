"""One figure of a report with its words: name, title, caption, and what is to be seen to those who can't see it.

Captions carry n, so that a figure that has been cut out of the report still says how many runs it shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from study.analysis import labels
from study.analysis.cell_means import describe_clipping
from study.analysis.findings import StudyPart
from study.analysis.intervals import MIN_SEEDS
from study.reporting.figures.style import Look


@dataclass(frozen=True)
class Plate:
    """One figure of a report. `alt` says what is to be seen to those who can't see it."""

    name: str
    title: str
    caption: str
    alt: str
    draw: Callable[[Look], Figure]


def seeds_text(part: StudyPart) -> str:
    """n in words: "n = 5 seeds per cell", "n = 2 to 5 seeds per cell"."""
    return f"n = {counts_text(part.cells['n'])} seeds per cell"


def counts_text(counts: pd.Series) -> str:
    """A range of counts."""
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low} to {high}"


def interval_text(part: StudyPart) -> str:
    """Which intervals are drawn."""
    drawn = part.cells["low"].notna()
    ends = describe_clipping(part.cells)
    told = f"95 % t interval over seeds{f', cut at {ends}' if ends else ''}"
    return told if drawn.all() else f"{told}, where at least {MIN_SEEDS} seeds differ"


def divergence_text(part: StudyPart) -> str:
    """A word on crosses, where there are any."""
    number = int(part.cells["diverged"].sum())
    return f"; crosses: {number} diverged run{'s' if number > 1 else ''}, in no mean" if number else ""


def means_in_words(part: StudyPart) -> str:
    """The means, cell by cell."""
    told = []
    for row in part.cells.to_dict("records"):
        cell = ", ".join(labels.format_setting(name, row[name]) for name in part.levels if pd.notna(row[name]))
        told.append(f"{cell}: {labels.format_percent(row['mean'])} %" if row["n"] else f"{cell}: no run")
    return "; ".join(told)
