"""python -m study.report SWEEP: draw the report of what is recorded so far, or redraw a report from its own tables.

SWEEP is a sweep's YAML file, a folder of runs, or a report: its folder, or the archive that `study.archive` made of it. The
report of a sweep is written to runs/<sweep>/report; `--out reports/<sweep>` writes it to a folder to be committed instead. A
report's folder is redrawn in place, from its tables alone: same bytes, and no torch needed. That of an archive is drawn in a
new folder beside it. `--compare OTHER`, which may be repeated, puts several sweeps side by side in one report, in
runs/<sweep>/report-vs-<other>.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from study.analysis.report_files import read_report_folder, write_tables
from study.analysis.report_tables import StudyTables, combine_studies, read_run_folder
from study.cli.arguments import add_json_option, parse_path, suggest_launch, sweep_folder, sweep_parser
from study.cli.console import open_console, pluralize, print_json
from study.config.sweep_file import read_sweep
from study.errors import Problem, UserError, handle_user_errors
from study.reporting.figures.figure_files import FIGURE_FORMATS
from study.reporting.figures.style import STYLES
from study.reporting.provenance import describe_progress
from study.reporting.report_archive import read_archive, unpack_tables
from study.reporting.report_folder import DrawnReport, draw_report
from study.reporting.result_files import load_report
from study.reporting.sections import build_cells
from study.reporting.text_tables import TextTable


def _parse_formats(word: str) -> tuple[str, ...]:
    formats = tuple(word.split(","))
    for name in formats:
        if name not in FIGURE_FORMATS:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(FIGURE_FORMATS)}")
    return formats


def parser() -> argparse.ArgumentParser:
    parser = sweep_parser("report", __doc__, sweep="a sweep's YAML file, a folder of runs, or a report (folder or zip)")
    parser.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="OTHER",
        help="another sweep, folder of runs or report to put side by side with the first; may be repeated",
    )
    parser.add_argument("--out", type=parse_path, metavar="DIR", help="folder of the report (default: runs/<sweep>/report)")
    parser.add_argument(
        "--style", choices=tuple(STYLES), default="paper", help="talk: the figures in slide size as well, in figures-talk/"
    )
    parser.add_argument(
        "--formats",
        type=_parse_formats,
        default=tuple(FIGURE_FORMATS),
        metavar="LIST",
        help=f"formats of the figures, separated by commas (default: {','.join(FIGURE_FORMATS)}); SVG is always written",
    )
    add_json_option(parser)
    return parser


@handle_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_intermixed_args(argv)
    drawn = write_report(arguments, open_console(for_json=arguments.json))
    if arguments.json:
        answer = load_report(drawn.folder).answer.model_dump(mode="json")
        print_json("report", {"folder": str(drawn.folder), "figures": [spec.name for spec in drawn.figures], "answer": answer})
    return 0


def write_report(arguments: argparse.Namespace, console: Console) -> DrawnReport:
    """Draw the report that the arguments name, and print its summary. Raises UserError."""
    if sys.flags.optimize > 1:
        raise UserError("python -OO removes docstrings, which Altair needs to draw the page: report with python -O, or python")
    drawn = draw_report(_prepare_folder(arguments), style=STYLES[arguments.style], formats=arguments.formats)
    _print_summary(drawn, console)
    return drawn


def _prepare_folder(arguments: argparse.Namespace) -> Path:
    """The report's folder, with its tables written anew unless SWEEP is that folder."""
    tables, folder = _read_study(arguments.sweep, arguments)
    if arguments.compare:
        others = [_read_study(word, arguments)[0] for word in arguments.compare]
        folder = folder.resolve() if folder.name in ("", "..") else folder
        folder = folder.with_name("-vs-".join([folder.name, *(other.facts.name for other in others)]))
        tables = combine_studies([tables, *others])
    if arguments.out:
        folder = Path(arguments.out)
    elif folder.exists() and _is_archive(Path(arguments.sweep)):
        raise UserError(Problem("exists already: name another folder", "command line", "--out", str(folder)))
    if _is_archive(Path(arguments.sweep)) and not arguments.compare:
        unpack_tables(Path(arguments.sweep), folder)
    elif folder != Path(arguments.sweep):
        write_tables(tables, folder)
    return folder


def _is_archive(path: Path) -> bool:
    return path.suffix == ".zip" and path.is_file()


def _read_study(word: str, arguments: argparse.Namespace) -> tuple[StudyTables, Path]:
    """The tables of a sweep's file, a folder of runs or a folder of a report, and where its report is by default."""
    path = Path(word)
    if (path / "study.json").is_file():
        return read_report_folder(path), path
    if _is_archive(path):
        return read_archive(path), path.with_suffix("")
    if any((path / kind).is_dir() for kind in ("launches", "records")):
        return read_run_folder(path), path / "report"
    if path.suffix in (".yaml", ".yml"):
        sweep = read_sweep(path, arguments.overrides, with_plugins=False)
        runs = sweep_folder(arguments, sweep.name).path
        with suggest_launch(sweep, runs=arguments.runs):
            return read_run_folder(runs), runs / "report"
    choices = sorted(str(path) for place in ("sweeps/*.yaml", "runs/[!.]*", "reports/*") for path in Path().glob(place))
    raise UserError(Problem("neither a sweep's YAML file, nor a folder of runs or of a report", value=word, choices=choices))


def _print_summary(report: DrawnReport, console: Console) -> None:
    lines = [describe_progress(report.findings), *report.findings.across[:2]]
    for part in report.findings.parts:
        content = build_cells(part).content
        console.print(_format_table(content) if isinstance(content, TextTable) else content.reason)
        lines.append(f"{part.heading}: {part.sentences[0]}" if part.title else part.sentences[0])
    lines.append(f"{pluralize(len(report.figures), 'figure')}, {report.folder / 'report.md'}")
    for line in filter(None, lines):
        console.print(line, style="bold" if line.startswith("Provisional:") else None)


def _format_table(table: TextTable) -> Table:
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for heading, numeric in zip(table.frame.columns, table.numeric, strict=True):
        shown.add_column(heading, justify="right" if numeric else "left")
    for row in table.frame.itertuples(index=False, name=None):
        shown.add_row(*row)
    return shown


if __name__ == "__main__":
    sys.exit(main())
