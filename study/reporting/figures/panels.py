"""Panels and series: the frame that every figure of runs is drawn into.

One panel for each combination of the layout's remaining factors, two or three beside each other; the series keep their mark
in all of them, and one legend stands above, or in the place that the last row leaves.
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

from study.analysis import labels
from study.analysis.cell_grid import CellLevels
from study.analysis.factor_layout import FactorLayout, describe_group, group_rows, read_cells
from study.reporting.figures.style import SURFACE, Look, Mark, marks

LETTER = 0.62
"""Mean width of a letter of DejaVu Sans, in text sizes."""


@dataclass(frozen=True)
class Series:
    """One series of the study: its levels, its name and its mark."""

    factors: tuple[str, ...]
    levels: CellLevels
    title: str
    mark: Mark

    @property
    def short(self) -> str:
        """The name as figures have room for it."""
        return labels.shorten(self.title)

    def within(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows that belong to the series."""
        return table[[key == self.levels for key in read_cells(table, self.factors)]]


@dataclass(frozen=True)
class Panel:
    """One panel and the runs that it shows. `left` and `bottom`: it stands at that edge of the figure."""

    ax: Axes
    table: pd.DataFrame
    left: bool
    bottom: bool


def series_of(table: pd.DataFrame, places: FactorLayout) -> list[Series]:
    """The study's series, in the order of their marks."""
    found = marks([group.levels for group in group_rows(table, places.series)])
    return [Series(places.series, key, describe_group(places.series, key), mark) for key, mark in found.items()]


def panelled(
    table: pd.DataFrame, factors: Sequence[str], *, look: Look, height: float | None = None
) -> tuple[Figure, list[Panel]]:
    """A figure with a panel for each combination of the factors; `height` of one row in inches where it isn't usual.

    Axes are shared, their names stand only at the figure's edge. The figure is outside pyplot's state.
    """
    parts = group_rows(table, factors)
    titles = [labels.shorten(part.title, letters=40) for part in parts]
    columns = columns_for(titles, look=look)
    rows = math.ceil(len(parts) / columns)
    figure = Figure(figsize=(look.wide if columns > 1 else look.width, rows * (height or look.height)))
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for ax, title_text in zip(axes, titles, strict=False):
        ax.set_title(title_text)
        sns.despine(ax=ax)
    for ax in axes[len(parts) - columns : (rows - 1) * columns]:  # those above a place that stays empty
        ax.xaxis.set_tick_params(labelbottom=True)
    for ax in axes[len(parts) :]:
        ax.remove()
    panels = [
        Panel(ax, table[part.rows], left=place % columns == 0, bottom=place + columns >= len(parts))
        for place, (ax, part) in enumerate(zip(axes, parts, strict=False))
    ]
    return figure, panels


def columns_for(titles: Sequence[str], *, look: Look) -> int:
    """How many panels stand beside each other: three where that leaves fewer places empty and titles have the room."""
    room = look.wide * 72 / 3 > LETTER * look.text * max(map(len, titles), default=0)
    if len(titles) < 3 or not room:
        return min(len(titles), 2)
    return 3 if len(titles) % 3 == 0 or (len(titles) % 2 and len(titles) % 3 == 2) else 2


def edge_labels(panels: Sequence[Panel], *, x: str, y: str) -> None:
    """Names the axes at the figure's left and lower edge."""
    for panel in panels:
        panel.ax.set_ylabel(y if panel.left else "")
        panel.ax.set_xlabel(x if panel.bottom else "")


def series_legend(figure: Figure, series: Sequence[Series], *, look: Look, line: bool = True) -> None:
    """One legend for all panels: in the last row's empty place, or above, in as many columns as there is room for."""
    handles = [Line2D([], [], color=one.mark.colour, marker=one.mark.marker, label=one.short) for one in series]
    for handle, one in zip(handles, series, strict=True):
        handle.set_markeredgecolor(SURFACE)
        handle.set_linestyle(one.mark.linestyle if line else "none")
    grid = figure.axes[0].get_gridspec()
    assert grid is not None, "panels stand in a grid"
    empty = grid.nrows * grid.ncols - len(figure.axes)
    if empty:
        place = (1 - empty / grid.ncols / 2, 0.5 / grid.nrows)
        figure.legend(handles=handles, loc="center", bbox_to_anchor=place)
        return
    letters = 72 * figure.get_figwidth() / (LETTER * look.small)
    widest = max(len(one.short) for one in series) + (6 if line else 4)
    columns = max(1, min(len(handles), int(letters / widest)))
    figure.legend(handles=handles, loc="outside upper center", ncols=columns)
