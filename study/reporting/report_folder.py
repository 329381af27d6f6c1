"""A report's folder: its tables are read back, and figures, LaTeX tables, report.md and index.html drawn from them alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from study.analysis.findings import Findings
from study.analysis.report_tables import read_report_folder
from study.reporting.figures.catalog import list_figures
from study.reporting.figures.figure_files import FORMATS, save_figure
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


def draw_report(folder: Path, *, style: Style = PAPER, formats: Sequence[str] = tuple(FORMATS)) -> DrawnReport:
    """Draws the report of a folder that holds its tables; files of an earlier report are replaced.

    Report and page show the figures in paper style; another style is drawn in addition, into a folder of its own. `formats`
    are those of `FORMATS` in which to write the figures; SVG, which report and page show, is always written.
    """
    findings = Findings(read_report_folder(folder))
    figures = list_figures(findings)
    formats = [ending for ending in FORMATS if ending == "svg" or ending in formats]
    for each in dict.fromkeys((PAPER, style)):
        place = folder / ("figures" if each == PAPER else f"figures-{each.name}")
        _remove_files(place, tuple(FORMATS))
        for spec in figures:
            save_figure(spec.plot(each), place / spec.name, style=each, formats=formats)
    _write_latex_tables(findings, folder / "tables")
    (folder / "report.md").write_text(write_markdown(findings, figures, formats=formats), encoding="utf-8")
    page = render_page(findings, figures, folder / "figures", formats=formats)
    (folder / "index.html").write_text(page, encoding="utf-8")
    return DrawnReport(findings, figures, folder)


def _remove_files(place: Path, endings: Sequence[str]) -> None:
    """Removes what an earlier report wrote: a file that isn't drawn any more must not seem to be part of this one."""
    for path in sorted(place.glob("*")) if place.is_dir() else []:
        if path.suffix[1:] in endings:
            path.unlink()


def _write_latex_tables(findings: Findings, place: Path) -> None:
    """The report's tables for a paper, one file each."""
    place.mkdir(exist_ok=True)
    _remove_files(place, ("tex",))
    for section in list_sections(findings):
        if isinstance(section.content, TextTable):
            caption = f"{section.title}. {section.reading}"
            text = section.content.to_latex(caption=caption, label=f"tab:{section.name}")
            (place / f"{section.name}.tex").write_text(f"% needs \\usepackage{{booktabs}}\n{text}", encoding="utf-8")
