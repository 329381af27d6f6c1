"""Figures of what `study.probe` measured: receptive fields and attention by layer, and accuracy on shuffled images."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from study.analysis.cell_grid import FloatArray, read_numbers
from study.analysis.factor_layout import FactorLayout
from study.reporting.figures.panels import add_legend, create_panels, label_axes, list_series
from study.reporting.figures.style import MUTED, PAPER, Style, apply_style
from study.reporting.figures.training_plots import plot_mean_and_range


@apply_style
def plot_layers(
    table: pd.DataFrame, measures: pd.DataFrame, *, layout: FactorLayout, label: str, reach: bool = False, style: Style = PAPER
) -> Figure:
    """A panel for each level along the layout's axis, in it each series' mean and range of `value` over layers.

    `measures` has one row per run and layer. `reach`: a line at the radius in pixels of the panel's kernels, if any.
    """
    joined = measures.merge(table, on="run_id")
    figure, panels = create_panels(joined, (layout.along, *layout.panels), style=style, height=style.height * 0.75)
    series = [one for one in list_series(table, layout) if len(one.select(joined))]
    for panel in panels:
        for one in series:
            plot_mean_and_range(panel, one, measure="value", over="layer")
        panel.ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        for radius in sorted(set(_compute_reach(panel.table))) if reach else ():
            panel.ax.axhline(radius, color=MUTED, linestyle=":", linewidth=style.line, zorder=1)
    panels[0].ax.set_ylim(bottom=0)  # of all, when all is drawn
    label_axes(panels, x="layer", y=label)
    add_legend(figure, series, style=style)
    return figure


def _compute_reach(table: pd.DataFrame) -> FloatArray:
    """The radius in pixels of every kernel that some run of the table has."""
    if "kernel_size" not in table:
        return np.zeros(0)
    radii = (read_numbers(table, "kernel_size") - 1) / 2 * read_numbers(table, "patch_size")
    return radii[~np.isnan(radii)]


@apply_style
def plot_losses(table: pd.DataFrame, losses: pd.DataFrame, *, layout: FactorLayout, style: Style = PAPER) -> Figure:
    """A panel for each level along the layout's axis, in it each series' accuracy change over `strength`, with intervals."""
    figure, panels = create_panels(losses, (layout.along, *layout.panels), style=style, height=style.height * 0.75)
    series = [one for one in list_series(table, layout) if len(one.select(losses))]
    strengths = sorted({1.0, *losses["strength"]})
    for panel in panels:
        for number, one in enumerate(series):
            own = one.select(panel.table).sort_values("strength")
            if own.empty:
                continue
            shift = 1.03 ** (number - (len(series) - 1) / 2)  # so that intervals of equal strengths don't cover each other
            at, loss = own["strength"].to_numpy(dtype=float), 100 * read_numbers(own, "loss")
            low, high = 100 * read_numbers(own, "low"), 100 * read_numbers(own, "high")
            color = one.mark.color
            panel.ax.plot([1, *at * shift], [0, *loss], color=color, marker=one.mark.marker, linestyle=one.mark.linestyle)
            known = ~np.isnan(low)
            panel.ax.errorbar(
                (at * shift)[known], loss[known], [(loss - low)[known], (high - loss)[known]], color=color, fmt="none"
            )
        panel.ax.set_xscale("log", base=2)
        panel.ax.xaxis.set_major_locator(FixedLocator(strengths))
        panel.ax.set_xticklabels([f"{strength:g}" for strength in strengths])
        panel.ax.xaxis.set_minor_locator(FixedLocator([]))
    label_axes(panels, x="blocks along a side", y="change in accuracy (points)")
    add_legend(figure, series, style=style)
    return figure
