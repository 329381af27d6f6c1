"""How every figure looks: two sizes (paper column, slide), one color, marker and dash per name, deterministic files.

A backbone keeps its color and marker in all figures of all reports: known names have theirs by table, other names take
the remaining ones in sorted order. The colors stay distinct under the common forms of color blindness, the first three
also in grayscale (lightness 29, 46, 61); marker and dash repeat the distinction.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import seaborn as sns
from matplotlib.typing import LineStyleType

from study.analysis.cell_grid import CellLevels, Level

_P = ParamSpec("_P")
_R = TypeVar("_R")

INK, MUTED, GRID, SURFACE = "#1f2329", "#6b7280", "#dde1e7", "#ffffff"
"""Text and axes, secondary text and reference lines, grid, background; the HTML page replaces them by CSS variables."""


@dataclass(frozen=True)
class Mark:
    """How one series is drawn. `dark` replaces `color` on a dark page."""

    color: str
    dark: str
    marker: str  # matplotlib's name
    shape: str  # Vega's name of the same marker
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

BACKBONE_MARKS: Mapping[Level, int] = MappingProxyType(
    {"convmixer": 0, "vit": 1, "mlp_mixer": 2, "convnext": 3, "metaformer": 6}
)
"""Known backbones: index into `MARKS`."""

TOKEN_MIXER_MARKS: Mapping[Level, int] = MappingProxyType(
    {"depthwise_conv": 0, "attention": 1, "mlp": 2, "pooling": 4, "random": 5, "identity": 7}
)
"""Token mixers: index into `MARKS`, shared with the backbone that is known for the mixer."""


def assign_marks(keys: Sequence[CellLevels]) -> dict[CellLevels, Mark]:
    """A mark for each series, in the order of `MARKS`; a series is recognized by its first level.

    Unknown names, and further series of a known name, take the remaining marks, those of no known backbone first.
    """
    known = {**TOKEN_MIXER_MARKS, **BACKBONE_MARKS}
    owner: dict[int, CellLevels] = {}
    wanted = [key for key in keys if key[0] in known]
    for key in sorted(wanted, key=lambda key: (key[0] not in BACKBONE_MARKS, keys.index(key))):
        owner.setdefault(known[key[0]], key)
    reserved = set(BACKBONE_MARKS.values())
    free = [place for place in sorted(range(len(MARKS)), key=lambda place: (place in reserved, place)) if place not in owner]
    rest = [key for key in keys if key not in owner.values()]
    cycle = free or list(range(len(MARKS)))
    places = {key: place for place, key in owner.items()} | {key: cycle[n % len(cycle)] for n, key in enumerate(rest)}
    return {key: MARKS[places[key]] for key in sorted(keys, key=lambda key: places[key])}


@dataclass(frozen=True)
class Style:
    """Sizes of a figure in inches and points."""

    name: str
    width: float  # inches, of a figure with one panel
    wide: float  # inches, of a figure with several panels in a row
    height: float
    text: float  # points
    line: float
    marker: float

    @property
    def small(self) -> float:
        """Points, of ticks and legends."""
        return self.text - (1 if self.text < 12 else 3)

    def rc_params(self) -> dict[Any, Any]:
        """matplotlib's settings. The fonts are those that matplotlib ships, so that files are equal on all machines."""
        ticks = {"major.width": self.line * 0.6, "major.size": self.text * 0.35, "minor.size": 0, "major.pad": self.text * 0.35}
        colors = dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), INK)
        small = ("xtick.labelsize", "ytick.labelsize", "legend.fontsize", "legend.title_fontsize")
        return {
            **sns.axes_style("ticks"),
            **colors,
            **{f"{axis}tick.{name}": value for axis in "xy" for name, value in ticks.items()},
            **dict.fromkeys(small, self.small),
            **dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize"), self.text),
            **dict.fromkeys(("figure.facecolor", "axes.facecolor"), SURFACE),
            "font.family": "DejaVu Sans",
            "legend.frameon": False,
            "legend.handlelength": 2.2,
            "legend.columnspacing": 1.2,
            "legend.handletextpad": 0.5,
            "lines.linewidth": self.line,
            "lines.markersize": self.marker,
            "lines.markeredgewidth": self.line * 0.5,
            "errorbar.capsize": self.marker * 0.4,
            "axes.linewidth": self.line * 0.6,
            "axes.grid": True,
            "axes.grid.axis": "y",
            "axes.axisbelow": True,
            "axes.labelpad": self.text * 0.4,
            "axes.titlepad": self.text * 0.6,
            "axes.unicode_minus": True,
            "grid.linewidth": self.line * 0.5,
            "grid.color": GRID,
            "figure.constrained_layout.use": True,
            "figure.constrained_layout.w_pad": self.text * 0.006,
            "figure.constrained_layout.h_pad": self.text * 0.006,
            "svg.hashsalt": "study",
            "svg.fonttype": "path",
            "pdf.fonttype": 42,
            "pdf.use14corefonts": False,
            "savefig.dpi": 300 if self.text < 12 else 144,
        }


PAPER = Style("paper", width=3.25, wide=6.75, height=2.35, text=8, line=1.2, marker=5.5)
TALK = Style("talk", width=8.0, wide=12.0, height=5.2, text=19, line=2.8, marker=12)
STYLES: Mapping[str, Style] = MappingProxyType({style.name: style for style in (PAPER, TALK)})


def apply_style(plot: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorates a plotting function: the settings of its keyword `style` (paper by default) apply while it draws."""

    @functools.wraps(plot)
    def plot_in_style(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        style = kwargs.get("style", PAPER)
        assert isinstance(style, Style)
        with mpl.rc_context(style.rc_params()):
            return plot(*args, **kwargs)

    return plot_in_style
