"""Accuracy over the levels of the study: as points with intervals, and as a heat map.

Means and intervals are those of the table of cells; no interval is drawn for fewer than three seeds. Every run that is done is
a small point. A diverged run has no accuracy: it is a cross on the axis and enters no mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.analysis import labels
from study.analysis.cell_grid import TEST_ACCURACY, FloatArray, Level, read_cells
from study.analysis.cell_means import clip_intervals
from study.analysis.factor_layout import FactorLayout, list_levels
from study.reporting.figures.excerpts import thin_runs
from study.reporting.figures.panels import add_legend, create_panels, label_axes, list_series, scatter_runs
from study.reporting.figures.style import GRID, MUTED, PAPER, SURFACE, Mark, Style, apply_style

_ON_DARK, _ON_LIGHT = "#fefefe", "#111111"
"""Numbers on the dark and light cells of a heat map. Not SURFACE and INK: those follow the color scheme of the page."""

_MAX_COLUMNS = 12
"""More levels along the axis are the rows of a heat map, where there are fewer series."""

_SPREAD = 0.42
"""The part of the distance between two levels over which the series of one level are spread."""


@dataclass(frozen=True)
class CategoryAxis:
    """The levels along an axis, evenly spaced whatever their size: patch sizes are categories."""

    factor: str
    levels: list[Level]

    def locate(self, table: pd.DataFrame) -> FloatArray:
        """The position of each row."""
        return np.array([self.levels.index(level) for (level,) in read_cells(table, [self.factor])], dtype=float)

    def spread_series(self, count: int) -> FloatArray:
        """How far to the side each of so many series is drawn, so that their intervals don't hide each other."""
        return np.linspace(-_SPREAD / 2, _SPREAD / 2, count) if count > 1 else np.zeros(1)

    def set_ticks(self, ax: Axes) -> None:
        """A tick for each level, or for as many as have room; long words are rotated, so that neighbors don't overlap."""
        words = [labels.shorten_label(labels.format_level(level)) for level in self.levels]
        shown = range(0, len(words), space_ticks(ax, len(words), along="x"))
        ax.set_xticks(shown, [words[place] for place in shown])
        ax.set_xlim(-0.5, len(words) - 0.5)
        grid = ax.get_gridspec()
        if sum(len(words[place]) + 2 for place in shown) > 36 * min(1, 3 / (grid.ncols if grid else 1)):
            for tick in ax.get_xticklabels():
                tick.set(rotation=30, horizontalalignment="right", rotation_mode="anchor")


def space_ticks(ax: Axes, count: int, *, along: Literal["x", "y"]) -> int:
    """The step between labels that have room, of so many along a panel: a bit more than a text size each."""
    grid, figure = ax.get_gridspec(), ax.figure
    assert grid is not None and isinstance(figure, Figure)
    inches = figure.get_figwidth() / grid.ncols if along == "x" else figure.get_figheight() / grid.nrows
    return max(1, math.ceil(count * 1.2 * float(mpl.rcParams["font.size"]) / (0.75 * 72 * inches)))


@apply_style
def plot_accuracy_by_level(
    table: pd.DataFrame, cells: pd.DataFrame, *, layout: FactorLayout, baseline: float | None = None, style: Style = PAPER
) -> Figure:
    """Mean accuracy with its interval for each level along the axis and each series, all runs as points.

    `baseline` is the accuracy (a fraction) that every cell should exceed, drawn as a dotted line.
    """
    figure, panels = create_panels(table, layout.panels, style=style)
    series = list_series(table, layout)
    axis = CategoryAxis(layout.along, list_levels(table, layout.along))
    points = table[thin_runs(table, layout.factors)]
    for panel in panels:
        summary = clip_intervals(panel.select(cells))
        for side, one in zip(axis.spread_series(len(series)), series, strict=True):
            own, runs = one.select(summary), one.select(panel.select(points))
            _plot_means(panel.ax, axis.locate(own) + side, own, mark=one.mark)
            scatter_runs(panel.ax, axis.locate(runs) + side + 0.08, runs, mark=one.mark, style=style)
            _mark_diverged(panel.ax, axis.locate(runs) + side, runs, mark=one.mark, style=style)
        axis.set_ticks(panel.ax)
        if baseline is not None:
            panel.ax.axhline(100 * baseline, color=MUTED, linestyle=":", linewidth=style.line)
    label_axes(panels, x=labels.format_axis_label(layout.along), y=labels.format_axis_label(TEST_ACCURACY))
    add_legend(figure, series, style=style, baseline=baseline is not None)
    return figure


def _plot_means(ax: Axes, at: FloatArray, summary: pd.DataFrame, *, mark: Mark) -> None:
    """Means joined by the series' line, with their intervals where there are any. Fractions in, percent drawn."""
    mean, low, high = (100 * summary[name].to_numpy(dtype=float) for name in ("mean", "low", "high"))
    ax.plot(at, mean, color=mark.color, linestyle=mark.linestyle, marker=mark.marker, markeredgecolor=SURFACE, zorder=3)
    known = ~np.isnan(low)
    if known.any():
        lengths = np.stack([mean - low, high - mean])[:, known]
        ax.errorbar(at[known], mean[known], lengths, fmt="none", ecolor=mark.color, zorder=2.5)


def _mark_diverged(ax: Axes, at: FloatArray, runs: pd.DataFrame, *, mark: Mark, style: Style) -> None:
    diverged = (runs["status"] == "diverged").to_numpy(dtype=bool)
    if diverged.any():
        bottom = np.full(diverged.sum(), 0.03)
        ax.plot(at[diverged], bottom, "x", color=mark.color, markeredgewidth=style.line, transform=ax.get_xaxis_transform())


@apply_style
def plot_heat_map(table: pd.DataFrame, cells: pd.DataFrame, *, layout: FactorLayout, style: Style = PAPER) -> Figure:
    """Mean accuracy of every cell as a color with the number in percent; a cell without a run that is done shows a dash."""
    series, along = list_series(table, layout), list_levels(table, layout.along)
    words, titles = [labels.format_level(level) for level in along], [one.short_title for one in series]
    upright = len(along) > max(_MAX_COLUMNS, len(series))
    across, down = (titles, words) if upright else (words, titles)
    lines = len(down) * (2.6 if len(down) <= _MAX_COLUMNS else 1.6) + 5.5
    figure, panels = create_panels(table, layout.panels, style=style, height=min(style.text * lines / 72, 4 * style.height))
    limits = (100 * float(cells["mean"].min()), 100 * float(cells["mean"].max()))
    for panel in panels:
        owns = [one.select(panel.select(cells)) for one in series]
        rows = [dict(zip(read_cells(own, [layout.along]), own["mean"], strict=True)) for own in owns]
        grid = 100 * np.array([[row.get((level,), np.nan) for level in along] for row in rows], dtype=float)
        _fill_heat_map(panel.ax, grid.T if upright else grid, limits=limits, style=style)
        _label_cells(panel.ax, across=across, down=down)
    axis = labels.format_axis_label(layout.along)
    label_axes(panels, x="" if upright else axis, y=axis if upright else "")
    figure.suptitle(f"mean {labels.format_axis_label(TEST_ACCURACY)}", fontsize=style.text)
    if not panels[0].ax.texts:  # no room for numbers
        figure.colorbar(panels[0].ax.collections[0], ax=figure.axes, shrink=0.6, aspect=40)
    return figure


def _label_cells(ax: Axes, *, across: Sequence[str], down: Sequence[str]) -> None:
    """The columns and rows of a heat map, or as many of them as have room."""
    columns = range(0, len(across), space_ticks(ax, len(across), along="x"))
    rows = range(0, len(down), space_ticks(ax, len(down), along="y"))
    ax.set_xticks(np.array(columns) + 0.5, [across[place] for place in columns])
    ax.set_yticks(np.array(rows) + 0.5, [down[place] for place in rows], rotation=0)
    if space_ticks(ax, sum(len(across[place]) + 1 for place in columns), along="x") > 2:
        ax.tick_params(axis="x", rotation=90)


def _fill_heat_map(ax: Axes, grid: FloatArray, *, limits: tuple[float, float], style: Style) -> None:
    """One panel of cells, percent, with numbers where they have room; a missing cell is pale and shows a dash."""
    low, high = limits if limits[1] > limits[0] else (limits[0] - 1, limits[0] + 1)
    height, width = grid.shape
    numbers = space_ticks(ax, 2 * width, along="x") == space_ticks(ax, height, along="y") == 1
    sns.heatmap(
        grid,
        ax=ax,
        vmin=low,
        vmax=high,
        cmap="cividis",
        annot=numbers,
        fmt=".1f",
        linewidths=style.line if numbers else 0,
        cbar=False,
        linecolor=SURFACE,
        annot_kws={"size": style.small},
    )
    for text in ax.texts:
        text.set_color(_ON_DARK if text.get_color() == "w" else _ON_LIGHT)
    ax.set_facecolor(GRID)
    ax.grid(False)
    ax.tick_params(length=0)
    for row, column in np.argwhere(np.isnan(grid)) if numbers else ():
        ax.text(column + 0.5, row + 0.5, "–", ha="center", va="center", color=MUTED)
