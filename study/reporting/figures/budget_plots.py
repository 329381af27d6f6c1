"""How far each network is from its budget, and where it spends its MACs: what equal budgets hide."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from study.analysis import labels
from study.analysis.cell_grid import read_numbers
from study.analysis.factor_layout import FactorLayout, group_rows, list_levels
from study.reporting.figures.accuracy_plots import CategoryAxis
from study.reporting.figures.panels import add_legend, annotate_right, create_panels, label_axes, list_series
from study.reporting.figures.style import GRID, INK, MUTED, PAPER, SURFACE, Style, apply_style

MAC_COLUMNS = ("macs_stem", "macs_token_mixing", "macs_channel_mixing", "macs_head")
SHADES = ("#1f2329", "#4f7ca8", "#b9cfe0", "#8a8f98")
"""One for each component, distinct in lightness."""
_HATCHES = ("", "", "////", "")


@apply_style
def plot_budget_error(table: pd.DataFrame, *, layout: FactorLayout, tolerance: float | None, style: Style = PAPER) -> Figure:
    """The distance of each cell's network from its budget, in percent of it; the band is the tolerance (a fraction)."""
    figure, panels = create_panels(table, layout.panels, style=style)
    series = list_series(table, layout)
    axis = CategoryAxis(layout.along, list_levels(table, layout.along))
    for panel in panels:
        if tolerance is not None:
            panel.ax.axhspan(-100 * tolerance, 100 * tolerance, color=GRID, alpha=0.5, zorder=0)
        panel.ax.axhline(0, color=INK, linewidth=style.line * 0.6, zorder=1)
        for side, one in zip(axis.spread_series(len(series)), series, strict=True):
            own, mark = one.select(panel.table).drop_duplicates([layout.along]), one.mark
            at, error = axis.locate(own) + side, 100 * read_numbers(own, "match_residual")
            panel.ax.plot(at, error, mark.marker, color=mark.color, markeredgecolor=SURFACE, zorder=3)
        axis.set_ticks(panel.ax)
    largest = float(np.nanmax(np.abs(read_numbers(table, "match_residual"))))
    limit = 120 * max(largest, tolerance or 0.0, 0.005)
    panels[0].ax.set_ylim(-limit, limit)
    label_axes(panels, x=labels.format_axis_label(layout.along), y="budget error (%)")
    add_legend(figure, series, style=style, line=False)
    return figure


@apply_style
def plot_macs_by_component(table: pd.DataFrame, *, layout: FactorLayout, style: Style = PAPER) -> Figure:
    """The share of each network's MACs in its stem, token mixing, channel mixing and head; the total on the right."""
    rows = [
        (", ".join(filter(None, (one.short_title, group.title))), own[group.rows].iloc[0])
        for one in list_series(table, layout)
        for own in [one.select(table)]
        for group in group_rows(own, (*layout.panels, layout.along))
    ]
    wide = max(len(label) for label, _ in rows) > 26
    figure = Figure(figsize=(style.wide if wide else style.width, style.text * (1.7 * len(rows) + 6) / 72))
    ax = figure.subplots()
    for at, (_, row) in enumerate(rows):
        _stack_bar(ax, at, row, style=style)
    ax.set_yticks(range(len(rows)), [label for label, _ in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlim(0, 100)
    ax.set_xlabel("share of MACs (%)", loc="right")
    ax.tick_params(axis="y", length=0)
    ax.grid(False)
    sns.despine(ax=ax, left=True)
    handles = [
        Patch(facecolor=shade, hatch=hatch, edgecolor=SURFACE, label=column.removeprefix("macs_").replace("_", " "))
        for column, shade, hatch in zip(MAC_COLUMNS, SHADES, _HATCHES, strict=True)
        if any(float(row[column]) > 0 for _, row in rows)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), handlelength=1.2)
    return figure


def _stack_bar(ax: Axes, at: float, row: pd.Series, *, style: Style) -> None:
    macs = np.array([float(row[column]) for column in MAC_COLUMNS])
    shares = 100 * macs / macs.sum()
    bars = ax.barh([at] * len(shares), shares, left=np.cumsum(shares) - shares, height=0.72, linewidth=style.line * 0.4)
    for bar, shade, hatch in zip(bars, SHADES, _HATCHES, strict=True):
        bar.set(facecolor=shade, hatch=hatch, edgecolor=SURFACE)
    annotate_right(ax, labels.format_amount(macs.sum()), (100, at), style=style, color=MUTED, gap=style.text * 0.5)
