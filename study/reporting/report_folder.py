"""A report's folder: its tables are read back, and figures, LaTeX tables, report.md and index.html drawn from them alone.

    reports/<sweep>/
        figures/         SVG, PNG and PDF; figures-talk/ with --style talk
        tables/          LaTeX
        contrasts.csv, cells.csv, answer.json, ...   the results as data (`study.reporting.result_files`)
        files.txt        the names of all of these: what the next drawing may delete
        report.md, index.html

The tables may be someone else's: no name or level in them leads out of the folder, and only what files.txt lists, by names
that this module gives, is ever deleted.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from study.analysis.findings import Findings
from study.analysis.report_files import read_report_folder
from study.errors import Problem, UserError
from study.records.sweep_folder import write_whole
from study.reporting.figures.catalog import list_figures
from study.reporting.figures.figure_files import FIGURE_FORMATS, save_figure
from study.reporting.figures.figure_spec import FigureSpec
from study.reporting.figures.style import PAPER, Style
from study.reporting.how_section import build_how_section
from study.reporting.markdown import write_markdown
from study.reporting.result_files import ANSWER_FILE, RESULT_FILES, build_result_tables, write_results
from study.reporting.sections import list_sections
from study.reporting.text_tables import ReportSection, TextTable

WRITTEN = "files.txt"
DRAWN_FILES = ("report.md", "index.html", WRITTEN)
"""What every drawing writes besides what it lists in files.txt."""

_WRITTEN_NAME = re.compile(
    rf"(figures(-talk)?/[\w.-]+\.({'|'.join(FIGURE_FORMATS)}))|(tables/[\w.-]+\.tex)|{'|'.join(map(re.escape, RESULT_FILES))}",
    re.ASCII,
)

Named = TypeVar("Named", FigureSpec, ReportSection)


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
    from study.reporting.html_page import render_page  # imports Altair, which needs docstrings

    findings = Findings(read_report_folder(folder))
    how = build_how_section(findings)
    figures, sections = list(_name_files(list_figures(findings))), list(_name_files(list_sections(findings)))
    how = replace(how, figures=tuple(_name_files(how.figures)), sections=tuple(_name_files(how.sections)))
    formats = [name for name in FIGURE_FORMATS if name == "svg" or name in formats]
    places = {each: "figures" if each == PAPER else f"figures-{each.name}" for each in (PAPER, style)}
    tables = {section.name: section for section in (*sections, *how.sections) if isinstance(section.content, TextTable)}
    written = [
        f"{place}/{spec.name}.{ending}" for place in places.values() for spec in (*figures, *how.figures) for ending in formats
    ]
    written += [f"tables/{name}.tex" for name in tables]
    results = build_result_tables(findings)
    written += [*results, ANSWER_FILE]
    _replace_written(folder, written, places=[*places.values(), "tables"])
    for each, place in places.items():
        for spec in (*figures, *how.figures):
            save_figure(spec.plot(style=each), folder / place / spec.name, style=each, formats=formats)
    for name, section in tables.items():
        assert isinstance(section.content, TextTable)
        text = section.content.to_latex(caption=f"{section.title}. {section.reading}", label=f"tab:{name}")
        write_whole(folder / f"tables/{name}.tex", f"% needs \\usepackage{{booktabs}}\n{text}")
    write_results(findings, results, folder)
    write_whole(folder / "report.md", write_markdown(findings, figures, sections, formats=formats, how=how))
    page = render_page(findings, figures, sections, folder=folder / "figures", formats=formats, how=how)
    write_whole(folder / "index.html", page)
    return DrawnReport(findings, [*figures, *how.figures], folder)


def _name_files(items: Iterable[Named]) -> Iterator[Named]:
    """The items with names that are files' names and no paths, each once: names may contain levels of someone's tables."""
    taken = set[str]()
    for item in items:
        stem = name = re.sub(r"[^A-Za-z0-9_-]+", "-", item.name)[:100]
        count = 1
        while name.lower() in taken:
            name = f"{stem}-{(count := count + 1)}"
        taken.add(name.lower())
        yield replace(item, name=name)


def is_written_name(name: str) -> bool:
    """Whether a drawing may give a file this name and list it in files.txt; none leads out of the folder."""
    return _WRITTEN_NAME.fullmatch(name) is not None


def _replace_written(folder: Path, written: Sequence[str], *, places: Sequence[str]) -> None:
    """Delete what an earlier report wrote in these places, so that nothing seems to be part of this one, and list what will be.

    Raises UserError if a place is a link to another folder.
    """
    listed = (folder / WRITTEN).read_text(encoding="utf-8", errors="replace") if (folder / WRITTEN).is_file() else ""
    former = {name for name in listed.splitlines() if is_written_name(name)}
    for place in places:
        if (folder / place).resolve() != folder.resolve() / place:
            rule = "a report is drawn inside its own folder, but this is a link to another: remove the link"
            raise UserError(Problem(rule, place=str(folder / place)))
        (folder / place).mkdir(parents=True, exist_ok=True)
    own = {name for name in former if name.partition("/")[0] in (*places, *RESULT_FILES)}
    for name in sorted(own.union(written, DRAWN_FILES)):
        (folder / name).unlink(missing_ok=True)  # a link here would be written through
    text = "".join(f"{name}\n" for name in sorted({*(former - own), *written}))
    write_whole(folder / WRITTEN, text)
