"""Errors of a user, reported on one screen: place, value, rule, valid choices, nearest match.

A `UserError` collects every `Problem` that was found, so that a user corrects them together. `handle_user_errors` makes a
command print them without a traceback and end with status 2; what the system refuses (a full disk, a missing permission) is
printed in the same way and ends with status 1. A broken invariant is an assertion and keeps its traceback.
"""

import contextlib
import difflib
import functools
import io
import math
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ParamSpec, Self

P = ParamSpec("P")

SAFE = (
    "Whatever was recorded before is safe: files are written whole or not at all. When the cause is removed, type the same "
    "command again; it goes on from there."
)
MAX_PROBLEMS = 15  # one screen
MAX_LINES, MAX_LENGTH = 38, 2000
MAX_CHOICES = 24


@dataclass(frozen=True)
class Problem:
    """One mistake: its place and key, the value given, the rule that it breaks, and what would be valid."""

    rule: str
    place: str = ""  # "sweeps/a.yaml:12", or the command-line word
    key: str = ""  # "train.lr"
    value: object = None
    choices: Sequence[str] = ()
    candidates: Sequence[str] = ()  # further choices: not listed, but suggested if nearest

    @property
    def suggestion(self) -> str | None:
        """The choice that was most likely meant."""
        return nearest(str(self.value if self.value is not None else self.key), [*self.choices, *self.candidates])

    def at(self, place: str, key: str = "") -> Self:
        """The same problem at this place and key, unless it has a place of its own."""
        return self if self.place else replace(self, place=place, key=key or self.key)

    def __str__(self) -> str:
        message = self.rule if self.value is None else f"{self.rule} (got {shorten(repr(self.value))})"
        lines = [": ".join(part for part in (self.place, shorten(self.key.replace("\n", r"\n")), message) if part)]
        if self.suggestion:
            lines.append(f"    did you mean {shorten(repr(self.suggestion))}?")
        if self.choices:
            lines.append("    valid: " + ", ".join(and_more(self.choices, MAX_CHOICES)))
        return "\n".join(lines)


class UserError(Exception):
    """A command's refusal, as a list of problems; raised only for what its user can correct."""

    def __init__(self, *problems: Problem | str):
        assert problems, "a UserError names at least one problem"
        self.problems = tuple(p if isinstance(p, Problem) else Problem(p) for p in problems)
        super().__init__("\n".join(map(str, self.problems)))

    def summary(self) -> str:
        """The problems, cut to one screen."""
        shown = and_more(list(map(str, self.problems)), MAX_PROBLEMS)
        lines = [line[:MAX_LENGTH] for line in "\n".join(shown).split("\n")]
        return "\n".join([*lines[:MAX_LINES], *(["..."] if len(lines) > MAX_LINES else [])])


def shorten(text: str) -> str:
    """The text, cut to 200 characters in its middle."""
    return text if len(text) <= 200 else f"{text[:150]} ... {text[-45:]}"


def and_more(items: Sequence[str], shown: int) -> list[str]:
    """The first items, and "and 3 more" for the others."""
    rest = len(items) - shown
    return [*items[:shown], *([f"and {rest:,} more"] if rest > 0 else [])]


def sort_by_line(problems: Iterable[Problem]) -> list[Problem]:
    """Distinct problems in the order of their lines; those without a line come last."""
    lines = {str(problem): (problem.place.rpartition(":")[2], problem) for problem in problems}
    ordered = sorted(lines.values(), key=lambda entry: int(entry[0]) if entry[0].isdigit() else math.inf)
    return [problem for _, problem in ordered]


@contextlib.contextmanager
def add_location(place: str, key: str = "") -> Iterator[None]:
    """Give problems raised inside this place and key, unless they have a place of their own."""
    try:
        yield
    except UserError as error:
        raise UserError(*(problem.at(place, key) for problem in error.problems)) from None


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice most similar to `word`, or None; a dotted key is also compared by its last part."""
    choices = list(choices)
    section = word.rpartition(".")[0]
    if section and choices and all(choice.rpartition(".")[0] == section for choice in choices):
        found = nearest(word.removeprefix(f"{section}."), [choice.removeprefix(f"{section}.") for choice in choices])
        return None if found is None else f"{section}.{found}"  # sharing a section makes no two options similar
    last_parts = {choice.rsplit(".", 1)[-1]: choice for choice in reversed(choices)}
    if word in last_parts and word not in choices:
        return last_parts[word]
    if similar := difflib.get_close_matches(word, choices, n=1, cutoff=0.6):
        return similar[0]
    last_part = difflib.get_close_matches(word.rsplit(".", 1)[-1], list(last_parts), n=1, cutoff=0.7)
    return last_parts[last_part[0]] if last_part else None


def escape_controls(text: str) -> str:
    """The text with all but printable characters, line breaks and tabs escaped: terminals obey control characters."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode() for char in text)


@functools.cache
def notify(notice: str) -> None:
    """Print a notice on stderr, but only once in a process: several steps of a command may read the same file."""
    print(escape_controls(notice), file=sys.stderr)


def describe_refusal(error: OSError) -> str:
    """What the system refused, in one line: `cannot write runs/a/plans/1.json: No space left on device`."""
    operation = next(iter(getattr(error, "__notes__", ())), "open" if error.filename else "use")
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):  # of a folder's copy: (from, to, why) for each file
        return f"cannot {operation} {error.filename}: {error.args[0][0][-1]}"[:600]
    reason = error.strerror or (str(error).splitlines() or [type(error).__name__])[0]
    return f"cannot {operation} {error.filename or 'a file or stream'}: {reason[:300]}"


def handle_user_errors(main: Callable[P, int]) -> Callable[P, int]:
    """Decorate a command's main function: a UserError is printed on stderr and ends with status 2, an OSError with status 1.

    Of an OSError one screen is shown: the file, the operation, the reason, what is safe and what to do.
    """

    @functools.wraps(main)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> int:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a character is no reason to end
                stream.reconfigure(errors="backslashreplace")
        importing = signal.getsignal(signal.SIGINT)
        try:
            if importing == signal.SIG_DFL:  # set by the package while it was imported
                signal.signal(signal.SIGINT, signal.default_int_handler)
            return _report_errors(main, *args, **kwargs)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        finally:
            if importing == signal.SIG_DFL:
                signal.signal(signal.SIGINT, importing)

    return guarded


def _report_errors(main: Callable[P, int], *args: P.args, **kwargs: P.kwargs) -> int:
    try:
        status = main(*args, **kwargs)
        sys.stdout.flush()
        return status
    except UserError as error:
        print(escape_controls(error.summary()), file=sys.stderr)
        return 2
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # the reader of the output, such as head, has enough
            print(escape_controls(f"{describe_refusal(error)}\n{SAFE}"), file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:  # Python would try again when it exits
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
