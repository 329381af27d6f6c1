"""Learning curves and tuning: means over seeds and the band between the lowest and the highest of them.

The band is a range and no interval: it shows every seed there is and says nothing about others. Accuracies over epochs
stand on a scale on which every halving of the error takes the same room: so the first epochs and the last tenths of a point
can be read in one figure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from study.analysis import labels
from study.analysis.cell_grid import FloatArray
from study.analysis.factor_layout import FactorLayout
from study.reporting.figures.cost_plots import cost_axis
from study.reporting.figures.panels import Panel, Series, edge_labels, panelled, series_legend, series_of
from study.reporting.figures.style import PAPER, Look, styled

PERCENT = ("val_accuracy", "train_accuracy")
JUDGED = "val_accuracy"  # what trials are chosen by
ROUND = (*range(0, 90, 10), 90, 95, 98, 99, 99.5, 99.8, 99.9)
"""Ticks of accuracies, per cent."""


@styled
def learning_curves(
    table: pd.DataFrame, curves: pd.DataFrame, *, places: FactorLayout, measure: str, look: Look = PAPER
) -> Figure:
    """A panel for each level along the layout's axis, in it each series' mean and range of `measure` over epochs.

    `curves` is long: one row per run and epoch. Runs that diverged are shown as far as they came.
    """
    joined = curves[["run_id", "epoch", measure]].merge(table, on="run_id", suffixes=("", "_final"))
    factors = (places.along, *places.panels)
    figure, panels = panelled(joined, factors, look=look, height=look.height * 0.75)
    series = series_of(table, places)
    for panel in panels:
        for one in series:
            mean_and_range(panel, one, measure=measure)
        panel.ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if measure in PERCENT:
        error_scale(panels[0].ax, closest=closest_to_perfect(table))
    edge_labels(panels, x="epoch", y=labels.format_axis_label(measure))
    series_legend(figure, series, look=look)
    return figure


@styled
def tuning_flatness(trials: pd.DataFrame, tuned: str, *, places: FactorLayout, look: Look = PAPER) -> Figure:
    """How validation accuracy depends on a tuned option, a panel for each level along the layout's axis.

    A flat top says that the choice mattered little, a top at the edge that the range was too narrow. `trials` has one row
    per trial and seed; the layout names the other factors. Rings mark what was chosen, where a column `selected` tells.
    """
    done = trials[(trials["status"] == "done").to_numpy(dtype=bool) & trials[JUDGED].notna().to_numpy(dtype=bool)]
    figure, panels = panelled(done, (places.along, *places.panels), look=look, height=look.height * 0.75)
    series = series_of(trials, places)
    for panel in panels:
        for one in series:
            mean_and_range(panel, one, measure=JUDGED, over=tuned)
        chosen_rings(panel, series, tuned=tuned, look=look)
    known = done[tuned].astype(float)
    if known.min() > 0 and known.max() > 5 * known.min():
        cost_axis(panels[0].ax, np.asarray(known, dtype=np.float64))
    edge_labels(panels, x=labels.format_axis_label(tuned), y=labels.format_axis_label(JUDGED))
    series_legend(figure, series, look=look)
    return figure


def closest_to_perfect(table: pd.DataFrame) -> float:
    """Half a validation image, per cent: what stands for no error at all, which has no logarithm."""
    images = pd.to_numeric(table.get("val_images", pd.Series(dtype=float)), errors="coerce").max()
    return 50 / float(images) if images > 0 else 0.05


def error_scale(ax: Axes, *, closest: float) -> None:
    """Accuracy in per cent, spaced by the logarithm of the error; round ticks that keep a distance from each other."""
    low, high = ax.dataLim.y0, min(ax.dataLim.y1, 100 - closest)

    def place(accuracy: FloatArray) -> FloatArray:
        return np.asarray(-np.log(np.maximum(100 - np.asarray(accuracy, dtype=float), closest)))

    def accuracy(place: FloatArray) -> FloatArray:
        return np.asarray(100 - np.exp(-np.asarray(place, dtype=float)))

    ax.set_yscale("function", functions=(place, accuracy))
    start, end = place(np.array([low, high]))
    pad = 0.04 * (end - start)
    ax.set_ylim(*map(float, accuracy(np.array([start - pad, end + pad]))))
    inside = np.array([tick for tick in ROUND if low <= tick <= high], dtype=np.float64)
    shown: list[int] = []
    for tick, at in enumerate(place(inside)):
        if not shown or at - place(inside)[shown[-1]] > 0.12 * (end - start):
            shown.append(tick)
    ax.yaxis.set_major_locator(FixedLocator(inside[shown].tolist()))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def chosen_rings(panel: Panel, series: Sequence[Series], *, tuned: str, look: Look) -> None:
    """A ring around the mean of each series' chosen level."""
    if "selected" not in panel.table:
        return
    picked = panel.table[panel.table["selected"].fillna(False).to_numpy(dtype=bool)]
    for one in series:
        own = one.within(picked)
        if len(own):
            at, mean = float(own[tuned].iloc[0]), 100 * float(own[JUDGED].astype(float).mean())
            panel.ax.plot(
                [at],
                [mean],
                "o",
                markerfacecolor="none",
                markeredgecolor=one.mark.colour,
                markersize=look.marker * 2.2,
                markeredgewidth=look.line,
            )
    panel.ax.margins(y=0.2)  # room for the rings


def mean_and_range(panel: Panel, one: Series, *, measure: str, over: str = "epoch") -> None:
    """One series' mean line over its range in one panel."""
    own = one.within(panel.table)
    if own.empty:
        return
    scale = 100 if measure in PERCENT else 1
    frame = pd.DataFrame({"at": own[over].astype(float), "value": scale * own[measure].astype(float)}).dropna()
    marker = None if over == "epoch" else one.mark.marker
    sns.lineplot(
        frame,
        x="at",
        y="value",
        estimator="mean",
        errorbar=("pi", 100),
        color=one.mark.colour,
        marker=marker,
        ax=panel.ax,
        legend=False,
        linestyle=one.mark.linestyle,
        err_kws={"linewidth": 0, "alpha": 0.18},
    )
    panel.ax.set(xlabel="", ylabel="")
