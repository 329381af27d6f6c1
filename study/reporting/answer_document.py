"""answer.json: a report's answer as data, with its estimates, intervals and verdicts, and on what they rest.

Accuracies and their differences are fractions; what could not be estimated is null. `ANSWER_VERSION` grows when a key
changes its meaning or goes; new keys may come without.
"""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, JsonValue

from study.analysis.budget_balance import describe_balance
from study.analysis.cell_grid import Level, read_numbers, to_level
from study.analysis.factor_ranges import Bounds
from study.analysis.findings import Findings, StudyPart
from study.analysis.intervals import CONFIDENCE, ZERO
from study.analysis.labels import format_percent
from study.reporting.provenance import describe_progress, list_facts

ANSWER_VERSION = 1
STATUSES = ("done", "diverged", "failed", "missing")

Number = float | None


class _Part(BaseModel):
    """A part of the document; keys that a later version adds are kept out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Interval(_Part):
    """An estimate with the limits that hold for all of its family at once, at the document's `confidence`."""

    value: Number
    low: Number
    high: Number


class PrimaryContrast(_Part):
    """A planned difference of cell means, adjusted together with the other primary ones.

    `upper` minus `lower`, `where` ("averaged over ..."); `margin`: the smallest effect of interest; `n`: seeds with which all
    of its cells were measured; `images`: test images that the interval generalizes from, null where it speaks of these alone.
    """

    contrast: str
    subject: str
    upper: str
    lower: str
    where: str
    control: bool
    difference: Interval
    p_adjusted: Number
    margin: Number
    n: int
    images: int | None
    verdict: str
    note: str


class RangeOfFactor(_Part):
    """The mean of a factor's best level minus that of its worst, averaged over the others, without controls."""

    factor: str
    levels: tuple[Level, ...]
    best: Level
    worst: Level
    range: Interval
    n: int


class RangeDifference(_Part):
    """The range of the first factor minus that of the second; `holds` with any one level left out and in log-odds."""

    factors: tuple[str, str]
    difference: Interval
    holds: bool


class Budget(_Part):
    """What widths were solved for; `unequal` says what that leaves unequal."""

    match_by: tuple[str, ...]
    targets: tuple[int | float, ...]
    largest_deviation: Number  # relative
    unequal: tuple[str, ...]


class PartialAnswer(_Part):
    """The answer for the runs with one way of matching and, in a comparison, of one sweep; `title` is "" if there is one.

    `state`: answered, provisional, too few seeds, too few cells, undertrained, no runs. `larger`: the factor that matters
    more than another, where that may be claimed. `baseline`: accuracy of a linear model on pixels.
    """

    title: str
    state: str
    sentences: tuple[str, ...]
    population: str
    factors: dict[str, tuple[Level, ...]]
    seeds: int
    test_images: int | None
    baseline: Number
    effect_of_interest: str
    larger: str | None
    budget: Budget
    contrasts: tuple[PrimaryContrast, ...]
    ranges: tuple[RangeOfFactor, ...]
    range_differences: tuple[RangeDifference, ...]


class AnswerDocument(_Part):
    """The whole answer of a report. `tables` has, by file of results, the type of every column (pandas' names)."""

    version: int
    study: str
    question: str
    expected: str
    confidence: float
    progress: str  # of an unfinished study, else ""
    runs: dict[str, int]  # by status
    across: tuple[str, ...]  # the parts in relation to each other
    parts: tuple[PartialAnswer, ...]
    provenance: dict[str, str]
    tables: dict[str, dict[str, str]]

    def summary(self) -> str:
        """The answer as text: question, sentences, and each part's primary contrasts in percentage points."""
        lines = [f"{self.study}: {self.question}", *([self.progress] if self.progress else []), *self.across]
        for part in self.parts:
            lines += ["", *([part.title] if part.title else []), *part.sentences]
            if part.contrasts:
                lines += ["", _tabulate(part.contrasts, confidence=self.confidence)]
        return "\n".join(lines)


def _tabulate(contrasts: tuple[PrimaryContrast, ...], *, confidence: float) -> str:
    def format_limit(value: Number) -> str:
        return format_percent(value, digits=2, signed=True)

    rows = [
        (each.contrast, *map(format_limit, (each.difference.value, each.difference.low, each.difference.high)), each.n)
        for each in contrasts
    ]
    low, high = (f"{100 * edge:g} %" for edge in ((1 - confidence) / 2, (1 + confidence) / 2))
    table = pd.DataFrame(rows, columns=["primary contrast (points)", "difference", low, high, "n"])
    return table.assign(verdict=[each.verdict for each in contrasts]).to_string(index=False)


def describe_answer(findings: Findings, *, tables: Mapping[str, Mapping[str, str]]) -> AnswerDocument:
    """The document of a study; `tables` has the types of the columns of its other results."""
    facts = findings.study.facts
    return AnswerDocument(
        version=ANSWER_VERSION,
        study=facts.name,
        question=facts.question,
        expected=facts.expected,
        confidence=CONFIDENCE,
        progress=describe_progress(findings),
        runs={"planned": len(findings.table), **{status: findings.count(status) for status in STATUSES}},
        across=tuple(findings.across),
        parts=tuple(map(_describe_part, findings.parts)),
        provenance=list_facts(findings),
        tables={file: dict(types) for file, types in tables.items()},
    )


def _describe_part(part: StudyPart) -> PartialAnswer:
    contrasts = part.contrasts
    primary = contrasts[contrasts["primary"]].to_dict("records") if isinstance(contrasts, pd.DataFrame) else []
    return PartialAnswer(
        title=part.title,
        state=part.answer.state,
        sentences=tuple(part.sentences),
        population=part.population,
        factors={name: tuple(levels) for name, levels in part.levels.items()},
        seeds=len(part.grid.seeds),
        test_images=part.grid.test_images,
        baseline=round_number(part.baseline),
        effect_of_interest=str(part.margin),
        larger=part.answer.larger,
        budget=_describe_budget(part),
        contrasts=tuple(map(_describe_contrast, primary)),
        ranges=tuple(
            RangeOfFactor(
                factor=own.factor,
                levels=own.levels,
                best=own.best,
                worst=own.worst,
                range=_write_bounds(own.bounds),
                n=design.n,
            )
            for design in part.ranges
            for own in design.ranges
        ),
        range_differences=tuple(
            RangeDifference(factors=own.factors, difference=_write_bounds(own.difference), holds=not own.reversals)
            for design in part.ranges
            if (own := design.comparison)
        ),
    )


def _describe_budget(part: StudyPart) -> Budget:
    def list_values(name: str) -> list[Any]:
        return sorted({to_level(value) for value in part.table[name].dropna()}) if name in part.table else []

    deviations = np.abs(read_numbers(part.table, "match_residual"))
    return Budget(
        match_by=tuple(map(str, list_values("match_by"))),
        targets=tuple(list_values("match_target")),
        largest_deviation=None if np.isnan(deviations).all() else round_number(np.nanmax(deviations)),
        unequal=tuple(describe_balance(part.table, list(part.levels))),
    )


def _describe_contrast(row: Mapping[Hashable, Any]) -> PrimaryContrast:
    texts: dict[str, JsonValue] = {name: str(row[name]) for name in ("contrast", "subject", "upper", "lower", "where", "note")}
    return PrimaryContrast(
        **texts,
        control=bool(row["control"]),
        difference=Interval(**{key: round_number(row[name]) for key, name in zip(_LIMITS, _COLUMNS, strict=True)}),
        p_adjusted=round_number(row["p_adjusted"]),
        margin=round_number(row["margin"]),
        n=int(row["n"]),
        images=None if pd.isna(row["images"]) else int(row["images"]),
        verdict=str(row["verdict"]),
    )


_LIMITS, _COLUMNS = ("value", "low", "high"), ("difference", "low", "high")


def _write_bounds(bounds: Bounds) -> Interval:
    return Interval(**{name: round_number(getattr(bounds, name)) for name in _LIMITS})


def round_number(value: float | None) -> float | None:
    """Six digits, which every machine computes alike; None for a missing number, 0 for a rounding error."""
    if value is None or pd.isna(value) or not np.isfinite(value):
        return None
    return 0.0 if abs(value) < ZERO else float(f"{value:.6g}")
