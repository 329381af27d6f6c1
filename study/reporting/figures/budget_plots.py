"""Who was matched how closely, and where each network spends its MACs: what equal budgets hide."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.analysis import labels
from study.analysis.cell_grid import FloatArray
from study.analysis.factor_layout import FactorLayout, group_rows, list_levels
from study.reporting.figures.accuracy_plots import SPREAD, Scale
from study.reporting.figures.panels import edge_labels, panelled, series_legend, series_of
from study.reporting.figures.style import GRID, INK, MUTED, PAPER, SURFACE, Look, styled

PARTS = ("stem", "token_mixing", "channel_mixing", "head")
SHADES = ("#1f2329", "#4f7ca8", "#b9cfe0", "#8a8f98")
"""One for each part, apart in lightness; hatched parts differ from their neighbours without any colour."""
HATCHES = ("", "", "////", "")


@styled
def budget_check(table: pd.DataFrame, *, places: FactorLayout, tolerance: float | None, look: Look = PAPER) -> Figure:
    """How far each cell's network lies from its budget, in per cent of it; the band is the tolerance (a fraction)."""
    figure, panels = panelled(table, places.panels, look=look)
    series = series_of(table, places)
    scale = Scale(places.along, tuple(list_levels(table, places.along)))
    sides = np.linspace(-SPREAD / 2, SPREAD / 2, len(series)) if len(series) > 1 else np.zeros(1)
    for panel in panels:
        if tolerance is not None:
            panel.ax.axhspan(-100 * tolerance, 100 * tolerance, color=GRID, alpha=0.5, zorder=0)
        panel.ax.axhline(0, color=INK, linewidth=look.line * 0.6, zorder=1)
        for side, one in zip(sides, series, strict=True):
            own = one.within(panel.table).drop_duplicates([places.along])
            off = 100 * numbers(own, "match_residual")
            panel.ax.plot(
                scale.places(own) + side,
                off,
                linestyle="none",
                marker=one.mark.marker,
                color=one.mark.colour,
                markeredgecolor=SURFACE,
                zorder=3,
            )
        scale.ticks(panel.ax)
    furthest = float(np.nanmax(np.abs(numbers(table, "match_residual"))))
    reach = 120 * max(furthest, tolerance or 0.0, 0.005)
    panels[0].ax.set_ylim(-reach, reach)
    edge_labels(panels, x=labels.format_axis_label(places.along), y="off the budget (%)")
    series_legend(figure, series, look=look, line=False)
    return figure


def numbers(table: pd.DataFrame, column: str) -> FloatArray:
    """A column as floats, NaN where it is missing."""
    return pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=float, na_value=np.nan)


@styled
def macs_by_part(table: pd.DataFrame, *, places: FactorLayout, look: Look = PAPER) -> Figure:
    """The share of each network's MACs spent in its stem, token mixing, channel mixing and head; the total beside it."""
    series = series_of(table, places)
    rows = [
        (f"{one.short}{', ' if group.title else ''}{group.title}", own[group.rows].iloc[0])
        for one in series
        for own in [one.within(table)]
        for group in group_rows(own, (*places.panels, places.along))
    ]
    longest = max(len(label) for label, _ in rows)
    width = look.width if longest <= 26 else look.wide
    figure = Figure(figsize=(width, look.text * (1.7 * len(rows) + 6) / 72))
    ax = figure.subplots()
    for at, (_, row) in enumerate(rows):
        stacked_bar(ax, at, row, look=look)
    ax.set_yticks(range(len(rows)), [label for label, _ in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlim(0, 100)
    ax.set_xlabel("share of the MACs (%)", loc="right")
    ax.tick_params(axis="y", length=0)
    ax.grid(False)
    sns.despine(ax=ax, left=True)
    shown = [part for part in PARTS if any(float(row[f"macs_{part}"]) > 0 for _, row in rows)]
    handles = [
        ax.barh(
            [-9],
            [0],
            color=SHADES[PARTS.index(part)],
            hatch=HATCHES[PARTS.index(part)],
            edgecolor=SURFACE,
            label=part.replace("_", " "),
        )
        for part in shown
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(shown) if width > 3 else 2, handlelength=1.2)
    return figure


def stacked_bar(ax: Axes, at: float, row: pd.Series, *, look: Look) -> None:
    """One network as a bar of its parts' shares, its total to the right."""
    parts = np.array([float(row[f"macs_{part}"]) for part in PARTS])
    share = 100 * parts / parts.sum()
    left = np.cumsum(share) - share
    for place in range(len(PARTS)):
        ax.barh(
            [at],
            [share[place]],
            left=[left[place]],
            height=0.72,
            color=SHADES[place],
            hatch=HATCHES[place],
            edgecolor=SURFACE,
            linewidth=look.line * 0.4,
        )
    ax.annotate(
        labels.format_amount(parts.sum()),
        (100, at),
        xytext=(look.text * 0.5, 0),
        textcoords="offset points",
        va="center",
        fontsize=look.small,
        color=MUTED,
        annotation_clip=False,
    )
