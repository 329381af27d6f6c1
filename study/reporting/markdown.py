"""report.md: the answer first, then the figures and tables that it rests on, then where they come from.

The first line of an unfinished study says how many of how many runs it shows. Texts of users are escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from study.analysis.findings import Findings, Unavailable
from study.reporting.figures.figure_spec import Plate
from study.reporting.provenance import facts, standing, troubled
from study.reporting.section import Section
from study.reporting.sections import all_sections
from study.reporting.text_tables import markdown_text

SHOWN_RUNS = 50


def document(findings: Findings, plates: Sequence[Plate]) -> str:
    """The whole report as Markdown; figures are linked in `figures/`."""
    study = findings.study.facts
    first = standing(findings)
    blocks = [
        *([f"**{markdown_text(first)}**"] if first else []),
        f"# {markdown_text(study.name)}",
        f"Question: {markdown_text(study.question)}",
        *([f"Expected: {markdown_text(study.expected)}"] if study.expected else []),
        *answer_blocks(findings),
        *figure_blocks(plates),
        *(block for section in all_sections(findings) for block in section_blocks(section)),
        *run_blocks(findings.table),
        *provenance_blocks(findings),
    ]
    return "\n\n".join(blocks) + "\n"


def answer_blocks(findings: Findings) -> Iterator[str]:
    """The answer of each part as a list of sentences; how the parts' answers relate comes first."""
    if not findings.parts:
        return
    yield "## Answer"
    if findings.across:
        yield from headed(findings.across)
    for part in findings.parts:
        if part.title:
            yield f"### {markdown_text(part.heading)}"
        yield from headed(part.sentences)


def headed(sentences: Sequence[str]) -> Iterator[str]:
    """The first sentence in bold, the others as a list."""
    head, *rest = sentences
    yield f"**{markdown_text(head)}**"
    if rest:
        yield "\n".join(f"- {markdown_text(sentence)}" for sentence in rest)


def figure_blocks(plates: Sequence[Plate]) -> Iterator[str]:
    """Every figure with its caption and its files."""
    if plates:
        yield "## Figures"
    for plate in plates:
        stem = f"figures/{plate.name}"
        yield f"### {markdown_text(plate.title)}"
        yield f"![{markdown_text(plate.alt)}]({stem}.svg)"
        yield f"{markdown_text(plate.caption)} ([SVG]({stem}.svg), [PNG]({stem}.png), [PDF]({stem}.pdf))"


def section_blocks(section: Section) -> Iterator[str]:
    """One table with its heading and how to read it."""
    yield f"## {markdown_text(section.title)}"
    if isinstance(section.content, Unavailable):
        yield markdown_text(section.content.reason)
        return
    yield section.content.markdown()
    yield markdown_text(section.reading)
    if section.notes:
        yield "\n".join(f"- {markdown_text(text)}" for text in section.notes)


def run_blocks(table: pd.DataFrame) -> Iterator[str]:
    """Every run without an accuracy, with the reason."""
    rows = troubled(table)
    if not rows:
        return
    yield "## Runs without an accuracy"
    lines = [f"- `{run}`: {status}{f' ({markdown_text(reason)})' if reason else ''}" for run, status, reason in rows]
    more = [f"- and {len(lines) - SHOWN_RUNS} more, all in `runs.csv`"] if len(lines) > SHOWN_RUNS else []
    yield "\n".join([*lines[:SHOWN_RUNS], *more])


def provenance_blocks(findings: Findings) -> Iterator[str]:
    """Where the figures come from and how to draw them again."""
    yield "## Provenance"
    lines = [f"- {fact.name}: {markdown_text(fact.value)}" for fact in facts(findings)]
    if lines:
        yield "\n".join(lines)
    name = findings.study.facts.name
    yield (
        f"Everything here is drawn from `runs.csv`, {'`trials.csv`, ' if len(findings.study.trials) else ''}"
        "`curves.parquet` and `study.json` in this folder: "
        f"`python -m study.report reports/{name}` draws it again. `sweep.yaml` is the sweep as it was launched."
    )
