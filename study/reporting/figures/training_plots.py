"""Learning curves and tuning: means over seeds, in the band from the lowest to the highest seed.

The band is a range, not an interval: it covers the seeds that were run and says nothing about others. Accuracies over
epochs are on the log scale of the error, so that the first epochs and the last tenths of a point are legible in one figure.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from study.analysis import labels
from study.analysis.cell_grid import FloatArray, read_numbers, select_done
from study.analysis.factor_layout import FactorLayout
from study.analysis.tuning_choices import VALIDATION_ACCURACY
from study.reporting.figures.cost_plots import set_log_axis
from study.reporting.figures.panels import Panel, Series, add_legend, create_panels, label_axes, list_series
from study.reporting.figures.style import PAPER, Style, apply_style

ACCURACY_CURVES = (VALIDATION_ACCURACY, "train_accuracy")
_TICKS = (*range(0, 90, 10), 90, 95, 98, 99, 99.5, 99.8, 99.9)
"""Ticks of accuracies, percent."""


@apply_style
def plot_learning_curves(
    table: pd.DataFrame, curves: pd.DataFrame, *, layout: FactorLayout, measure: str, style: Style = PAPER
) -> Figure:
    """A panel for each level along the layout's axis, in it each series' mean and range of `measure` over epochs.

    `curves` is long: one row per run and epoch. Runs that diverged are shown up to their last epoch.
    """
    joined = curves[["run_id", "epoch", measure]].merge(table, on="run_id", suffixes=("", "_final"))
    figure, panels = create_panels(joined, (layout.along, *layout.panels), style=style, height=style.height * 0.75)
    series = list_series(table, layout)
    for panel in panels:
        for one in series:
            plot_mean_and_range(panel, one, measure=measure, over="epoch")
        panel.ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if measure in ACCURACY_CURVES:
        most = np.nanmax(read_numbers(table, "val_images"), initial=0.0)
        # Half a validation image in percent replaces an error of zero, which has no logarithm.
        _set_error_scale([panel.ax for panel in panels], resolution=50 / most if most > 0 else 0.05)
    label_axes(panels, x="epoch", y=labels.format_axis_label(measure))
    add_legend(figure, series, style=style)
    return figure


@apply_style
def plot_sensitivity(trials: pd.DataFrame, tuned: str, *, layout: FactorLayout, style: Style = PAPER) -> Figure:
    """How validation accuracy depends on a tuned option, a panel for each level along the layout's axis.

    A flat maximum says that the choice mattered little, one at the boundary that the search range was too narrow. `trials`
    has one row per trial and seed; circles mark the level that its column `selected`, if any, marks as chosen.
    """
    done = select_done(trials[trials[VALIDATION_ACCURACY].notna()])
    figure, panels = create_panels(done, (layout.along, *layout.panels), style=style, height=style.height * 0.75)
    series = list_series(trials, layout)
    for panel in panels:
        for one in series:
            plot_mean_and_range(panel, one, measure=VALIDATION_ACCURACY, over=tuned)
            if "selected" in panel.table:
                _circle_selected(panel, one, tuned=tuned, style=style)
                panel.ax.margins(y=0.2)  # room for the circles
    known = read_numbers(done, tuned)
    if known.min() > 0 and known.max() > 5 * known.min():
        set_log_axis(panels[0].ax, known)
    label_axes(panels, x=labels.format_axis_label(tuned), y=labels.format_axis_label(VALIDATION_ACCURACY))
    add_legend(figure, series, style=style)
    return figure


def _set_error_scale(axes: Sequence[Axes], *, resolution: float) -> None:
    """Accuracy in percent on the log scale of the error, with round ticks that keep a distance, for all of these panels."""
    ax, drawn = axes[0], [each.dataLim for each in axes]
    low, high = min(box.y0 for box in drawn), min(max(box.y1 for box in drawn), 100 - resolution)

    def to_height(accuracy: FloatArray) -> FloatArray:
        return np.asarray(-np.log(np.maximum(100 - np.asarray(accuracy, dtype=float), resolution)))

    def to_accuracy(height: FloatArray) -> FloatArray:
        return np.asarray(100 - np.exp(-np.asarray(height, dtype=float)))

    ax.set_yscale("function", functions=(to_height, to_accuracy))
    start, end = to_height(np.array([low, high]))
    pad = 0.04 * (end - start) or 0.1  # a single point has no height
    ax.set_ylim(*map(float, to_accuracy(np.array([start - pad, end + pad]))))
    shown: list[float] = []
    for tick in (tick for tick in _TICKS if low <= tick <= high):
        if not shown or np.diff(to_height(np.array([shown[-1], tick])))[0] > 0.12 * (end - start):
            shown.append(tick)
    ax.yaxis.set_major_locator(FixedLocator(shown))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _circle_selected(panel: Panel, one: Series, *, tuned: str, style: Style) -> None:
    own = one.select(panel.table[panel.table["selected"].fillna(False).to_numpy(dtype=bool)])
    levels, accuracy = read_numbers(own, tuned), 100 * read_numbers(own, VALIDATION_ACCURACY)
    for level in np.unique(levels):  # several where each seed tuned for itself
        panel.ax.plot(
            [level],
            [accuracy[levels == level].mean()],
            "o",
            markerfacecolor="none",
            markeredgecolor=one.mark.color,
            markersize=style.marker * 2.2,
            markeredgewidth=style.line,
        )


def plot_mean_and_range(panel: Panel, one: Series, *, measure: str, over: str) -> None:
    """A series' mean of a measure over the values of `over`, in the band from its lowest to its highest run."""
    own = one.select(panel.table)
    if own.empty:
        return
    scale = 100 if measure in ACCURACY_CURVES else 1
    frame = pd.DataFrame({"at": read_numbers(own, over), "value": scale * read_numbers(own, measure)}).dropna()
    sns.lineplot(
        frame,
        x="at",
        y="value",
        estimator="mean",
        errorbar=("pi", 100),
        color=one.mark.color,
        marker=None if over == "epoch" else one.mark.marker,
        ax=panel.ax,
        legend=False,
        linestyle=one.mark.linestyle,
        err_kws={"linewidth": 0, "alpha": 0.18},
    )
    panel.ax.set(xlabel="", ylabel="")
