"""A report's folder: its tables are read back, and figures, LaTeX tables, report.md and index.html drawn from them alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from study.analysis.findings import Findings
from study.analysis.report_tables import read_report_folder
from study.reporting.figures.catalog import list_figures
from study.reporting.figures.figure_files import FIGURE_FORMATS, save_figure
from study.reporting.figures.figure_spec import FigureSpec
from study.reporting.figures.style import PAPER, Style
from study.reporting.html_page import render_page
from study.reporting.markdown import write_markdown
from study.reporting.sections import list_sections
from study.reporting.text_tables import TextTable


@dataclass(frozen=True)
class DrawnReport:
    """What was drawn, for a command to summarize."""

    findings: Findings
    figures: list[FigureSpec]
    folder: Path


def draw_report(folder: Path, *, style: Style = PAPER, formats: Sequence[str] = tuple(FIGURE_FORMATS)) -> DrawnReport:
    """Draws the report of a folder that holds its tables; files of an earlier report are replaced.

    Report and page show the figures in paper style; another style is drawn in addition, into a folder of its own. `formats`
    are those of `FIGURE_FORMATS` in which to write the figures; SVG, which report and page show, is always written.
    """
    findings = Findings(read_report_folder(folder))
    figures, sections = list_figures(findings), list_sections(findings)
    formats = [name for name in FIGURE_FORMATS if name == "svg" or name in formats]
    for each in dict.fromkeys((PAPER, style)):
        place = folder / ("figures" if each == PAPER else f"figures-{each.name}")
        _remove_files(place, tuple(FIGURE_FORMATS))
        for spec in figures:
            save_figure(spec.plot(style=each), place / spec.name, style=each, formats=formats)
    _remove_files(folder / "tables", ("tex",))
    (folder / "tables").mkdir(exist_ok=True)
    for section in sections:
        if isinstance(section.content, TextTable):
            text = section.content.to_latex(caption=f"{section.title}. {section.reading}", label=f"tab:{section.name}")
            path = folder / "tables" / f"{section.name}.tex"
            path.write_text(f"% needs \\usepackage{{booktabs}}\n{text}", encoding="utf-8")
    (folder / "report.md").write_text(write_markdown(findings, figures, sections, formats=formats), encoding="utf-8")
    page = render_page(findings, figures, sections, folder=folder / "figures", formats=formats)
    (folder / "index.html").write_text(page, encoding="utf-8")
    return DrawnReport(findings, figures, folder)


def _remove_files(place: Path, endings: Sequence[str]) -> None:
    """Removes what an earlier report wrote: a file that isn't drawn any more must not seem to be part of this one."""
    for path in sorted(place.glob("*")) if place.is_dir() else []:
        if path.suffix[1:] in endings:
            path.unlink()
