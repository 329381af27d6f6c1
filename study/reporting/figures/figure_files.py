"""A figure as files: SVG, PNG and PDF with the same bytes from the same table at pinned versions.

No dates, no random identifiers; fonts as outlines (SVG) or embedded TrueType (PDF), so that they stay vectors.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import matplotlib as mpl
from matplotlib.figure import Figure

from study.atomic_io import whole_file
from study.reporting.figures.style import Style

FIGURE_FORMATS: Mapping[str, Mapping[str, str | None]] = MappingProxyType(
    {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}, "pdf": {"CreationDate": None, "Producer": None}}
)
"""Each format with the metadata to leave out, because they differ from day to day or version to version."""


def save_figure(figure: Figure, stem: Path, *, style: Style, formats: Sequence[str] = tuple(FIGURE_FORMATS)) -> list[Path]:
    """Writes `stem` with the ending of each format; returns the files in the order of `formats`."""
    paths = [stem.with_name(f"{stem.name}.{ending}") for ending in formats]
    with mpl.rc_context(style.rc_params()):
        figure.draw_without_rendering()  # solve the layout once, not again for each format
        figure.set_layout_engine("none")
        for path, ending in zip(paths, formats, strict=True):
            with whole_file(path) as draft:
                figure.savefig(draft, format=ending, metadata=dict(FIGURE_FORMATS[ending]))
    return paths
