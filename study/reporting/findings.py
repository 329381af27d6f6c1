"""Everything that a report says, computed once from its material; figures, report and page all show this.

Where something can't be computed (too few seeds, empty cells, nothing measured) the reason stands in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from study.errors import UserError
from study.reporting import wording
from study.reporting.layout import Layout, groups, layout, levels
from study.reporting.sources import Material
from study.reporting.statistics.answer import Answer, answer
from study.reporting.statistics.cells import cells
from study.reporting.statistics.comparisons import contrasts
from study.reporting.statistics.contrasts import planned
from study.reporting.statistics.decomposition import decomposition
from study.reporting.statistics.grid import Level, read_grid

MATCH = "match_by"
"""A factor of its own kind: a study matched in several ways is answered once for each."""


@dataclass(frozen=True)
class Missing:
    """Something the report hasn't got, and why, as a sentence."""

    reason: str


@dataclass(frozen=True, eq=False)
class Part:
    """The runs that share one way of matching, with all that is computed of them."""

    title: str  # "matched on parameters"; "" where the study has one way only
    table: pd.DataFrame
    places: Layout
    levels: dict[str, list[Level]]
    baseline: float | None

    @cached_property
    def answer(self) -> Answer:
        if not any(len(values) > 1 for values in self.levels.values()):
            return single_cell(self.cells)
        return answer(self.table, self.levels, baseline=self.baseline)

    @property
    def sentences(self) -> list[str]:
        """The answer without the standing of the whole study, which every report gives in its first line."""
        return [text for text in self.answer.sentences if not text.startswith("Provisional:")]

    @cached_property
    def cells(self) -> pd.DataFrame:
        return cells(self.table, list(self.levels))

    @cached_property
    def contrasts(self) -> pd.DataFrame | Missing:
        plan = planned(self.levels, cells=read_grid(self.table, list(self.levels)).cells)
        if not plan:
            return Missing("The study varies nothing, so there is nothing to compare.")
        return contrasts(self.table, plan)

    @cached_property
    def decomposition(self) -> pd.DataFrame | Missing:
        varied = [name for name, values in self.levels.items() if len(values) > 1]
        if len(varied) < 2:
            return Missing("Shares of the variation need at least two factors.")
        return attempted(lambda: decomposition(self.table, varied))


@dataclass(frozen=True, eq=False)
class Findings:
    """The material with its parts; one part where there is one way of matching."""

    material: Material

    @property
    def table(self) -> pd.DataFrame:
        return self.material.table

    @cached_property
    def baseline(self) -> float | None:
        """The accuracy (fraction) of a linear model on pixels, where the table holds it."""
        known = pd.to_numeric(self.table.get("baseline_accuracy", pd.Series(dtype=float)), errors="coerce").dropna()
        return float(known.iloc[0]) if len(known) else None

    @cached_property
    def parts(self) -> list[Part]:
        """One part for each way of matching, in the sweep's order; none for an empty table."""
        if self.table.empty:
            return []
        factors = self.material.factors
        ways = [MATCH] if MATCH in factors and len(levels(self.table, MATCH)) > 1 else []
        return [
            self.part(matched(group.levels), self.table[group.rows].reset_index(drop=True), factors)
            for group in groups(self.table, ways)
        ]

    def part(self, title: str, table: pd.DataFrame, factors: list[str]) -> Part:
        """The part with its factors in the order of their places, each with its levels."""
        places = layout(table, [name for name in factors if not name.startswith("match_")])
        return Part(title, table, places, {name: levels(table, name) for name in places.factors}, self.baseline)

    def count(self, status: str) -> int:
        """How many runs ended, or didn't, with the status."""
        return int((self.table["status"] == status).sum()) if len(self.table) else 0

    @property
    def unfinished(self) -> bool:
        """Whether a later launch has something to add."""
        return self.count("missing") + self.count("failed") > 0 or self.table.empty


def matched(way: tuple[Level, ...]) -> str:
    """A way of matching in words; "" where there is only one."""
    if not way:
        return ""
    return "not matched: equal width and depth" if way[0] == "none" else f"matched on {wording.level(way[0])}"


def single_cell(found: pd.DataFrame) -> Answer:
    """What a study of one cell says: its accuracy, and that there was nothing to compare."""
    row = found.iloc[0]
    if not row["n"]:
        return Answer("no runs", (f"No answer: none of the {row['planned']} runs is done.",))
    limits = f", 95 % interval {wording.interval(row['low'], row['high'])}" if row["low"] == row["low"] else ""
    seeds = f"n = {row['n']} seed{'s' if row['n'] > 1 else ''}"
    told = f"Nothing is varied, so nothing is compared: test accuracy {wording.percent(row['mean'])} % ({seeds}{limits})."
    return Answer("answered", (told,))


def attempted(compute: Callable[[], pd.DataFrame]) -> pd.DataFrame | Missing:
    """The table, or the reason that the statistics give for not having it."""
    try:
        return compute()
    except UserError as error:
        problem = error.problems[0]
        return Missing(f"The study {problem.rule}.")
