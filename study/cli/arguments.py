"""What all commands share: the sweep's file, its overrides, and where its runs lie."""

from __future__ import annotations

import argparse
import contextlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from study import __version__
from study.config.sweep import Sweep
from study.config.sweep_file import read_sweep
from study.errors import UserError
from study.records.sweep_folder import SweepFolder
from study.records.table import NotLaunched

DEFAULT_RUNS = "runs"
LOG_WIDTH = 160  # columns of tables where no terminal says how wide it is


def open_console() -> Console:
    """Standard output: as wide as the terminal; in a log long lines stay whole."""
    console = Console()
    return console if console.is_terminal else Console(width=LOG_WIDTH, soft_wrap=True)


def command_parser(name: str, doc: str) -> argparse.ArgumentParser:
    """The parser of `python -m study.NAME`; the first paragraph of the command's own text says what it does."""
    prog = f"python -m study.{name}"
    parser = argparse.ArgumentParser(prog=prog, description=doc.split("\n\n")[0].removeprefix(prog).strip())
    parser.add_argument("--version", action="version", version=f"patch or attention? {__version__}")
    return parser


def counted(count: int, noun: str) -> str:
    """`1 seed`, `2,000 seeds`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def add_sweep_arguments(parser: argparse.ArgumentParser) -> None:
    """SWEEP, overrides and --runs, the same everywhere."""
    parser.add_argument("sweep", metavar="SWEEP", help="a sweep's YAML file, e.g. sweeps/patch_size.yaml")
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="settings of the sweep, e.g. train.epochs=2 seeds=[0,1] data.root=/scratch/images",
    )
    parser.add_argument("--runs", default=DEFAULT_RUNS, metavar="DIR", help="folder that holds runs/<sweep> (default: runs)")


def positive(word: str) -> int:
    """A whole number from 1 up, for argparse."""
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{word} is not a number from 1 up")
    return number


def read_asked(arguments: argparse.Namespace) -> Sweep:
    """The sweep that the arguments name, overrides applied."""
    return read_sweep(Path(arguments.sweep), arguments.overrides)


def sweep_folder(arguments: argparse.Namespace, name: str) -> SweepFolder:
    """Where the sweep's runs lie."""
    return SweepFolder(Path(arguments.runs) / name)


def typed(command: str, sweep: Sweep, overrides: Sequence[str], *, runs: str, more: Sequence[str] = ()) -> str:
    """A command as a shell takes it, for the line that says what to type next."""
    place = [] if runs == DEFAULT_RUNS else ["--runs", runs]
    return shlex.join(["python", "-m", f"study.{command}", sweep.path, *overrides, *more, *place])


@contextlib.contextmanager
def launched(sweep: Sweep, *, runs: str) -> Iterator[None]:
    """Where nothing has been launched, the command that does it is told."""
    try:
        yield
    except NotLaunched as error:
        following = typed("launch", sweep, sweep.overrides, runs=runs)
        raise UserError(*(replace(one, rule=f"{one.rule}; next: {following}") for one in error.problems)) from None


def cost_cache(arguments: argparse.Namespace) -> Path:
    """Where it is remembered which architectures' costs were verified; shared by all sweeps."""
    return Path(arguments.runs) / ".costs"
