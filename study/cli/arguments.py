"""Arguments that the commands share: the sweep's file, its overrides, and the folder of its runs."""

import argparse
import contextlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from study.config.options import expand_path
from study.config.seeds import format_seeds
from study.config.sweep import Sweep
from study.config.yaml_source import parse_override
from study.errors import UserError
from study.records.plan_file import NotLaunched
from study.records.sweep_folder import SweepFolder
from study.version import VERSION

DEFAULT_RUNS = "runs"


def command_parser(name: str, doc: str | None) -> argparse.ArgumentParser:
    """The parser of `python -m study.NAME`, described by what follows the usage in the module's docstring, if there is one."""
    summary = (doc or "").split("\n\n")[0].partition(": ")[2].strip()
    parser = argparse.ArgumentParser(prog=f"python -m study.{name}", description=summary[:1].upper() + summary[1:])
    parser.add_argument("--version", action="version", version=f"patch or attention? {VERSION}")
    return parser


SWEEP_FILE = "a sweep's YAML file, e.g. sweeps/patch_size.yaml"


def sweep_parser(name: str, doc: str | None, *, sweep: str = SWEEP_FILE) -> argparse.ArgumentParser:
    """A command's parser with SWEEP (`sweep` says what it may be), overrides and --runs."""
    parser = command_parser(name, doc)
    parser.add_argument("sweep", metavar="SWEEP", help=sweep)
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="settings of the sweep, e.g. train.epochs=2 seeds=5 data.root=/scratch/images",
    )
    parser.add_argument(
        "--runs", type=parse_path, default=DEFAULT_RUNS, metavar="DIR", help="folder of all sweeps' runs (default: runs)"
    )
    return parser


def parse_path(word: str) -> str:
    """A path with `~` and `$NAME` expanded, which the shell does in `--runs ~/runs` but not in `--runs=~/runs`."""
    try:
        return str(expand_path(word))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{word!r}: {error}") from None


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """--json: what `study.cli.console.print_json` prints."""
    parser.add_argument("--json", action="store_true", help="print one JSON document for scripts; all else goes to stderr")


def positive_int(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is not a positive integer")
    return int(word)


def sweep_folder(arguments: argparse.Namespace, name: str) -> SweepFolder:
    return SweepFolder(Path(arguments.runs) / name)


def format_command(command: str, sweep: Sweep, overrides: Sequence[str], *, runs: str, more: Sequence[str] = ()) -> str:
    """A command for the shell, quoted where needed; long lists of seeds are written as ranges."""
    words = list(overrides)
    for number, word in enumerate(words):
        key, value = parse_override(word)
        if key in ("seeds", "tune.seeds") and isinstance(value, list):
            words[number] = f"{key}={format_seeds(value)}"
    place = [] if runs == DEFAULT_RUNS else ["--runs", runs]
    return shlex.join(["python", "-m", f"study.{command}", sweep.path, *words, *more, *place])


@contextlib.contextmanager
def suggest_launch(sweep: Sweep, *, runs: str) -> Iterator[None]:
    """Add the command to an error that says that nothing has been launched."""
    try:
        yield
    except NotLaunched as error:
        command = format_command("launch", sweep, sweep.overrides, runs=runs)
        raise UserError(*(replace(one, rule=f"{one.rule}; next: {command}") for one in error.problems)) from None


def parse_points(word: str) -> float:
    """Percentage points as a fraction."""
    with contextlib.suppress(ValueError):
        if 0 < float(word) < 100:
            return float(word) / 100
    raise argparse.ArgumentTypeError(f"{word!r} is not a number above 0 and below 100")


def parse_percent(word: str) -> float:
    """An accuracy in percent as a fraction; one written as a fraction would be taken for chance or less."""
    if (accuracy := parse_points(word)) < 0.01:
        raise argparse.ArgumentTypeError(f"{word!r} is below 1 percent: 0.98 is written 98")
    return accuracy
