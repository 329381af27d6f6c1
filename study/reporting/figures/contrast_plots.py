"""What the comparison came to: planned contrasts with their intervals, and shares of the variation.

Both take the tables of `study.analysis` as they are, so that a figure can't say other than the table does.
"""

from __future__ import annotations

from collections.abc import Hashable
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
from study.reporting.figures.style import GRID, INK, MUTED, PAPER, SURFACE, Look, styled

CLAIMED = ("higher", "lower")
"""Verdicts that say a difference is told from zero after correction; they are drawn filled."""


@dataclass(frozen=True)
class Line:
    """One line of a forest plot: a heading, or a contrast (a row of the table) with what its heading leaves to say."""

    label: str
    row: dict[Hashable, Any] | None = None


@styled
def forest_plot(contrasts: pd.DataFrame, *, look: Look = PAPER) -> Figure:
    """Every planned contrast with its interval around the mean difference in percentage points, family by family.

    Filled: told from zero after Holm's correction within the family. Hollow: not. Without a bar: too few seeds.
    """
    lines = [line for name, rows in contrasts.groupby("family", sort=False) for line in family_lines(str(name), rows)]
    longest = max(len(line.label) for line in lines if line.row is not None)
    figure = Figure(figsize=(look.width if longest <= 30 else look.wide, look.text * (1.6 * len(lines) + 4) / 72))
    ax = figure.subplots()
    for at, line in enumerate(lines):
        if line.row is None:
            heading(ax, at, line.label, look=look)
        else:
            contrast_row(ax, at, row=line.row, look=look)
    ax.axvline(0, color=INK, linewidth=look.line * 0.6, zorder=1)
    ax.set_yticks(range(len(lines)), [line.label if line.row is not None else "" for line in lines])
    ax.set_ylim(len(lines) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(True, axis="x")
    ax.grid(False, axis="y")
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 4, 5, 10]))
    ax.set_xlabel("difference (percentage points)", loc="right")
    sns.despine(ax=ax, left=True)
    return figure


def heading(ax: Axes, at: float, text: str, *, look: Look) -> None:
    """A family's name from the figure's left edge on, over the panel: so that long ones take no width from it."""
    where = blended_transform_factory(ax.figure.transFigure, ax.transData)
    box = {"facecolor": SURFACE, "edgecolor": "none", "pad": look.text * 0.12}
    found = ax.text(0.012, at, text, transform=where, va="center", fontsize=look.small, fontweight="bold", bbox=box, zorder=4)
    found.set_in_layout(False)


def family_lines(family: str, rows: pd.DataFrame) -> list[Line]:
    """A family's heading, then its contrasts: sorted so that what they share is said once, on the first of them."""
    found = rows.to_dict("records")
    if all(" at " in row["upper"] and " at " in row["lower"] for row in found):  # interactions
        start, end = (found[0][side].rpartition(" at ")[2] for side in ("lower", "upper"))
        change = f"{labels.format_term(family)}: {end} − {start.split()[-1]}"
        gaps = [row["upper"].rpartition(" at ")[0].strip("()") for row in found]
        return [Line(change), *(Line(labels.shorten(gap, letters=46), row) for gap, row in zip(gaps, found, strict=True))]
    pairs = [pair_words(row) for row in found]
    wheres = [where_words(row["where"]) for row in found]
    if len(set(wheres)) == 1:
        return [Line(family), *(Line(pair, row) for pair, row in zip(pairs, found, strict=True))]
    shared, own = (pairs, wheres) if max(map(len, wheres)) <= max(map(len, pairs)) else (wheres, pairs)
    order = sorted(range(len(found)), key=lambda place: (shared.index(shared[place]), place))
    lines, said = [Line(family)], ""
    for place in order:
        lines.append(Line(own[place] if shared[place] == said else f"{shared[place]}, {own[place]}", found[place]))
        said = shared[place]
    return lines


def pair_words(row: dict[Hashable, Any]) -> str:
    """The two sides of a contrast, the factor's name left to the heading: "ViT − ConvMixer", "4 − 2"."""
    name = f"{labels.format_option(row['subject'])} "
    return " − ".join(labels.shorten(row[side].removeprefix(name), letters=22) for side in ("upper", "lower"))


def where_words(where: str) -> str:
    """Where a contrast was taken, the factor's name left to the heading: "at patch size 2, averaged over x" -> "at 2"."""
    place = where.split(", averaged over")[0]
    return f"at {place.split(' ')[-1]}" if place[-1:].isdigit() else labels.shorten(place)


def contrast_row(ax: Axes, at: float, *, row: dict[Hashable, Any], look: Look) -> None:
    """One contrast as a mark with its interval, fractions in, points drawn."""
    difference, low, high = (100 * float(row[name]) for name in ("difference", "low", "high"))
    if np.isnan(difference):
        return
    if not np.isnan(low):
        ax.plot([low, high], [at, at], color=INK, zorder=2)
    face = INK if row["verdict"] in CLAIMED else SURFACE
    ax.plot(
        [difference],
        [at],
        "o",
        markerfacecolor=face,
        markeredgecolor=INK,
        markeredgewidth=look.line * 0.8,
        markersize=look.marker * 0.8,
        zorder=3,
    )


@styled
def decomposition_bars(decomposition: pd.DataFrame, *, look: Look = PAPER) -> Figure:
    """The share of the variation in accuracy that each term carries, in per cent, with its interval; they add up to 100."""
    figure = Figure(figsize=(look.width, (look.text * (2.2 * len(decomposition) + 4.5)) / 72))
    ax = figure.subplots()
    terms = [labels.shorten(labels.format_term(str(term)), letters=34) for term in decomposition["term"]]
    frame = pd.DataFrame({"term": terms, "share": 100 * decomposition["share"]})
    sns.barplot(frame, x="share", y="term", color=MUTED, saturation=1, width=0.62, ax=ax, edgecolor=INK, linewidth=0)
    share, low, high = (100 * decomposition[name].to_numpy(dtype=float) for name in ("share", "low", "high"))
    known = ~np.isnan(low)
    if known.any():
        reach = np.abs(np.stack([share - low, high - share]))[:, known]
        ax.errorbar(share[known], np.flatnonzero(known), xerr=reach, fmt="none", ecolor=INK, zorder=3)
    for place, (value, end) in enumerate(zip(share, np.where(known, np.maximum(high, share), share), strict=True)):
        ax.annotate(
            f"{value:.0f}",
            (end, place),
            xytext=(look.text * 0.5, 0),
            textcoords="offset points",
            va="center",
            fontsize=look.small,
        )
    ax.set_xlim(0, 108)
    ax.set_ylabel("")
    ax.set_xlabel("share of the variation (%)", loc="right")
    ax.set_xticks([0, 25, 50, 75, 100])
    ax.tick_params(axis="y", length=0)
    ax.grid(True, axis="x", color=GRID)
    ax.grid(False, axis="y")
    sns.despine(ax=ax, left=True)
    return figure
