"""index.html: the whole report as one file that works offline, for reading, exploring and sharing.

Rendered with Jinja2, whose autoescaping covers every text of a user. The page's Content Security Policy forbids any
request, so that it is as self-contained as it claims.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from study.analysis import labels
from study.analysis.cell_grid import to_level
from study.analysis.findings import Findings
from study.reporting.figures.figure_spec import FigureSpec
from study.reporting.figures.style import PAPER
from study.reporting.how_section import HowSection
from study.reporting.html_assets import COLORS, bundle_datatables, bundle_vega, inline_svg
from study.reporting.html_explorer import build_explorer, select_shown_runs
from study.reporting.provenance import describe_progress, list_data_files, list_facts
from study.reporting.text_tables import ReportSection, TextTable

_MEASUREMENTS: Mapping[str, Callable[[float | None], str]] = MappingProxyType(
    {
        **dict.fromkeys(("test_accuracy", "val_accuracy"), partial(labels.format_percent, digits=2)),
        **dict.fromkeys(("params", "macs", "train_seconds", "images_per_second"), labels.format_amount),
    }
)
"""Columns of the table of runs that are measured, in its order, and how they are written."""

_WIDE = 1.5 * 72 * PAPER.width
"""Points; a figure wider than this has several panels and takes the full width of the page."""

_FIRST_FIGURES = 3
"""So many figures are shown with the answer; the others are behind a heading."""

_MAX_LEVELS = 12
"""A factor with more levels has no filter of its own; the search field finds its levels as well."""


@dataclass(frozen=True)
class PageFigure:
    """A figure of the page with its picture."""

    spec: FigureSpec
    svg: Markup
    wide: bool


@dataclass(frozen=True)
class RunEntry:
    """An entry of the table of runs: its text, and the number to sort it by if not by the text."""

    text: str
    order: float | None = None


@dataclass(frozen=True)
class RunColumn:
    """A column of the table of runs; `levels` are the choices of its filter, none where it has no filter."""

    title: str
    numeric: bool
    entries: list[RunEntry]
    levels: list[str]


def render_page(
    findings: Findings,
    figures: Sequence[FigureSpec],
    sections: Sequence[ReportSection],
    *,
    folder: Path,
    formats: Sequence[str],
    how: HowSection | None = None,
) -> str:
    """The page as HTML; `folder` holds the figures' SVG files, in the `formats` that the page names."""
    environment = Environment(
        loader=PackageLoader("study.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = select_shown_runs(findings)
    datatables, datatables_style = bundle_datatables()
    return environment.get_template("page.html").render(
        study=findings.study.facts,
        progress=describe_progress(findings),
        parts=[(part.heading, part.sentences) for part in findings.parts],
        across=findings.across,
        figures=[_load_figure(spec, folder, place) for place, spec in enumerate(figures)],
        first_figures=_FIRST_FIGURES,
        how=how or HowSection(),
        how_figures=[_load_figure(spec, folder, len(figures) + place) for place, spec in enumerate(how.figures if how else ())],
        formats=formats,
        explorer=build_explorer(findings),
        runs=_list_run_columns(findings, shown),
        left_out=len(findings.table) - len(shown),
        sections=sections,
        is_table=lambda content: isinstance(content, TextTable),
        facts=list_facts(findings),
        files=list_data_files(findings),
        colors=COLORS,
        vega=bundle_vega(),
        datatables=datatables,
        datatables_style=datatables_style,
        page_style=_load_source(environment, "page.css"),
        page_script=_load_source(environment, "page.js"),
    )


def _load_source(environment: Environment, name: str) -> Markup:
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _load_figure(spec: FigureSpec, folder: Path, place: int) -> PageFigure:
    svg = (folder / f"{spec.name}.svg").read_text(encoding="utf-8")
    width = re.search(r'viewBox="0 0 ([\d.]+)', svg)
    assert width, f"{spec.name}.svg has no viewBox"
    return PageFigure(spec, inline_svg(svg, place=place), wide=float(width[1]) > _WIDE)


def _list_run_columns(findings: Findings, table: pd.DataFrame) -> list[RunColumn]:
    """The columns of the table of runs; none where no run is planned."""
    if table.empty:
        return []
    factors = list(dict.fromkeys([*findings.splits, *(name for part in findings.parts for name in part.levels)]))
    names = ["run_id", "status", *factors, "seed", *(name for name in _MEASUREMENTS if name in table)]
    if "reason" in table and table["reason"].notna().any():
        names.append("reason")
    columns = []
    for name in names:
        entries = [_format_entry(name, entry) for entry in table[name]]
        filtered = name in ("status", *factors) and 1 < table[name].nunique(dropna=False) <= _MAX_LEVELS
        ordered = sorted(set(entries), key=lambda entry: (entry.order is None, entry.order or 0.0, entry.text.lower()))
        levels = [entry.text for entry in ordered] if filtered else []
        title = {"run_id": "run"}.get(name, labels.format_axis_label(name))
        columns.append(RunColumn(title, name in _MEASUREMENTS, entries, levels))
    return columns


def _format_entry(name: str, value: object) -> RunEntry:
    """One entry. A missing measurement sorts before all others."""
    level = to_level(value)
    number = level if isinstance(level, int | float) else None
    if name in _MEASUREMENTS:
        return RunEntry(_MEASUREMENTS[name](number), -1.0 if number is None else number)
    if name in ("run_id", "reason", "study"):
        return RunEntry("" if level is None else str(level))
    return RunEntry(labels.format_level(level), number)
