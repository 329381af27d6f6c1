"""Learning curves and tuning: means over seeds and the band between the lowest and the highest of them.

The band is a range and no interval: it shows every seed there is and says nothing about others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from study.reporting import wording
from study.reporting.figures.cost import cost_axis
from study.reporting.figures.panels import Panel, Series, edge_labels, panelled, series_legend, series_of
from study.reporting.figures.style import PAPER, Look, styled
from study.reporting.layout import Layout

PERCENT = ("val_accuracy", "train_accuracy")


@styled
def learning_curves(
    table: pd.DataFrame, curves: pd.DataFrame, *, places: Layout, measure: str = "val_accuracy", look: Look = PAPER
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
    edge_labels(panels, x="epoch", y=wording.axis(measure))
    series_legend(figure, series, look=look)
    return figure


@styled
def tuning_flatness(
    trials: pd.DataFrame, tuned: str, *, places: Layout, measure: str = "val_accuracy", look: Look = PAPER
) -> Figure:
    """How validation accuracy depends on a tuned option, a panel for each level along the layout's axis.

    A flat top says that the choice mattered little, a top at the edge that the range was too narrow. `trials` has one row
    per trial and seed; the layout names the other factors. Rings mark what was chosen, where a column `selected` tells.
    """
    done = trials[(trials["status"] == "done").to_numpy(dtype=bool) & trials[measure].notna().to_numpy(dtype=bool)]
    figure, panels = panelled(done, (places.along, *places.panels), look=look, height=look.height * 0.75)
    series = series_of(trials, places)
    for panel in panels:
        for one in series:
            mean_and_range(panel, one, measure=measure, over=tuned)
        chosen_rings(panel, series, tuned=tuned, measure=measure, look=look)
    known = done[tuned].astype(float)
    if known.min() > 0 and known.max() > 5 * known.min():
        cost_axis(panels[0].ax, np.asarray(known, dtype=np.float64))
    edge_labels(panels, x=wording.axis(tuned), y=wording.axis(measure))
    series_legend(figure, series, look=look)
    return figure


def chosen_rings(panel: Panel, series: Sequence[Series], *, tuned: str, measure: str, look: Look) -> None:
    """A ring around the mean of each series' chosen level."""
    if "selected" not in panel.table:
        return
    picked = panel.table[panel.table["selected"].fillna(False).to_numpy(dtype=bool)]
    for one in series:
        own = one.within(picked)
        if len(own):
            at, mean = float(own[tuned].iloc[0]), 100 * float(own[measure].astype(float).mean())
            panel.ax.plot([at], [mean], "o", markerfacecolor="none", markeredgecolor=one.mark.colour,
                          markersize=look.marker * 2.2, markeredgewidth=look.line)  # fmt: skip
    panel.ax.margins(y=0.2)  # room for the rings


def mean_and_range(panel: Panel, one: Series, *, measure: str, over: str = "epoch") -> None:
    """One series' mean line over its range in one panel."""
    own = one.within(panel.table)
    if own.empty:
        return
    scale = 100 if measure in PERCENT else 1
    frame = pd.DataFrame({"at": own[over].astype(float), "value": scale * own[measure].astype(float)}).dropna()
    marker = None if over == "epoch" else one.mark.marker
    sns.lineplot(frame, x="at", y="value", estimator="mean", errorbar=("pi", 100), color=one.mark.colour, marker=marker,
                 ax=panel.ax, legend=False, linestyle=one.mark.linestyle, err_kws={"linewidth": 0, "alpha": 0.18})  # fmt: skip
    panel.ax.set(xlabel="", ylabel="")
