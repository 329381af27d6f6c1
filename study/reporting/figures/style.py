"""How every figure looks: two sizes (paper column, slide), one colour, marker and dash per name, deterministic files.

A backbone keeps its colour and marker in all figures of all reports: the well-known names have theirs by table, further
names take the entries left over, in sorted order. The colours keep apart under the common forms of colour blindness and
the first three also in greyscale (lightness 29, 46, 61); marker and dash say the same again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import seaborn as sns
from matplotlib.typing import LineStyleType

from study.analysis.cell_grid import CellLevels, Level

P = ParamSpec("P")
R = TypeVar("R")

INK, MUTED, GRID, SURFACE = "#1f2329", "#6b7280", "#dde1e7", "#ffffff"
"""Text and axes, secondary text and reference lines, grid, background; a page may put its own in their place."""


@dataclass(frozen=True)
class Mark:
    """How one series is drawn. `dark` stands for `colour` on a dark page."""

    colour: str
    dark: str
    marker: str  # matplotlib's
    shape: str  # the same in Vega's words
    dash: tuple[int, ...]  # on and off in line widths; () is solid

    @property
    def linestyle(self) -> LineStyleType:
        """The dash as matplotlib takes it."""
        return (0, self.dash) if self.dash else "-"


MARKS = (
    Mark("#004488", "#7fb0e6", "o", "circle", ()),
    Mark("#b8455b", "#f08fa3", "s", "square", (5, 2)),
    Mark("#c28a00", "#f2c94c", "^", "triangle-up", (2, 1)),
    Mark("#007f73", "#3fc1ae", "D", "diamond", (6, 2, 1, 2)),
    Mark("#8a5bb5", "#c3a1ea", "v", "triangle-down", (1, 1)),
    Mark("#3c9bc9", "#9adcf7", "P", "cross", (8, 2)),
    Mark("#7a3e1d", "#d89b6c", "<", "triangle-left", (3, 1, 1, 1, 1, 1)),
    Mark("#6b7280", "#a8afba", ">", "triangle-right", (4, 4)),
)

KNOWN: Mapping[Level, int] = MappingProxyType({"convmixer": 0, "vit": 1, "mlp_mixer": 2, "convnext": 3, "metaformer": 6})
"""Backbones by their place in `MARKS`."""

KIN: Mapping[Level, int] = MappingProxyType(
    {"depthwise_conv": 0, "attention": 1, "mlp": 2, "pooling": 4, "random": 5, "identity": 7}
)
"""Token mixers, drawn like the backbone that is known for them."""


def marks(keys: Sequence[CellLevels]) -> dict[CellLevels, Mark]:
    """A mark for each series, in the order of `MARKS`; a series is known by its first level.

    Names without a mark of their own, and further series of a known name, take what is left over: first what is nobody's.
    """
    wanted = {key: {**KIN, **KNOWN}[key[0]] for key in keys if key[0] in KNOWN or key[0] in KIN}
    owner: dict[int, CellLevels] = {}
    for key in sorted(wanted, key=lambda key: (key[0] not in KNOWN, keys.index(key))):
        owner.setdefault(wanted[key], key)
    reserved = set(KNOWN.values())
    free = [place for place in sorted(range(len(MARKS)), key=lambda place: (place in reserved, place)) if place not in owner]
    rest = [key for key in keys if key not in owner.values()]
    turns = free or list(range(len(MARKS)))
    places = {key: place for place, key in owner.items()} | {key: turns[n % len(turns)] for n, key in enumerate(rest)}
    return {key: MARKS[places[key]] for key in sorted(keys, key=lambda key: places[key])}


@dataclass(frozen=True)
class Look:
    """Sizes of a figure in inches and points."""

    name: str
    width: float  # inches, of a figure with one panel
    wide: float  # inches, of a figure with several panels side by side
    height: float
    text: float  # points
    line: float
    marker: float

    @property
    def small(self) -> float:
        """Points, of ticks and legends."""
        return self.text - (1 if self.text < 12 else 3)

    def settings(self) -> dict[Any, Any]:
        """matplotlib's settings; fonts are those that matplotlib brings, so that files are equal everywhere."""
        return {
            **sns.axes_style("ticks"),
            "font.family": "DejaVu Sans",
            "font.size": self.text,
            "axes.labelsize": self.text,
            "axes.titlesize": self.text,
            "xtick.labelsize": self.small,
            "ytick.labelsize": self.small,
            "legend.fontsize": self.small,
            "legend.title_fontsize": self.small,
            "legend.frameon": False,
            "legend.handlelength": 2.2,
            "legend.columnspacing": 1.2,
            "legend.handletextpad": 0.5,
            "lines.linewidth": self.line,
            "lines.markersize": self.marker,
            "lines.markeredgewidth": self.line * 0.5,
            "errorbar.capsize": self.marker * 0.4,
            "axes.linewidth": self.line * 0.6,
            "grid.linewidth": self.line * 0.5,
            "grid.color": GRID,
            "axes.grid": True,
            "axes.grid.axis": "y",
            "axes.axisbelow": True,
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "xtick.major.width": self.line * 0.6,
            "ytick.major.width": self.line * 0.6,
            "xtick.major.size": self.text * 0.35,
            "ytick.major.size": self.text * 0.35,
            "xtick.minor.size": 0,
            "xtick.major.pad": self.text * 0.35,
            "ytick.major.pad": self.text * 0.35,
            "axes.labelpad": self.text * 0.4,
            "axes.titlepad": self.text * 0.6,
            "figure.constrained_layout.w_pad": self.text * 0.006,
            "figure.constrained_layout.h_pad": self.text * 0.006,
            "figure.facecolor": SURFACE,
            "axes.facecolor": SURFACE,
            "figure.constrained_layout.use": True,
            "axes.unicode_minus": True,
            "svg.hashsalt": "study",
            "svg.fonttype": "path",
            "pdf.fonttype": 42,
            "pdf.use14corefonts": False,
            "savefig.dpi": 300 if self.text < 12 else 144,
        }


PAPER = Look("paper", width=3.25, wide=6.75, height=2.35, text=8, line=1.2, marker=5.5)
TALK = Look("talk", width=8.0, wide=12.0, height=5.2, text=19, line=2.8, marker=12)
LOOKS: Mapping[str, Look] = MappingProxyType({look.name: look for look in (PAPER, TALK)})


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """A drawing function whose `look` keyword (paper unless given) is in force while it draws."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        look = kwargs.get("look", PAPER)
        assert isinstance(look, Look)
        with mpl.rc_context(look.settings()):
            return draw(*args, **kwargs)

    return drawn
