"""Panels and series: the frame that every figure of runs is drawn into.

One panel for each combination of the layout's remaining factors, at most two beside each other; the series keep their
mark in all of them, and one legend stands above.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from study.reporting import wording
from study.reporting.figures.style import SURFACE, Look, Mark, marks
from study.reporting.layout import Layout, groups, keys, title
from study.reporting.statistics.grid import Cell

LETTER = 0.62
"""Mean width of a letter of DejaVu Sans, in text sizes."""


@dataclass(frozen=True)
class Series:
    """One series of the study: its levels, its name and its mark."""

    factors: tuple[str, ...]
    levels: Cell
    title: str
    mark: Mark

    @property
    def short(self) -> str:
        """The name as figures have room for it."""
        return wording.short(self.title)

    def within(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows that belong to the series."""
        return table[[key == self.levels for key in keys(table, self.factors)]]


@dataclass(frozen=True)
class Panel:
    """One panel and the runs that it shows."""

    ax: Axes
    table: pd.DataFrame


def series_of(table: pd.DataFrame, places: Layout) -> list[Series]:
    """The study's series, in the order of their marks."""
    found = marks([group.levels for group in groups(table, places.series)])
    return [Series(places.series, key, title(places.series, key), mark) for key, mark in found.items()]


def panelled(
    table: pd.DataFrame, factors: Sequence[str], *, look: Look, height: float | None = None
) -> tuple[Figure, list[Panel]]:
    """A figure with a panel for each combination of the factors; `height` of one row in inches where it isn't usual.

    Axes are shared, their names stand only at the figure's edge. The figure is outside pyplot's state.
    """
    parts = groups(table, factors)
    rows, columns = math.ceil(len(parts) / 2), min(len(parts), 2)
    figure = Figure(figsize=(look.wide if columns > 1 else look.width, rows * (height or look.height)))
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for ax, part in zip(axes, parts, strict=False):
        ax.set_title(wording.short(part.title, letters=40))
        sns.despine(ax=ax)
    for ax in axes[len(parts) :]:
        ax.remove()
        axes[len(parts) - 2].xaxis.set_tick_params(labelbottom=True)
    return figure, [Panel(ax, table[part.rows]) for ax, part in zip(axes, parts, strict=False)]


def edge_labels(panels: Sequence[Panel], *, x: str, y: str) -> None:
    """Names the axes at the figure's left and lower edge."""
    columns = min(len(panels), 2)
    for place, panel in enumerate(panels):
        panel.ax.set_ylabel(y if place % columns == 0 else "")
        panel.ax.set_xlabel(x if place + columns >= len(panels) else "")


def series_legend(figure: Figure, series: Sequence[Series], *, look: Look, line: bool = True) -> None:
    """One legend for all panels, above them; as many columns as the figure's width has room for."""
    handles = [Line2D([], [], color=one.mark.colour, marker=one.mark.marker, label=one.short) for one in series]
    for handle, one in zip(handles, series, strict=True):
        handle.set_markeredgecolor(SURFACE)
        handle.set_linestyle(one.mark.linestyle if line else "none")
    letters = 72 * figure.get_figwidth() / (LETTER * look.small)
    widest = max(len(one.short) for one in series) + (6 if line else 4)
    columns = max(1, min(len(handles), int(letters / widest)))
    figure.legend(handles=handles, loc="outside upper center", ncols=columns)
