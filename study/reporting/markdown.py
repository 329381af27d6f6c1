"""report.md: the answer first, then the figures and tables that it rests on, then their provenance.

The first line of an unfinished study says how many of how many runs it shows. Texts of users are escaped (the filter `md`).
"""

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from study.analysis import labels
from study.analysis.findings import Findings
from study.reporting.figures.figure_spec import FigureSpec
from study.reporting.how_section import HowSection
from study.reporting.provenance import describe_progress, list_data_files, list_facts
from study.reporting.text_tables import ReportSection, escape_markdown

_MAX_RUNS = 50  # without an accuracy that are listed


def write_markdown(
    findings: Findings,
    figures: Sequence[FigureSpec],
    sections: Sequence[ReportSection],
    *,
    formats: Sequence[str],
    how: HowSection | None = None,
) -> str:
    """The whole report as Markdown; it links the figures in `figures/`, in each of the formats."""
    environment = Environment(
        loader=PackageLoader("study.reporting", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = escape_markdown
    rows = findings.table if findings.table.empty else findings.table[findings.table["status"] != "done"]
    reasons = rows["reason"].fillna("").astype(str) if "reason" in rows else [""] * len(rows)
    return environment.get_template("report.md").render(
        study=findings.study.facts,
        progress=describe_progress(findings),
        across=findings.across,
        parts=findings.parts,
        figures=figures,
        formats=formats,
        sections=sections,
        how=how or HowSection(),
        incomplete=list(zip(rows["run_id"], rows["status"], reasons, strict=True)) if len(rows) else [],
        max_runs=_MAX_RUNS,
        facts=list_facts(findings),
        files=labels.join_words(f"`{name}`" for name in list_data_files(findings)),
    )
