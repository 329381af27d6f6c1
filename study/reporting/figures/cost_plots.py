"""Accuracy against what it costs: parameters, MACs, time; on a logarithmic axis, since costs compare as ratios.

Each cell is a mark with its level along the layout's axis written into it (patch size 4: "4") and its t interval over
seeds; every run is a small point; the stairs are the Pareto front of the means, the band around them its uncertainty. Results
of others are hollow marks in a figure of their own, and no line is ever drawn to them.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from study.analysis import labels
from study.analysis.cell_grid import TEST_ACCURACY, FloatArray, Level, to_level
from study.analysis.cell_means import clip_intervals, summarize_cells
from study.analysis.cost_columns import add_cost, is_matched, positive_values, to_column_units
from study.analysis.factor_layout import FactorLayout, group_rows
from study.analysis.pareto_front import estimate_front_band
from study.reporting.figures.accuracy_plots import measured
from study.reporting.figures.panels import Panel, Series, edge_labels, panelled, series_legend, series_of
from study.reporting.figures.style import GRID, MUTED, PAPER, SURFACE, Look, Mark, marks, styled
from study.reporting.published_results import Reference

NARROWEST = 2.5
"""An axis spans at least this ratio: budgets matched within 2 % should look matched."""

SIDEWAYS = 0.16
"""How far to each side (in natural logarithms) the outermost series of equal costs are set."""

LETTERS = "abcdefghijklmnopqrstuvwxyz"
"""The names of published results in a figure."""


@styled
def accuracy_against(table: pd.DataFrame, cost: str, *, places: FactorLayout, look: Look = PAPER) -> Figure:
    """Accuracy of every cell against a positive column of the table: "params", "macs", "train_seconds", ...

    A cell stands at the median of its runs' costs. Where all costs are equal within 10 % (a matched budget) the series are
    set apart sideways, so that they don't hide each other, and no line suggests a trend or a front.
    """
    figure, panels = panelled(table, places.panels, look=look)
    series = series_of(table, places)
    known = positive_values(table, cost)
    sides = np.linspace(-SIDEWAYS, SIDEWAYS, len(series)) if len(series) > 1 and is_matched(known) else np.zeros(len(series))
    for panel in panels:
        for one, side in zip(series, sides, strict=True):
            series_against_cost(panel, one, cost=cost, side=float(side), places=places, look=look)
        if len(known) and not is_matched(known):
            pareto_stairs(panel, cost=cost, places=places, look=look)
    if len(known):
        cost_axis(panels[0].ax, known)
    edge_labels(panels, x=labels.format_axis_label(cost), y=labels.format_axis_label(TEST_ACCURACY))
    series_legend(figure, series, look=look, line=False)
    return figure


def series_against_cost(panel: Panel, one: Series, *, cost: str, side: float, places: FactorLayout, look: Look) -> None:
    """One series: its runs, its cells with their intervals, and a thin line through the cells."""
    runs = one.within(panel.table)
    points = {"x": np.exp(side) * measured(runs, cost), "y": 100 * measured(runs, TEST_ACCURACY)}
    frame = pd.DataFrame(points).dropna().sort_values(["x", "y"])
    area = (look.marker * 0.4) ** 2
    sns.scatterplot(frame, x="x", y="y", color=one.mark.colour, alpha=0.5, s=area, linewidth=0, ax=panel.ax, legend=False)
    summary = clip_intervals(summarize_cells(runs, list(places.factors))) if len(runs) else pd.DataFrame()
    at = [np.exp(side) * median_cost(runs[group.rows], cost) for group in group_rows(runs, places.factors)]
    mean = [100 * float(value) for value in summary.get("mean", [])]
    if not is_matched(np.array(at)):
        panel.ax.plot(at, mean, color=one.mark.colour, linestyle=one.mark.linestyle, linewidth=look.line * 0.5, zorder=1.5)
    for x, row in zip(at, summary.to_dict("records"), strict=True):
        cell_mark(panel.ax, x, row=row, level=to_level(row[places.along]), mark=one.mark, look=look)


def median_cost(runs: pd.DataFrame, cost: str) -> float:
    """Where a cell stands, as on its front: the median over its done runs, taken of the price; NaN of none."""
    prices = measured(add_cost(runs, cost), "price")
    known = prices[np.isfinite(prices)]
    return float(to_column_units(np.array([np.median(known)]), cost)[0]) if len(known) else float("nan")


def cell_mark(ax: Axes, x: float, *, row: dict[Hashable, Any], level: Level, mark: Mark, look: Look) -> None:
    """A cell: its interval, its mark, and its level inside the mark where that is short enough."""
    mean, low, high = (100 * float(row[name]) for name in ("mean", "low", "high"))
    if not np.isfinite(mean * x):
        return
    if np.isfinite(low):
        ax.errorbar([x], [mean], [[mean - low], [high - mean]], fmt="none", ecolor=mark.colour, zorder=3)
    word = labels.format_level(level)
    pointed = mark.marker in "^v<>"
    size = look.marker * (1.55 if len(word) <= 2 else 1.1) * (1.3 if pointed else 1.0)
    ax.plot([x], [mean], marker=mark.marker, color=mark.colour, markersize=size, markeredgecolor=SURFACE, zorder=4)
    if len(word) <= 2:
        drop = {"^": -0.12, "v": 0.12}.get(mark.marker, 0.0) * size
        ax.annotate(
            word,
            (x, mean),
            xytext=(0, drop),
            textcoords="offset points",
            ha="center",
            va="center_baseline",
            color=SURFACE,
            fontsize=look.text * 0.68,
            fontweight="bold",
            zorder=5,
        )


def pareto_stairs(panel: Panel, *, cost: str, places: FactorLayout, look: Look) -> None:
    """The Pareto front of the panel's means as stairs from its cheapest cell on, in the band that the seeds leave plausible."""
    found = estimate_front_band(add_cost(panel.table, cost), list(places.factors), cost="price")
    if found.empty:
        return
    at = to_column_units(found["cost"].to_numpy(dtype=float), cost)
    best, low, high = (np.minimum(100 * found[name].to_numpy(dtype=float), 100) for name in ("best", "low", "high"))
    panel.ax.step(at, best, where="post", color=MUTED, linewidth=look.line * 0.8, alpha=0.7, zorder=1)
    if not np.isnan(low).any():
        panel.ax.fill_between(at, low, high, step="post", color=GRID, alpha=0.7, linewidth=0, zorder=0)


@styled
def beside_published(
    table: pd.DataFrame, references: Sequence[Reference], *, places: FactorLayout, look: Look = PAPER
) -> Figure:
    """Accuracy against parameters with published results as hollow, lettered marks; the letters follow `references`."""
    figure = accuracy_against(table, "params", places=places, look=look)
    known = marks([(name,) for name in dict.fromkeys(reference.backbone for reference in references)])
    for ax in figure.axes:
        for letter, reference in zip(LETTERS, references, strict=False):
            mark = known[(reference.backbone,)]
            ax.plot(
                [reference.params],
                [100 * reference.accuracy],
                marker=mark.marker,
                markerfacecolor="none",
                markeredgecolor=mark.colour,
                markeredgewidth=look.line * 0.8,
                linestyle="none",
            )
            ax.annotate(
                letter,
                (reference.params, 100 * reference.accuracy),
                xytext=(look.marker * 0.7, 0),
                textcoords="offset points",
                va="center",
                fontsize=look.small,
                color=MUTED,
            )
    own = positive_values(table, "params")
    every = np.concatenate([own * np.exp(-SIDEWAYS), own * np.exp(SIDEWAYS), [one.params for one in references]])
    cost_axis(figure.axes[0], every)
    return figure


def cost_axis(ax: Axes, values: FloatArray) -> None:
    """A logarithmic axis with round ticks written as 50 k, 2 M; never so narrow that a tolerance looks like a range."""
    low, high = values.min(), values.max()
    stretch = max(1.0, NARROWEST / (high / low)) ** 0.5 * 1.2
    low, high = low / stretch, high * stretch
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    ax.xaxis.set_major_locator(FixedLocator(round_ticks(low, high)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: labels.format_amount(value)))
    ax.xaxis.set_minor_locator(NullLocator())


def round_ticks(low: float, high: float) -> Sequence[float]:
    """Between three and six round numbers from `low` to `high`, where there are so many."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = [step * 10.0**decade for decade, step in itertools.product(decades, steps)]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= 3:
            return inside[:: -(-len(inside) // 6)]
    return inside
