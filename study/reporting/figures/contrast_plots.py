"""The outcome of the comparison: the table of planned contrasts with their intervals."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory

from study.analysis import labels
from study.analysis.contrast_results import SIGNIFICANT
from study.reporting.figures.style import GRID, INK, MUTED, PAPER, SURFACE, Style, apply_style


@dataclass(frozen=True)
class ForestPlotLine:
    """One line of a forest plot: a heading, or a contrast (a row of the table) with what its heading doesn't say."""

    label: str
    row: dict[Hashable, Any] | None = None


@apply_style
def plot_contrasts(contrasts: pd.DataFrame, *, style: Style = PAPER) -> Figure:
    """A forest plot: every planned contrast with its simultaneous interval, in percentage points, family by family.

    Primary contrasts come first, in black; exploratory ones are gray. Filled: significantly different from zero. Without an
    interval: too few seeds. The band is the smallest effect of interest, where all contrasts have the same.
    """
    ordered = contrasts.sort_values("primary", ascending=False, kind="stable")
    lines = [line for name, rows in ordered.groupby("family", sort=False) for line in _arrange_family(str(name), rows)]
    return _draw_forest(lines, contrasts["margin"], label="difference (percentage points)", style=style)


@apply_style
def plot_ablation(contrasts: pd.DataFrame, *, style: Style = PAPER) -> Figure:
    """A forest plot of an ablation: each change minus the baseline with its simultaneous interval, sorted by its size.

    The baseline is the line at zero; marks and band as in `plot_contrasts`.
    """
    rows = contrasts[contrasts["primary"]].sort_values("difference", kind="stable").to_dict("records")
    lines = [ForestPlotLine(labels.shorten_label(row["upper"], letters=46), row) for row in rows]
    label = "difference to the baseline (percentage points)"
    return _draw_forest(lines, contrasts["margin"], label=label, style=style)


def _draw_forest(lines: Sequence[ForestPlotLine], margins: pd.Series, *, label: str, style: Style) -> Figure:
    wide = max(len(line.label) for line in lines if line.row is not None) > 30
    figure = Figure(figsize=(style.wide if wide else style.width, style.text * (1.6 * len(lines) + 4) / 72))
    ax = figure.subplots()
    for at, line in enumerate(lines):
        if line.row is None:
            _write_heading(ax, at, line.label, style=style)
        else:
            _plot_contrast(ax, at, row=line.row, style=style)
    own = 100 * margins.dropna().unique()
    if len(own) == 1:
        ax.axvspan(-own[0], own[0], color=GRID, alpha=0.5, linewidth=0, zorder=0)
    ax.axvline(0, color=INK, linewidth=style.line * 0.6, zorder=1)
    ax.set_yticks(range(len(lines)), [line.label if line.row is not None else "" for line in lines])
    ax.set_ylim(len(lines) - 0.4, -0.6)
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 4, 5, 10]))
    ax.set_xlabel(label, loc="right")
    ax.tick_params(axis="y", length=0)
    ax.grid(True, axis="x", color=GRID)
    ax.grid(False, axis="y")
    sns.despine(ax=ax, left=True)
    return figure


def _write_heading(ax: Axes, at: float, text: str, *, style: Style) -> None:
    """A family's name, from the figure's left edge across the panel, so that a long one doesn't narrow the panel."""
    where = blended_transform_factory(ax.figure.transFigure, ax.transData)
    box = {"facecolor": SURFACE, "edgecolor": "none", "pad": style.text * 0.12}
    heading = ax.text(
        0.012, at, text, transform=where, va="center", fontsize=style.small, fontweight="bold", bbox=box, zorder=4
    )
    heading.set_in_layout(False)


def _arrange_family(family: str, rows: pd.DataFrame) -> list[ForestPlotLine]:
    """A family's heading, then its contrasts, sorted so that the part they share is written once, on the first of them."""
    found = rows.to_dict("records")
    ending = "" if rows["primary"].all() else " (exploratory)"
    if all(" at " in row["upper"] and " at " in row["lower"] for row in found):  # interactions
        start, end = (found[0][side].rpartition(" at ")[2] for side in ("lower", "upper"))
        change = f"{labels.format_term(family)}: {end} − {start.split()[-1]}"
        gaps = [labels.shorten_label(row["upper"].rpartition(" at ")[0].strip("()"), letters=46) for row in found]
        return [ForestPlotLine(change + ending), *map(ForestPlotLine, gaps, found)]
    pairs = [_describe_pair(row) for row in found]
    places = [_describe_place(row["where"]) for row in found]
    if len(set(places)) == 1:
        return [ForestPlotLine(family + ending), *map(ForestPlotLine, pairs, found)]
    shared, own = (pairs, places) if max(map(len, places)) <= max(map(len, pairs)) else (places, pairs)
    lines, last = [ForestPlotLine(family + ending)], ""
    for n in sorted(range(len(found)), key=lambda n: (shared.index(shared[n]), n)):
        lines.append(ForestPlotLine(own[n] if shared[n] == last else f"{shared[n]}, {own[n]}", found[n]))
        last = shared[n]
    return lines


def _describe_pair(row: dict[Hashable, Any]) -> str:
    """The two sides of a contrast without the factor's name, which the heading has: "ViT − ConvMixer", "4 − 2"."""
    if not row["lower"]:
        return labels.shorten_label(row["upper"], letters=46)
    sides = (labels.drop_option(row[side], row["subject"]) for side in ("upper", "lower"))
    return " − ".join(labels.shorten_label(side, letters=22) for side in sides) + (" (control)" if row["control"] else "")


def _describe_place(where: str) -> str:
    """Where a contrast was taken, without the factor's name: "at patch size 2, averaged over x" -> "at 2"."""
    place = where.split(", averaged over")[0]
    return f"at {place.split(' ')[-1]}" if place[-1:].isdigit() else labels.shorten_label(place)


def _plot_contrast(ax: Axes, at: float, *, row: dict[Hashable, Any], style: Style) -> None:
    difference, low, high = (100 * float(row[name]) for name in ("difference", "low", "high"))
    if np.isnan(difference):
        return
    color = INK if row["primary"] else MUTED
    if not np.isnan(low):
        ax.plot([low, high], [at, at], color=color, zorder=2)
    ax.plot(
        [difference],
        [at],
        "o",
        markerfacecolor=color if row["verdict"] in SIGNIFICANT else SURFACE,
        markeredgecolor=color,
        markeredgewidth=style.line * 0.8,
        markersize=style.marker * 0.8,
        zorder=3,
    )
