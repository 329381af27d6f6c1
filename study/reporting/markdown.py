"""report.md: the answer first, then the figures and tables that it rests on, then their provenance.

The first line of an unfinished study says how many of how many runs it shows. Texts of users are escaped.
"""

from collections.abc import Iterator, Sequence

from study.analysis import labels
from study.analysis.findings import Findings
from study.analysis.study_results import Unavailable
from study.reporting.figures.figure_spec import FigureSpec
from study.reporting.provenance import describe_progress, list_data_files, list_facts
from study.reporting.text_tables import ReportSection, escape_markdown

_MAX_RUNS = 50


def write_markdown(
    findings: Findings, figures: Sequence[FigureSpec], sections: Sequence[ReportSection], *, formats: Sequence[str]
) -> str:
    """The whole report as Markdown; it links the figures in `figures/`, in each of the formats."""
    study = findings.study.facts
    progress = describe_progress(findings)
    blocks = [
        *([f"**{escape_markdown(progress)}**"] if progress else []),
        f"# {escape_markdown(study.name)}",
        f"Question: {escape_markdown(study.question)}",
        *([f"Expected: {escape_markdown(study.expected)}"] if study.expected else []),
        *_write_answer(findings),
        *_write_figures(figures, formats),
        *(block for section in sections for block in _write_section(section)),
        *_write_incomplete_runs(findings),
        *_write_provenance(findings),
    ]
    return "\n\n".join(blocks) + "\n"


def _write_answer(findings: Findings) -> Iterator[str]:
    if not findings.parts:
        return
    yield "## Answer"
    if findings.across:
        yield from _write_sentences(findings.across)
    for part in findings.parts:
        if part.title:
            yield f"### {escape_markdown(part.heading)}"
        yield from _write_sentences(part.sentences)


def _write_sentences(sentences: Sequence[str]) -> Iterator[str]:
    """The first sentence in bold, the others as a list."""
    head, *rest = map(escape_markdown, sentences)
    yield f"**{head}**"
    if rest:
        yield _write_list(rest)


def _write_list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _write_figures(figures: Sequence[FigureSpec], formats: Sequence[str]) -> Iterator[str]:
    if figures:
        yield "## Figures"
    for spec in figures:
        stem = f"figures/{spec.name}"
        links = ", ".join(f"[{ending.upper()}]({stem}.{ending})" for ending in formats)
        yield f"### {escape_markdown(spec.title)}"
        yield f"![{escape_markdown(spec.alt)}]({stem}.svg)"
        yield f"{escape_markdown(spec.caption)} ({links})"


def _write_section(section: ReportSection) -> Iterator[str]:
    yield f"## {escape_markdown(section.title)}"
    if isinstance(section.content, Unavailable):
        yield escape_markdown(section.content.reason)
        return
    yield section.content.to_markdown()
    yield escape_markdown(section.reading)
    if section.notes:
        yield _write_list(list(map(escape_markdown, section.notes)))


def _write_incomplete_runs(findings: Findings) -> Iterator[str]:
    """Status and reason of every run without an accuracy."""
    table = findings.table
    rows = table if table.empty else table[table["status"] != "done"]
    if rows.empty:
        return
    yield "## Runs without an accuracy"
    reasons = rows["reason"].fillna("") if "reason" in rows else [""] * len(rows)
    lines = [
        f"`{run}`: {status}{f' ({escape_markdown(str(reason))})' if reason else ''}"
        for run, status, reason in zip(rows["run_id"], rows["status"], reasons, strict=True)
    ]
    more = [f"and {len(lines) - _MAX_RUNS} more, all in `runs.csv`"] if len(lines) > _MAX_RUNS else []
    yield _write_list([*lines[:_MAX_RUNS], *more])


def _write_provenance(findings: Findings) -> Iterator[str]:
    yield "## Provenance"
    if facts := list_facts(findings):
        yield _write_list([f"{name}: {escape_markdown(value)}" for name, value in facts.items()])
    files = labels.join_words(f"`{name}`" for name in list_data_files(findings))
    yield (
        f"Everything here is computed from {files} in this folder. To redraw it, run `python -m study.report .` in this "
        "folder. `sweep.yaml` is the sweep as it was launched."
    )
