"""A figure as files: SVG, PNG and PDF with the same bytes from the same table at pinned versions.

No dates, no random identifiers; fonts as outlines (SVG) or embedded TrueType (PDF), so that they stay vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import matplotlib as mpl
from matplotlib.figure import Figure

from study.reporting.figures.style import Look

UNDATED: Mapping[str, Mapping[str, str | None]] = MappingProxyType(
    {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}, "pdf": {"CreationDate": None, "Producer": None}}
)
"""Per format what is left out of its metadata, because it would differ from day to day or version to version."""


def save(figure: Figure, stem: Path, *, look: Look) -> list[Path]:
    """Writes `stem` with each format's ending; the files, in the order of `UNDATED`."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    with mpl.rc_context(look.settings()):
        figure.draw_without_rendering()  # the layout is solved once and not for each format
        figure.set_layout_engine("none")
        for ending, metadata in UNDATED.items():
            paths.append(stem.with_name(f"{stem.name}.{ending}"))
            figure.savefig(paths[-1], format=ending, metadata=dict(metadata))
    return paths
