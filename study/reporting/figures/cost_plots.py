"""Accuracy against a cost: parameters, MACs, time; on a log scale, since costs are compared as ratios.

Each cell is a mark labeled with its level along the layout's axis (patch size 4: "4"), with its interval; every run is a small
point; the step line is the Pareto front of the means. Published results are hollow marks in a figure of their own, and no line
connects them.
"""

import itertools
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from study.analysis import labels
from study.analysis.cell_grid import TEST_ACCURACY, FloatArray, Level, to_level
from study.analysis.cell_means import clip_intervals
from study.analysis.cost_columns import is_matched, positive_values, to_column_units
from study.analysis.factor_layout import FactorLayout
from study.analysis.pareto_front import COST_TOLERANCE
from study.reporting.figures.excerpts import thin_runs
from study.reporting.figures.panels import (
    add_legend,
    annotate_right,
    create_panels,
    label_axes,
    list_series,
    read_done,
    scatter_runs,
)
from study.reporting.figures.style import MUTED, PAPER, SURFACE, Mark, Style, apply_style, assign_marks
from study.reporting.published_results import PublishedResult

_MIN_RATIO = 2.5
"""An axis spans at least this ratio, so that budgets matched within 2 % look matched."""

_SIDEWAYS = 0.16
"""How far to each side (in natural logarithms) the outermost series of equal costs are drawn."""

RESULT_LETTERS = "abcdefghijklmnopqrstuvwxyz"
"""The labels of published results in a figure."""


@apply_style
def plot_accuracy_by_cost(
    table: pd.DataFrame, front: pd.DataFrame, cost: str, *, layout: FactorLayout, style: Style = PAPER
) -> Figure:
    """Accuracy of every cell against a positive column of the table: "params", "macs", "train_seconds", ...

    `front`: the cells with their costs, as from `find_pareto_front`. Where all costs are equal within 10 % (a matched budget)
    the series are drawn next to each other, and no line suggests a trend or a front.
    """
    figure, panels = create_panels(table, layout.panels, style=style)
    series = list_series(table, layout)
    costs = positive_values(table, cost)
    sides = np.linspace(-_SIDEWAYS, _SIDEWAYS, len(series)) if len(series) > 1 and is_matched(costs) else np.zeros(len(series))
    points = table[thin_runs(table, layout.factors)]
    for panel in panels:
        cells, drawn = clip_intervals(panel.select(front)), panel.select(points)
        for one, side in zip(series, sides, strict=True):
            runs, own = one.select(drawn), one.select(cells)
            scatter_runs(panel.ax, np.exp(side) * read_done(runs, cost), runs, mark=one.mark, style=style)
            at = np.exp(side) * to_column_units(own["cost"].to_numpy(dtype=float), cost)
            if len(at) and not is_matched(at):
                thin = style.line * 0.5
                panel.ax.plot(
                    at, 100 * own["mean"], color=one.mark.color, linestyle=one.mark.linestyle, linewidth=thin, zorder=1.5
                )
            for x, row in zip(at, own.to_dict("records"), strict=True):
                _plot_cell(panel.ax, x, row=row, level=to_level(row[layout.along]), mark=one.mark, style=style)
        if len(costs) and not is_matched(costs):
            _draw_pareto_front(panel.ax, cells, cost=cost, style=style)
    if len(costs):
        set_log_axis(panels[0].ax, costs)
    label_axes(panels, x=labels.format_axis_label(cost), y=labels.format_axis_label(TEST_ACCURACY))
    add_legend(figure, series, style=style, line=False)
    return figure


def _plot_cell(ax: Axes, x: float, *, row: dict[Hashable, Any], level: Level, mark: Mark, style: Style) -> None:
    mean, low, high = (100 * float(row[name]) for name in ("mean", "low", "high"))
    if np.isfinite(low):
        ax.errorbar([x], [mean], [[mean - low], [high - mean]], fmt="none", ecolor=mark.color, zorder=3)
    word = labels.format_level(level)
    triangle = mark.marker in "^v<>"  # has less room inside at the same size
    size = style.marker * (1.55 if len(word) <= 2 else 1.1) * (1.3 if triangle else 1.0)
    ax.plot([x], [mean], marker=mark.marker, color=mark.color, markersize=size, markeredgecolor=SURFACE, zorder=4)
    if len(word) <= 2:
        ax.annotate(
            word,
            (x, mean),
            xytext=(0, {"^": -0.12, "v": 0.12}.get(mark.marker, 0.0) * size),
            textcoords="offset points",
            ha="center",
            va="center_baseline",
            color=SURFACE,
            fontsize=style.text * 0.68,
            fontweight="bold",
            zorder=5,
        )


def _draw_pareto_front(ax: Axes, cells: pd.DataFrame, *, cost: str, style: Style) -> None:
    """The Pareto front of the panel's means as a step line from its cheapest cell; costs within 2 % count as equal."""
    price, mean = (cells[name].to_numpy(dtype=float) for name in ("cost", "mean"))
    order = np.argsort(price, kind="stable")
    best = [100 * mean[price <= own * (1 + COST_TOLERANCE)].max() for own in price[order]]
    at = to_column_units(price[order], cost)
    ax.step(at, best, where="post", color=MUTED, linewidth=style.line * 0.8, alpha=0.7, zorder=1)


@apply_style
def plot_published_results(
    table: pd.DataFrame, front: pd.DataFrame, results: Sequence[PublishedResult], *, layout: FactorLayout, style: Style = PAPER
) -> Figure:
    """Accuracy against parameters, with published results as hollow marks, lettered in the order of `results`."""
    figure = plot_accuracy_by_cost(table, front, "params", layout=layout, style=style)
    marks = assign_marks([(name,) for name in dict.fromkeys(result.backbone for result in results)])
    for ax in figure.axes:
        for letter, result in zip(RESULT_LETTERS, results, strict=False):
            mark, at = marks[(result.backbone,)], (result.params, 100 * result.accuracy)
            ax.plot(*at, mark.marker, markerfacecolor="none", markeredgecolor=mark.color, markeredgewidth=style.line * 0.8)
            annotate_right(ax, letter, at, style=style, color=MUTED, gap=style.marker * 0.7)
    own = positive_values(table, "params")
    published = [result.params for result in results]
    set_log_axis(figure.axes[0], np.concatenate([own * np.exp(-_SIDEWAYS), own * np.exp(_SIDEWAYS), published]))
    return figure


def set_log_axis(ax: Axes, values: FloatArray) -> None:
    """A log axis with round ticks written as 50 k, 2 M; never so narrow that a tolerance looks like a range."""
    low, high = values.min(), values.max()
    stretch = max(1.0, _MIN_RATIO / (high / low)) ** 0.5 * 1.2
    low, high = low / stretch, high * stretch
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    ax.xaxis.set_major_locator(FixedLocator(choose_log_ticks(low, high)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: labels.format_amount(value)))
    ax.xaxis.set_minor_locator(NullLocator())


def choose_log_ticks(low: float, high: float) -> Sequence[float]:
    """Between three and six round numbers from `low` to `high`, if there are as many."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = [step * 10.0**decade for decade, step in itertools.product(decades, steps)]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= 3:
            return inside[:: -(-len(inside) // 6)]
    return inside
