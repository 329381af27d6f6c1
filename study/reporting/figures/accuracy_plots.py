"""Accuracy over the levels of the study: as points with intervals, and as a heat map.

Intervals are Student's t over seeds, as in the table of cells; nothing is drawn where fewer than three seeds are known.
Every measured run is a small point. A diverged run has no accuracy: it is a cross on the axis, and never in a mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.analysis import labels
from study.analysis.cell_grid import TEST_ACCURACY, FloatArray, Level
from study.analysis.cell_means import clip_intervals, summarize_cells
from study.analysis.factor_layout import FactorLayout, list_levels, read_cells
from study.reporting.figures.panels import Panel, Series, edge_labels, panelled, series_legend, series_of
from study.reporting.figures.style import GRID, MUTED, PAPER, SURFACE, Look, Mark, styled

ON_DARK, ON_LIGHT = "#fefefe", "#111111"
"""Figures written on the dark and light cells of a heat map, whatever the page around it."""

SPREAD = 0.42
"""How much of the distance between two levels the series of one level share."""


@dataclass(frozen=True)
class Scale:
    """The levels along an axis, evenly spaced whatever their size: patch sizes are categories."""

    factor: str
    levels: tuple[Level, ...]

    def places(self, table: pd.DataFrame) -> FloatArray:
        """Where each row stands."""
        return np.array([self.levels.index(level) for (level,) in read_cells(table, [self.factor])], dtype=float)

    def ticks(self, ax: Axes) -> None:
        """One tick for each level; long words are turned, so that neighbours don't run into each other."""
        words = [labels.shorten(labels.format_level(level)) for level in self.levels]
        ax.set_xticks(range(len(words)), words)
        ax.set_xlim(-0.5, len(words) - 0.5)
        if sum(len(word) + 2 for word in words) > 36:
            for tick in ax.get_xticklabels():
                tick.set(rotation=30, horizontalalignment="right", rotation_mode="anchor")


@styled
def accuracy_by_level(
    table: pd.DataFrame, *, places: FactorLayout, baseline: float | None = None, look: Look = PAPER
) -> Figure:
    """Mean accuracy with its t interval for each level along the axis and each series, all runs as points.

    `baseline` is the accuracy that every cell should clear (a fraction), drawn as a dotted line.
    """
    figure, panels = panelled(table, places.panels, look=look)
    series = series_of(table, places)
    scale = Scale(places.along, tuple(list_levels(table, places.along)))
    for panel in panels:
        series_over_levels(panel, places=places, scale=scale, series=series, look=look)
        if baseline is not None:
            baseline_line(panel.ax, baseline, look=look)
    edge_labels(panels, x=labels.format_axis_label(places.along), y=labels.format_axis_label(TEST_ACCURACY))
    series_legend(figure, series, look=look)
    return figure


def series_over_levels(panel: Panel, *, places: FactorLayout, scale: Scale, series: Sequence[Series], look: Look) -> None:
    """One panel: each series a little to the side of the others, so that their intervals don't hide each other."""
    summary = clip_intervals(summarize_cells(panel.table, list(places.factors)))
    sides = np.linspace(-SPREAD / 2, SPREAD / 2, len(series)) if len(series) > 1 else np.zeros(1)
    for side, one in zip(sides, series, strict=True):
        own, runs = one.within(summary), one.within(panel.table)
        mean_line(panel.ax, scale.places(own) + side, own, mark=one.mark)
        run_points(panel.ax, scale.places(runs) + side, runs, mark=one.mark, look=look)
    scale.ticks(panel.ax)


def mean_line(ax: Axes, at: FloatArray, summary: pd.DataFrame, *, mark: Mark) -> None:
    """Means joined by the series' line, with their intervals where there are any. Fractions in, per cent drawn."""
    mean, low, high = (100 * summary[name].to_numpy(dtype=float) for name in ("mean", "low", "high"))
    ax.plot(at, mean, color=mark.colour, linestyle=mark.linestyle, marker=mark.marker, markeredgecolor=SURFACE, zorder=3)
    known = ~np.isnan(low)
    if known.any():
        reach = np.stack([mean - low, high - mean])[:, known]
        ax.errorbar(at[known], mean[known], reach, fmt="none", ecolor=mark.colour, zorder=2.5)


def run_points(ax: Axes, at: FloatArray, runs: pd.DataFrame, *, mark: Mark, look: Look) -> None:
    """Every measured run as a small pale point beside its mean; diverged ones as crosses along the panel's bottom."""
    frame = pd.DataFrame({"x": at + 0.08, "y": 100 * measured(runs, TEST_ACCURACY)}).dropna().sort_values(["x", "y"])
    area = (look.marker * 0.4) ** 2
    sns.scatterplot(frame, x="x", y="y", color=mark.colour, alpha=0.5, s=area, linewidth=0, ax=ax, legend=False, zorder=2)
    diverged = (runs["status"] == "diverged").to_numpy(dtype=bool)
    if diverged.any():
        bottom = np.full(diverged.sum(), 0.03)
        ax.plot(at[diverged], bottom, "x", color=mark.colour, markeredgewidth=look.line, transform=ax.get_xaxis_transform())


def measured(runs: pd.DataFrame, column: str) -> FloatArray:
    """A column of the runs that are done; NaN for the others."""
    values = pd.to_numeric(runs[column], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    return np.where((runs["status"] == "done").to_numpy(dtype=bool), values, np.nan)


def baseline_line(ax: Axes, baseline: float, *, look: Look) -> None:
    """A dotted line at the accuracy (fraction) that a linear model on pixels reaches, named at its left end."""
    ax.axhline(100 * baseline, color=MUTED, linestyle=":", linewidth=look.line)
    bottom, top = ax.get_ylim()
    low = 100 * baseline - bottom < 0.12 * (top - bottom)  # below it there would be no room for the name
    place, where = (0.01, 100 * baseline), ax.get_yaxis_transform()
    ax.annotate(
        "pixel baseline",
        place,
        xycoords=where,
        xytext=(0, 1 if low else -2),
        textcoords="offset points",
        color=MUTED,
        va="bottom" if low else "top",
        fontsize=look.small,
    )


@styled
def heat_map(table: pd.DataFrame, *, places: FactorLayout, look: Look = PAPER) -> Figure:
    """Mean accuracy of every cell as a colour with its figure in per cent; a cell without a measured run shows a dash."""
    series = series_of(table, places)
    along = list_levels(table, places.along)
    lines = (look.text * (len(series) * 2.6 + 5.5)) / 72
    figure, panels = panelled(table, places.panels, look=look, height=lines)
    means = 100 * summarize_cells(table, list(places.factors))["mean"]
    for panel in panels:
        summary = summarize_cells(panel.table, list(places.factors))
        grid = [[cell_mean(one.within(summary), places.along, level) for level in along] for one in series]
        heat_panel(panel.ax, 100 * np.array(grid), limits=(float(means.min()), float(means.max())), look=look)
        panel.ax.set_xticks(np.arange(len(along)) + 0.5, [labels.format_level(level) for level in along])
        panel.ax.set_yticks(np.arange(len(series)) + 0.5, [one.short for one in series], rotation=0)
    edge_labels(panels, x=labels.format_axis_label(places.along), y="")
    figure.suptitle(f"mean {labels.format_axis_label(TEST_ACCURACY)}", fontsize=look.text)
    return figure


def cell_mean(summary: pd.DataFrame, factor: str, level: Level) -> float:
    """The mean of the one cell at the level; NaN where there is none."""
    found = summary["mean"].to_numpy(dtype=float)[[key == (level,) for key in read_cells(summary, [factor])]]
    return float(found[0]) if len(found) else float("nan")


def heat_panel(ax: Axes, grid: npt.NDArray[np.float64], *, limits: tuple[float, float], look: Look) -> None:
    """One panel of cells, per cent; an absent cell is pale and carries a dash."""
    low, high = limits if limits[1] > limits[0] else (limits[0] - 1, limits[0] + 1)
    sns.heatmap(
        grid,
        ax=ax,
        vmin=low,
        vmax=high,
        cmap="cividis",
        annot=True,
        fmt=".1f",
        linewidths=look.line,
        cbar=False,
        linecolor=SURFACE,
        annot_kws={"size": look.small},
    )
    for text in ax.texts:  # a white of its own: the page's surface turns dark, this must not
        text.set_color(ON_DARK if text.get_color() == "w" else ON_LIGHT)
    ax.set_facecolor(GRID)
    ax.grid(False)
    ax.tick_params(length=0)
    for row, column in np.argwhere(np.isnan(grid)):
        ax.text(column + 0.5, row + 0.5, "–", ha="center", va="center", color=MUTED)
