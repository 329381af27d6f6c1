"""What a page needs to work without a network: figures as part of the page, and two libraries in its own text.

Vega (with Vega-Lite and Vega-Embed) comes bundled from the package vl-convert-python, DataTables from itables; both are
about 1.6 MB together, a third of Plotly alone, and neither asks a server for anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType

import vl_convert
from markupsafe import Markup

from study.reporting.figures.budget_plots import SHADES
from study.reporting.figures.style import GRID, INK, MARKS, MUTED, SURFACE

DARK_INK, DARK_MUTED, DARK_GRID, DARK_SURFACE = "#e6e8eb", "#9aa3ae", "#333a44", "#14171c"
DARK_SHADES = ("#e6e8eb", "#6fa3d6", "#36506b", "#8a8f98")

COLOURS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "ink": (INK, DARK_INK),
        "muted": (MUTED, DARK_MUTED),
        "grid": (GRID, DARK_GRID),
        "surface": (SURFACE, DARK_SURFACE),
        **{f"mark-{place}": (mark.colour, mark.dark) for place, mark in enumerate(MARKS)},
        **{f"shade-{place}": pair for place, pair in enumerate(zip(SHADES, DARK_SHADES, strict=True))},
    }
)
"""Every colour that a figure is drawn in, by the name of its CSS variable: on a light page and on a dark one."""


def figure(svg: str, *, place: int) -> Markup:
    """A figure's SVG as part of a page: no header, identifiers of its own, colours that follow the page's."""
    text = svg[svg.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg [^>]*?)width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", text, count=1)
    prefix = f"figure-{place}"
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    text = text.replace("url(#", f"url(#{prefix}-").replace("*{stroke", f"#{prefix} *{{stroke")
    text = text.replace("<svg ", f'<svg id="{prefix}" aria-hidden="true" focusable="false" ', 1)
    return Markup(re.sub(r"(?<=: )#[0-9a-f]{6}\b", themed, text))  # drawn by matplotlib, whose texts are outlines


def themed(found: re.Match[str]) -> str:
    """The CSS variable of a figure's colour; a colour that is data (a heat map's) stays."""
    names = {light: name for name, (light, _) in reversed(list(COLOURS.items()))}
    return f"var(--{names[found[0]]})" if found[0] in names else found[0]


def vega() -> Markup:
    """The script that gives a page `vegaEmbed`."""
    return script(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def datatables() -> tuple[Markup, Markup]:
    """The module whose default export is DataTable, and its style sheet."""
    folder = resources.files("itables") / "html"
    module, style = (folder.joinpath(f"dt_bundle.{ending}").read_text(encoding="utf-8") for ending in ("js", "css"))
    return script(module), Markup(style.replace("</style", r"<\/style"))


def script(text: str) -> Markup:
    """A library's text in a form that can't end its script element early."""
    return Markup(text.replace("</script", r"<\/script").replace("<!--", r"<\x21--"))
