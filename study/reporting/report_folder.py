"""A report's folder, written whole: tables first, then everything that is drawn from them as they are read back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from study.analysis.findings import Findings
from study.analysis.report_tables import read_report_folder
from study.reporting.figures.catalog import plates
from study.reporting.figures.figure_files import save
from study.reporting.figures.figure_spec import Plate
from study.reporting.figures.style import PAPER, Look
from study.reporting.html_page import page
from study.reporting.markdown import document
from study.reporting.sections import all_sections
from study.reporting.text_tables import TextTable


@dataclass(frozen=True)
class Written:
    """What was drawn, for those who report about it."""

    findings: Findings
    plates: list[Plate]
    folder: Path


def draw(folder: Path, *, look: Look = PAPER) -> Written:
    """Draws the report of a folder that holds its tables; files of an earlier drawing are replaced.

    Report and page show the figures for paper; those in another look are drawn as well, into a folder of their own.
    """
    findings = Findings(read_report_folder(folder))
    drawn = plates(findings)
    for style in dict.fromkeys((PAPER, look)):
        place = folder / figures_folder(style)
        remove_old(place)
        for plate in drawn:
            save(plate.draw(style), place / plate.name, look=style)
    write_latex(findings, folder / "tables")
    (folder / "report.md").write_text(document(findings, drawn), encoding="utf-8")
    (folder / "index.html").write_text(page(findings, drawn, folder / figures_folder(PAPER)), encoding="utf-8")
    return Written(findings, drawn, folder)


def figures_folder(look: Look) -> str:
    """Where figures of a look lie."""
    return "figures" if look == PAPER else f"figures-{look.name}"


def remove_old(place: Path) -> None:
    """Removes figures that an earlier report drew: one that isn't drawn any more must not seem to belong."""
    for path in sorted(place.glob("*")) if place.is_dir() else []:
        if path.suffix in (".svg", ".png", ".pdf"):
            path.unlink()


def write_latex(findings: Findings, place: Path) -> None:
    """The report's tables for a paper, one file each."""
    place.mkdir(exist_ok=True)
    for path in place.glob("*.tex"):
        path.unlink()
    for section in all_sections(findings):
        if isinstance(section.content, TextTable):
            caption = f"{section.title}. {section.reading}"
            text = section.content.latex(caption=caption, label=f"tab:{section.name}")
            (place / f"{section.name}.tex").write_text(text, encoding="utf-8")
