"""python -m study.report SWEEP: draws reports/<sweep>/ from what is recorded so far, or again from its committed tables.

SWEEP is a sweep's YAML file (its runs are sought in runs/<sweep>), a folder of runs, or the folder of a report. From the
latter everything is redrawn from runs.csv, curves.parquet and study.json alone: same bytes, and no torch needed.
`--compare OTHER`, as often as wanted, writes reports/<sweep>-vs-<other>/, in which all stand side by side.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from study.analysis.report_tables import StudyTables, combine_studies, read_report_folder, read_run_folder, write_tables
from study.cli.arguments import add_sweep_arguments, command_parser, suggest_launch, sweep_folder
from study.cli.console import open_console
from study.config.sweep_file import read_sweep
from study.errors import Problem, UserError, handle_user_errors
from study.reporting.figures.style import LOOKS
from study.reporting.provenance import standing
from study.reporting.report_folder import Written, draw
from study.reporting.sections import cells_section
from study.reporting.text_tables import TextTable


def parser() -> argparse.ArgumentParser:
    parser = command_parser("report", __doc__)
    add_sweep_arguments(parser)
    parser.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="OTHER",
        help="another sweep, folder of runs or report to stand beside the first; may be given several times",
    )
    parser.add_argument("--out", default="reports", metavar="DIR", help="folder for reports/<sweep> (default: reports)")
    parser.add_argument(
        "--style", choices=tuple(LOOKS), default="paper", help="talk: the figures in slide size too, in figures-talk/"
    )
    return parser


@handle_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_intermixed_args(argv)
    show(draw(tables_folder(arguments), look=LOOKS[arguments.style]), open_console())
    return 0


def tables_folder(arguments: argparse.Namespace) -> Path:
    """The report's folder, its tables written anew unless SWEEP is that folder."""
    asked = Path(arguments.sweep)
    if (asked / "study.json").is_file() and not arguments.compare:
        return asked
    material = material_of(arguments.sweep, arguments)
    if arguments.compare:
        material = combine_studies([material, *(material_of(word, arguments) for word in arguments.compare)])
    folder = Path(arguments.out) / material.facts.name
    write_tables(material, folder)
    return folder


def material_of(word: str, arguments: argparse.Namespace) -> StudyTables:
    """What a sweep's file, a folder of runs or a folder of a report stands for."""
    asked = Path(word)
    if (asked / "study.json").is_file():
        return read_report_folder(asked)
    if any((asked / kind).is_dir() for kind in ("launches", "records")):
        return read_run_folder(asked)
    if asked.suffix in (".yaml", ".yml"):
        sweep = read_sweep(asked, arguments.overrides)
        with suggest_launch(sweep, runs=arguments.runs):
            return read_run_folder(sweep_folder(arguments, sweep.name).path)
    there = sorted(str(path) for place in ("sweeps/*.yaml", "runs/*", "reports/*") for path in Path().glob(place))
    raise UserError(Problem("neither a sweep's YAML file, nor a folder of runs or of a report", value=word, choices=there))


def show(written: Written, console: Console) -> None:
    """What the report says, in the terminal: table of cells, standing, answer, place."""
    for part in written.findings.parts:
        content = cells_section(part, part.ending).content
        console.print(terminal_table(content) if isinstance(content, TextTable) else content.reason)
    if first := standing(written.findings):
        console.print(first, style="bold", markup=False, highlight=False)
    for sentence in written.findings.across[:2]:
        console.print(sentence, markup=False, highlight=False)
    for part in written.findings.parts:
        head = f"{part.heading}: " if part.title else ""
        console.print(f"{head}{part.sentences[0]}", markup=False, highlight=False)
    place = written.folder / "report.md"
    console.print(f"{len(written.plates)} figures, {place}", markup=False, highlight=False)


def terminal_table(table: TextTable) -> Table:
    """A table of texts for the terminal."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for heading, numeric in zip(table.headings, table.numeric, strict=True):
        shown.add_column(heading, justify="right" if numeric else "left")
    for row in table.rows:
        shown.add_row(*row)
    return shown


if __name__ == "__main__":
    sys.exit(main())
