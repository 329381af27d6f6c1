"""Mistakes a user can mend, told on one screen: place, value, rule, valid choices, nearest match.

A `UserError` collects every `Problem` found, so that one reading of a sweep names all of its mistakes at once.
`exit_status` turns a command's main function into one that prints them without a traceback and ends with status 2.
Broken invariants are no user's mistake: they stay assertions and keep their traceback.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ParamSpec

P = ParamSpec("P")

SHOWN_PROBLEMS = 15  # one screen
SHOWN_CHOICES = 24


@dataclass(frozen=True)
class Problem:
    """One mistake: where it stands, what was written there, which rule it breaks, and what would be valid."""

    rule: str
    place: str = ""  # "sweeps/a.yaml:12", or the command-line word
    key: str = ""  # "train.lr"
    value: object = None
    choices: Sequence[str] = ()
    near: Sequence[str] = ()  # further choices: one of them is named only if it is the nearest

    @property
    def meant(self) -> str | None:
        """The choice that was most likely meant."""
        return nearest(str(self.value if self.value is not None else self.key), [*self.choices, *self.near])

    def at(self, place: str, key: str = "") -> Problem:
        """The same, told at this place and key where it has no place of its own."""
        return self if self.place else replace(self, place=place, key=key or self.key)

    def __str__(self) -> str:
        head = ": ".join(part for part in (self.place, self.key) if part)
        told = self.rule if self.value is None else f"{self.rule} (got {self.value!r})"
        lines = [f"{head}: {told}" if head else told]
        if self.meant:
            lines.append(f"    did you mean {self.meant!r}?")
        if self.choices:
            shown = ", ".join(self.choices[:SHOWN_CHOICES])
            more = len(self.choices) - SHOWN_CHOICES
            lines.append(f"    valid: {shown}" + (f", and {more} more" if more > 0 else ""))
        return "\n".join(lines)


class UserError(Exception):
    """What a command refuses to do, as a list of problems; raised only for what its user can mend."""

    def __init__(self, *problems: Problem | str):
        assert problems, "a UserError names at least one problem"
        self.problems = tuple(p if isinstance(p, Problem) else Problem(p) for p in problems)
        super().__init__("\n".join(map(str, self.problems)))

    def screen(self) -> str:
        """The problems as they are shown, cut to one screen."""
        shown = [str(problem) for problem in self.problems[:SHOWN_PROBLEMS]]
        more = len(self.problems) - SHOWN_PROBLEMS
        return "\n".join(shown + ([f"... and {more} more"] if more > 0 else []))


def in_file_order(problems: Iterable[Problem]) -> list[Problem]:
    """The problems as one meets them in a file, each once; those without a line come last."""

    def line(problem: Problem) -> float:
        number = problem.place.rpartition(":")[2]
        return int(number) if number.isdigit() else math.inf

    return sorted({str(problem): problem for problem in problems}.values(), key=line)


@contextlib.contextmanager
def told_at(place: str, key: str = "") -> Iterator[None]:
    """Problems raised inside that know no place of their own are told at this one."""
    try:
        yield
    except UserError as error:
        raise UserError(*(problem.at(place, key) for problem in error.problems)) from None


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The valid choice most like `word`, or None where none is alike; a dotted key is also sought by its last part."""
    choices = list(choices)
    stem = word.rpartition(".")[0]
    if stem and choices and all(choice.rpartition(".")[0] == stem for choice in choices):
        found = nearest(word.removeprefix(f"{stem}."), [choice.removeprefix(f"{stem}.") for choice in choices])
        return None if found is None else f"{stem}.{found}"  # a shared section makes no two options alike
    tails = {choice.rsplit(".", 1)[-1]: choice for choice in reversed(choices)}
    if word in tails and word not in choices:
        return tails[word]
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if close:
        return close[0]
    tail = difflib.get_close_matches(word.rsplit(".", 1)[-1], list(tails), n=1, cutoff=0.7)
    return tails[tail[0]] if tail else None


def exit_status(main: Callable[P, int]) -> Callable[P, int]:
    """A command's main that answers a user's mistake with its screen on stderr and exit status 2."""

    @functools.wraps(main)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except UserError as error:
            print(error.screen(), file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    return guarded
