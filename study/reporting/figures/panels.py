"""Panels, series and the legend: the frame that every figure of runs is drawn into.

One panel for each combination of the layout's remaining factors, two or three in a row, small ones where there are many; a
series keeps its mark in all of them. The single legend is above the panels, or in the cell that the last row leaves empty.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from study.analysis import labels
from study.analysis.cell_grid import TEST_ACCURACY, CellLevels, FloatArray, read_cells, read_numbers
from study.analysis.factor_layout import FactorLayout, group_rows
from study.analysis.labels import format_cell
from study.reporting.figures.style import MUTED, SURFACE, Mark, Style, assign_marks

_MANY_PANELS = 9
"""With more, panels are small and as many in a row as their titles have room for."""

_LETTER = 0.62
"""Mean width of a letter of DejaVu Sans, in text sizes."""


@dataclass(frozen=True)
class Series:
    """One series of the study: its levels, its name and its mark."""

    factors: tuple[str, ...]
    levels: CellLevels
    title: str
    mark: Mark

    @property
    def short_title(self) -> str:
        """The name as figures have room for it."""
        return labels.shorten_label(self.title)

    def select(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows that belong to the series."""
        return table[[key == self.levels for key in read_cells(table, self.factors)]]


@dataclass(frozen=True)
class Panel:
    """One panel and the runs that it shows. `left` and `bottom`: whether it is at that edge of the figure."""

    ax: Axes
    table: pd.DataFrame
    factors: tuple[str, ...]
    levels: CellLevels
    left: bool
    bottom: bool

    def select(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of another table, such as that of cells, that belong to the panel."""
        return table[[key == self.levels for key in read_cells(table, self.factors)]]


def list_series(table: pd.DataFrame, layout: FactorLayout) -> list[Series]:
    """The study's series: numbers by size, names in the order of their marks."""
    keys = [group.levels for group in group_rows(table, layout.series)]
    marks = assign_marks(keys)
    ordered = marks if any(isinstance(key[0], str) for key in keys) else keys
    return [Series(layout.series, key, format_cell(layout.series, key), marks[key]) for key in ordered]


def create_panels(
    table: pd.DataFrame, factors: Sequence[str], *, style: Style, height: float | None = None
) -> tuple[Figure, list[Panel]]:
    """A figure with a panel for each combination of the factors; `height` of one row in inches, by default the style's.

    The panels share their axes. The figure is outside pyplot's state.
    """
    groups = group_rows(table, factors)
    many = len(groups) > _MANY_PANELS
    titles = [labels.shorten_label(group.title, letters=40) for group in groups]
    columns = count_columns(titles, style=style)
    rows = math.ceil(len(groups) / columns)
    height = height or style.height * (0.7 if many else 1)
    figure = Figure(figsize=(style.wide if columns > 1 else style.width, rows * height))
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for ax, title in zip(axes, titles, strict=False):
        ax.set_title(title)
        sns.despine(ax=ax)
    for ax in axes[len(groups) - columns : (rows - 1) * columns]:  # those above an empty cell
        ax.xaxis.set_tick_params(labelbottom=True)
    for ax in axes[len(groups) :]:
        ax.remove()
    panels = [
        Panel(ax, table[group.rows], tuple(factors), group.levels, place % columns == 0, place + columns >= len(groups))
        for place, (ax, group) in enumerate(zip(axes, groups, strict=False))
    ]
    return figure, panels


def count_columns(titles: Sequence[str], *, style: Style) -> int:
    """How many panels are in a row: three where that leaves fewer empty and titles have the room; up to four small ones."""
    widest = _LETTER * style.text * max(map(len, titles), default=0)
    room = style.wide * 72 / 3 > widest
    if len(titles) > _MANY_PANELS:
        return min(4, max(2, int(style.wide * 72 / widest)))
    if len(titles) < 3 or not room:
        return min(len(titles), 2)
    return 3 if len(titles) % 3 == 0 or (len(titles) % 2 and len(titles) % 3 == 2) else 2


def label_axes(panels: Sequence[Panel], *, x: str, y: str) -> None:
    """Names the axes at the figure's left and lower edge."""
    for panel in panels:
        panel.ax.set_ylabel(y if panel.left else "")
        panel.ax.set_xlabel(x if panel.bottom else "")


def add_legend(figure: Figure, series: Sequence[Series], *, style: Style, line: bool = True, baseline: bool = False) -> None:
    """One legend for all panels: in the last row's empty cell, or above, in as many columns as there is room for.

    `baseline`: whether the panels have the line of a linear model on pixels.
    """
    handles = [
        Line2D(
            [],
            [],
            color=one.mark.color,
            marker=one.mark.marker,
            markeredgecolor=SURFACE,
            linestyle=one.mark.linestyle if line else "none",
            label=one.short_title,
        )
        for one in series
    ]
    if baseline:
        handles.append(Line2D([], [], color=MUTED, linestyle=":", label="linear baseline"))
    grid = figure.axes[0].get_gridspec()
    assert grid is not None, "panels are cells of a grid"
    empty = grid.nrows * grid.ncols - len(figure.axes)
    letters = 72 * figure.get_figwidth() / (_LETTER * style.small)
    widest = max(len(str(handle.get_label())) for handle in handles) + (6 if line else 4)
    line_height = 1.6 * style.small / 72
    room = letters * empty / grid.ncols, figure.get_figheight() / grid.nrows
    if widest <= room[0] and line_height * len(handles) <= room[1]:
        figure.legend(handles=handles, loc="center", bbox_to_anchor=(1 - empty / grid.ncols / 2, 0.5 / grid.nrows))
        return
    columns = max(1, min(len(handles), int(letters / widest)))
    figure.set_figheight(figure.get_figheight() + max(0, math.ceil(len(handles) / columns) - 2) * line_height)
    figure.legend(handles=handles, loc="outside upper center", ncols=columns)


def annotate_right(ax: Axes, text: str, at: tuple[float, float], *, style: Style, color: str, gap: float) -> None:
    """A small text to the right of a point, `gap` points away."""
    ax.annotate(
        text,
        at,
        xytext=(gap, 0),
        textcoords="offset points",
        va="center",
        fontsize=style.small,
        color=color,
        annotation_clip=False,
    )


def read_done(runs: pd.DataFrame, column: str) -> FloatArray:
    """A numeric column of the runs that are done; NaN for the others."""
    return np.where((runs["status"] == "done").to_numpy(dtype=bool), read_numbers(runs, column), np.nan)


def scatter_runs(ax: Axes, at: FloatArray, runs: pd.DataFrame, *, mark: Mark, style: Style) -> None:
    """Every run that is done as a small pale point at its test accuracy in percent. Of `thin_runs`, where there are many."""
    frame = pd.DataFrame({"x": at, "y": 100 * read_done(runs, TEST_ACCURACY)}).dropna().sort_values(["x", "y"])
    area = (style.marker * 0.4) ** 2  # square points
    sns.scatterplot(frame, x="x", y="y", color=mark.color, alpha=0.5, s=area, linewidth=0, ax=ax, legend=False, zorder=2)
