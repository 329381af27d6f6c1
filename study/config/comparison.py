"""What a sweep states about its comparison before the runs: contrasts, references, and expectations that can be checked.

No part of any run: the plan carries it to the report.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from study.config.options import Fraction, Options
from study.errors import Problem


class ContrastsSection(Options):
    """`contrasts`: what levels are compared with, own contrasts, and which ones are primary."""

    reference: dict[str, Any] = {}
    own: dict[str, list[dict[str, Any]]] = {}
    primary: list[str] | None = Field(None, min_length=1)  # None: the planned ones and all own


class ExpectedSign(Options):
    """An expectation of a contrast, by its name."""

    contrast: str
    sign: Literal["positive", "negative", "equivalent"]


class ExpectedAccuracy(Options):
    """An expectation of a cell's test accuracy (fractions), such as a published one; `cell` may be left out if there is one."""

    accuracy: Fraction = Field(gt=0, le=1)
    tolerance: Fraction = Field(gt=0, lt=1)
    cell: dict[str, Any] = {}


@dataclass(frozen=True)
class Comparison:
    """References by factor, own contrasts as terms of weight and levels, names of the primary ones, and expectations.

    `places` are those of `contrasts.reference.FACTOR`, `contrasts.own.NAME`, `contrasts.primary` and `expected.N`.
    """

    reference: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    primary: Sequence[str] | None = None
    expectations: Sequence[Mapping[str, Any]] = ()
    places: Mapping[str, str] = field(default_factory=dict)

    @property
    def contrasts(self) -> dict[str, Any]:
        """What the plan carries; empty where nothing is stated."""
        stated = {"reference": self.reference, "own": self.own, "primary": self.primary}
        return {name: value for name, value in stated.items() if value}

    @property
    def is_stated(self) -> bool:
        """Whether anything is, so that there is something to check."""
        return bool(self.contrasts or self.expectations)


def split_expected(expected: object) -> tuple[str, list[tuple[int, Mapping[str, Any]]]]:
    """The text of `expected`, and its entries that can be checked with their places in the list.

    Raises ValueError for anything but text, an entry, or a list of these.
    """
    entries: list[Any] = expected if isinstance(expected, list) else [expected]
    if not all(isinstance(entry, str | dict) for entry in entries):
        raise ValueError(
            "expected is text, an entry of `contrast` and `sign` or of `accuracy` and `tolerance`, or a list of these"
        )
    texts = [entry if isinstance(entry, str) else describe_expectation(entry) for entry in entries]
    return "; ".join(text for text in texts if text), [(n, each) for n, each in enumerate(entries) if isinstance(each, dict)]


def describe_expectation(entry: Mapping[str, Any]) -> str:
    """An expectation in words: "attention − depthwise conv: negative", "accuracy 92.5 % within 0.5 points at backbone vit"."""
    if "contrast" in entry:
        return f"{entry['contrast']}: {entry.get('sign')}"
    numbers = [entry.get(name) for name in ("accuracy", "tolerance")]
    accuracy, tolerance = (f"{100 * n:g}" if isinstance(n, int | float) else str(n).rstrip(" %") for n in numbers)
    cell = ", ".join(
        f"{key.rpartition('.')[2].replace('_', ' ')} {level}" for key, level in dict(entry.get("cell") or {}).items()
    )
    return f"accuracy {accuracy} % within {tolerance} points{f' at {cell}' if cell else ''}"


def read_expectation(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A valid entry with accuracies as fractions. Raises pydantic's ValidationError."""
    return choose_kind(entry).model_validate(entry).model_dump()


def choose_kind(entry: Mapping[str, Any]) -> type[ExpectedSign] | type[ExpectedAccuracy]:
    """Which of the two an entry is meant to be."""
    return ExpectedAccuracy if {"accuracy", "tolerance", "cell"} & set(entry) else ExpectedSign


def check_comparison(stated: Comparison, factors: Mapping[str, Sequence[Any]]) -> Iterator[Problem]:
    """References and contrasts of what is no factor or level, and weights that make no contrast."""
    for factor, level in stated.reference.items():
        yield from _check_level(
            factor, level, factors, key="contrasts.reference", place=stated.places.get(f"contrasts.reference.{factor}", "")
        )
    for name, terms in stated.own.items():
        key = f"contrasts.own.{name}"
        place = stated.places.get(key, "")
        weights = [term.get("weight") for term in terms]
        if any(isinstance(w, bool) or not isinstance(w, int | float) or not math.isfinite(w) or not w for w in weights):
            yield Problem("every term has a `weight`, a number other than 0", place, key)
        elif len(terms) < 2 or abs(sum(weights)) > 1e-9:  # type: ignore[arg-type]
            yield Problem("a contrast has two terms or more, with weights that sum to zero", place, key, weights)
        for term in terms:
            for factor, level in term.items():
                if factor != "weight":
                    yield from _check_level(factor, level, factors, key=key, place=place)
    for n, entry in enumerate(stated.expectations):
        for factor, level in dict(entry.get("cell") or {}).items():
            yield from _check_level(factor, level, factors, key="expected.cell", place=stated.places.get(f"expected.{n}", ""))


def _check_level(
    factor: str, level: object, factors: Mapping[str, Sequence[Any]], *, key: str, place: str
) -> Iterator[Problem]:
    if factor not in factors:
        yield Problem("no factor of this sweep", place, f"{key}.{factor}", choices=[f"{key}.{name}" for name in factors])
    elif level not in factors[factor]:
        yield Problem("no level of this factor", place, f"{key}.{factor}", level, choices=list(map(str, factors[factor])))
