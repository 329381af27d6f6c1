"""index.html: the whole report as one file that works offline, for reading, exploring and sending around.

Rendered with Jinja2, whose autoescaping covers every word of a user. The page forbids itself any request (Content
Security Policy), so that it is as self-contained as it claims.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from study.analysis import labels
from study.analysis.cell_grid import Level, to_level
from study.analysis.findings import Findings
from study.reporting.figures.figure_spec import Plate
from study.reporting.figures.style import PAPER
from study.reporting.html_assets import COLOURS, datatables, figure, vega
from study.reporting.html_explorer import explorer
from study.reporting.provenance import facts, standing
from study.reporting.sections import all_sections
from study.reporting.text_tables import TextTable

RUN_COLUMNS = ("test_accuracy", "val_accuracy", "params", "macs", "train_seconds", "images_per_second")
WIDE = 1.5 * 72 * PAPER.width
"""Points; a figure wider than this has several panels and takes the page's whole width."""

FILTERED = 12
"""A factor with more levels than this gets no filter of its own; the search field finds its levels too."""


def page(findings: Findings, plates: Sequence[Plate], figures: Path) -> str:
    """The page as HTML; `figures` is the folder that holds the plates' SVG files."""
    environment = Environment(
        loader=PackageLoader("study.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    module, style = datatables()
    return environment.get_template("page.html").render(
        study=findings.study.facts,
        standing=standing(findings),
        parts=[(part.heading, part.sentences) for part in findings.parts],
        across=findings.across,
        figures=[drawn(plate, figures, place) for place, plate in enumerate(plates)],
        explorer=explorer(findings),
        runs=run_table(findings),
        sections=all_sections(findings),
        is_table=lambda content: isinstance(content, TextTable),
        facts=facts(findings),
        colours=COLOURS,
        vega=vega(),
        datatables=module,
        datatables_style=style,
        page_style=source(environment, "page.css"),
        page_script=source(environment, "page.js"),
    )


def source(environment: Environment, name: str) -> Markup:
    """A file of this package that becomes part of the page as it is."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def drawn(plate: Plate, figures: Path, place: int) -> dict[str, Any]:
    """A plate with its picture, for the template."""
    svg = (figures / f"{plate.name}.svg").read_text(encoding="utf-8")
    width = re.search(r'viewBox="0 0 ([\d.]+)', svg)
    assert width, f"{plate.name}.svg has no viewBox"
    return {"plate": plate, "svg": figure(svg, place=place), "wide": float(width[1]) > WIDE}


def run_table(findings: Findings) -> dict[str, Any]:
    """Headings, filters and rows of the table of all runs; each entry with its text and what it is sorted by."""
    table = findings.table
    if table.empty:
        return {"headings": [], "filters": [], "rows": []}
    factors = list(dict.fromkeys([*findings.splits, *(name for part in findings.parts for name in part.levels)]))
    measured = [name for name in RUN_COLUMNS if name in table]
    names = ["run_id", "status", *factors, "seed", *measured, *(["reason"] if has_any(table, "reason") else [])]
    headings = [{"name": name, "title": heading(name), "numeric": name in measured} for name in names]
    filters = [
        {"title": heading(name), "column": place + 1, "levels": sorted({str(entry(name, one)["text"]) for one in table[name]})}
        for place, name in enumerate(names)
        if name in ("status", *factors) and 1 < table[name].nunique(dropna=False) <= FILTERED
    ]
    rows = [[entry(name, row[name]) for name in names] for row in table[names].to_dict("records")]
    return {"headings": headings, "filters": filters, "rows": rows}


def has_any(table: pd.DataFrame, column: str) -> bool:
    """Whether the column exists and says anything."""
    return column in table and bool(table[column].notna().any())


def heading(name: str) -> str:
    """The heading of a column of runs."""
    return {"run_id": "run", "seed": "seed"}.get(name, labels.format_axis_label(name))


def entry(name: str, value: object) -> dict[str, Level]:
    """One entry: the text to be read and the value to be sorted by."""
    known = to_level(value)
    if name in ("test_accuracy", "val_accuracy"):
        return {
            "text": labels.format_percent(known if isinstance(known, float | int) else None, digits=2),
            "order": number(known),
        }
    if name in ("params", "macs", "images_per_second", "train_seconds"):
        return {"text": labels.format_amount(known if isinstance(known, float | int) else None), "order": number(known)}
    if name in ("run_id", "reason", "study"):
        return {"text": "" if known is None else str(known), "order": None}
    return {"text": labels.format_level(known), "order": known if isinstance(known, float | int) else None}


def number(value: Level) -> float:
    """What a figure is sorted by; missing ones come before all others."""
    return float(value) if isinstance(value, int | float) else -1.0
