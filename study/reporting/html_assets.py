"""What the page needs to work offline: figures as inline SVG, and two libraries as inline scripts.

Vega (with Vega-Lite and Vega-Embed) is bundled by vl-convert-python in the version that Altair writes charts for, DataTables
by itables; together they are about 1.6 MB, a third of Plotly alone, and neither requests anything from a server.
"""

import functools
import re
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType

import altair
import vl_convert
from markupsafe import Markup

from study.reporting.figures.budget_plots import SHADES
from study.reporting.figures.style import GRID, INK, MARKS, MUTED, SURFACE

_DARK_SHADES = ("#e6e8eb", "#6fa3d6", "#36506b", "#8a8f98")

COLORS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "ink": (INK, "#e6e8eb"),
        "muted": (MUTED, "#9aa3ae"),
        "grid": (GRID, "#333a44"),
        "surface": (SURFACE, "#14171c"),
        **{f"mark-{place}": (mark.color, mark.dark) for place, mark in enumerate(MARKS)},
        **{f"shade-{place}": pair for place, pair in enumerate(zip(SHADES, _DARK_SHADES, strict=True))},
    }
)
"""Every color of the figures by the name of its CSS variable: on a light page and on a dark one."""

_VARIABLES = {light: f"var(--{name})" for name, (light, _) in reversed(list(COLORS.items()))}


def inline_svg(svg: str, *, place: int) -> Markup:
    """A figure's SVG as part of a page: without header, with unique ids, its colors replaced by the page's variables."""
    text = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    for size in ("width", "height"):
        text = re.sub(rf'(<svg [^>]*?){size}="[^"]*"', r"\1", text, count=1)
    prefix = f"figure-{place}"
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    text = text.replace("url(#", f"url(#{prefix}-").replace("*{stroke", f"#{prefix} *{{stroke")
    text = text.replace("<svg ", f'<svg id="{prefix}" aria-hidden="true" focusable="false" ', 1)
    # A color that is data (a heat map's) stays. Only matplotlib writes here: texts are outlines.
    return Markup(re.sub(r'(?:(?<=: )|(?<=fill="))#[0-9a-f]{6}\b', lambda found: _VARIABLES.get(found[0], found[0]), text))


@functools.cache
def bundle_vega() -> Markup:
    """The script that gives a page `vegaEmbed`."""
    version = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    return _escape_script(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version))


def bundle_datatables() -> tuple[Markup, Markup]:
    """The module whose default export is DataTable, and its style sheet."""
    folder = resources.files("itables") / "html"
    module, style = (folder.joinpath(f"dt_bundle.{ending}").read_text(encoding="utf-8") for ending in ("js", "css"))
    return _escape_script(module), Markup(style.replace("</style", r"<\/style"))


def _escape_script(text: str) -> Markup:
    """A library's text in a form that can't end its script element early."""
    return Markup(text.replace("</script", r"<\/script").replace("<!--", r"<\x21--"))
