"""Everything that a report says, computed once from its material; figures, report and page all show this.

Where something can't be computed (too few seeds, empty cells, nothing measured) the reason stands in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from study.analysis import labels
from study.analysis.across_budgets import across, side_by_side
from study.analysis.answer import Answer, answer
from study.analysis.cell_grid import Cell, Level, read_grid
from study.analysis.cell_means import cells
from study.analysis.comparisons import contrasts
from study.analysis.contrasts import planned
from study.analysis.cost_columns import with_price
from study.analysis.decomposition import decomposition
from study.analysis.fairness import compute_spent, fairness
from study.analysis.figure_axes import Group, Layout, groups, independent, keys, layout, levels
from study.analysis.frontier import front
from study.analysis.inputs import Material
from study.analysis.scaling import area, at_budget, common_budgets, power_law
from study.analysis.tuning_choices import chosen
from study.errors import UserError

SPLITS = ("match_by", "study")
"""Factors of their own kind: what is compared within each of their levels is answered once for each. Where each study has a
way of matching of its own, it is known by that."""


@dataclass(frozen=True)
class Missing:
    """Something the report hasn't got, and why, as a sentence."""

    reason: str


@dataclass(frozen=True, eq=False)
class Part:
    """The runs that share one way of matching (and, in a comparison, one sweep), with all that is computed of them."""

    title: str  # "at equal parameters"; "" where the study has one way only
    table: pd.DataFrame
    trials: pd.DataFrame  # what chose the tuned options of these runs; empty where nothing was tuned
    tuned: list[str]
    places: Layout
    levels: dict[str, list[Level]]

    @property
    def baseline(self) -> float | None:
        """The accuracy (fraction) of a linear model on pixels, where the table holds it."""
        known = pd.to_numeric(self.table.get("baseline_accuracy", pd.Series(dtype=float)), errors="coerce").dropna()
        return float(known.iloc[0]) if len(known) else None

    @property
    def ending(self) -> str:
        """What file names of this part end in."""
        return "".join(f"-{word}" for word in self.title.replace(":", "").replace(",", "").split())

    @property
    def varied(self) -> list[str]:
        """The factors with more than one level."""
        return [name for name, values in self.levels.items() if len(values) > 1]

    @cached_property
    def answer(self) -> Answer:
        """The answer to the sweep's question."""
        return answer(self.table, self.levels, baseline=self.baseline)

    @property
    def heading(self) -> str:
        """The title as it begins a line."""
        return self.title[:1].upper() + self.title[1:]

    @property
    def sentences(self) -> list[str]:
        """The answer without the standing of the whole study, which every report gives in its first line."""
        return [text for text in self.answer.sentences if not text.startswith("Provisional:")]

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Accuracy of every cell."""
        return cells(self.table, list(self.levels))

    @cached_property
    def contrasts(self) -> pd.DataFrame | Missing:
        """The planned contrasts."""
        plan = planned(self.levels, cells=read_grid(self.table, list(self.levels)).cells)
        if not plan:
            return Missing("No two cells differ in one factor alone, so there is nothing to compare.")
        return contrasts(self.table, plan)

    @cached_property
    def decomposition(self) -> pd.DataFrame | Missing:
        """The shares of variation."""
        if len(self.varied) < 2:
            return Missing("Shares of the variation need at least two factors.")
        return attempted(lambda: decomposition(self.table, self.varied))

    @cached_property
    def fairness(self) -> pd.DataFrame:
        """What was equal, what varied, who deviates."""
        return fairness(self.table, list(self.levels))

    @cached_property
    def choices(self) -> pd.DataFrame | Missing:
        """What tuning chose in every cell, from which candidates."""
        known = self.trials["selected"].notna() if self.tuned else pd.Series(dtype=bool)
        if not self.tuned:
            return Missing("No option was tuned: every cell is trained as the sweep says.")
        if not known.any():
            ended = int((self.trials["status"] != "missing").sum())
            return Missing(f"Nothing is chosen yet: {ended} of {len(self.trials)} trials are recorded.")
        return chosen(self.trials[known], self.tuned, list(self.levels))

    def front(self, cost: str) -> pd.DataFrame | Missing:
        """The Pareto front of accuracy over a cost; its column `cost` holds the price, of which less is better."""
        if cost not in self.table or not self.cells["n"].sum():
            return Missing(f"No run has both an accuracy and its {labels.option(cost)}.")
        found = front(with_price(self.table, cost), list(self.levels), cost="price")
        return Missing(f"No cell's {labels.option(cost)} is known.") if found.empty else found

    def area(self, cost: str) -> pd.DataFrame | Missing:
        """Mean accuracy over log cost, for the curves along the layout's axis; costs are prices, of which less is better."""
        if len(self.levels[self.places.along]) < 2 or cost not in self.table or not self.cells["n"].sum():
            return Missing("Curves of accuracy over cost need cells of different cost.")
        table = with_price(self.table, cost)
        return attempted(lambda: area(table, list(self.levels), along=self.places.along, cost="price"))

    def at_budget(self, cost: str) -> pd.DataFrame:
        """Accuracies at equal cost, for the curves along the layout's axis; empty where they have no common range."""
        table, along = with_price(self.table, cost), self.places.along
        budgets = common_budgets(table, list(self.levels), along=along, cost="price")
        return at_budget(table, list(self.levels), along=along, cost="price", budgets=budgets)

    def power_law(self, cost: str) -> pd.DataFrame | Missing:
        """The scaling fit, for the curves along the layout's axis."""
        if len(self.levels[self.places.along]) < 4 or cost not in self.table or not self.cells["n"].sum():
            return Missing("A scaling fit needs at least four sizes.")
        table = with_price(self.table, cost)
        return attempted(lambda: power_law(table, list(self.levels), along=self.places.along, cost="price"))


@dataclass(frozen=True, eq=False)
class Findings:
    """The material with its parts; one part where there is one way of matching."""

    material: Material

    @property
    def table(self) -> pd.DataFrame:
        """The run table."""
        return self.material.table

    @cached_property
    def splits(self) -> list[str]:
        """The factors that divide the material into parts."""
        return independent(self.table, [name for name in SPLITS if name in self.material.factors])

    @cached_property
    def parts(self) -> list[Part]:
        """One part for each combination of the splits, sorted; none for an empty table."""
        if self.table.empty:
            return []
        factors = [name for name in self.material.factors if name not in SPLITS]
        return [self.part(group, factors) for group in groups(self.table, self.splits)]

    def part(self, group: Group, factors: list[str]) -> Part:
        """The part with its factors in the order of their places, each with its levels."""
        table, trials = self.table[group.rows].reset_index(drop=True), self.material.trials
        own = trials[[key == group.levels for key in keys(trials, self.splits)]] if len(trials) else trials
        tuned = [name for name in self.material.tuned if own[name].notna().any()]
        places = layout(table, factors)
        title = part_title(self.splits, group.levels)
        return Part(
            title, table, own.reset_index(drop=True), tuned, places, {name: levels(table, name) for name in places.factors}
        )

    @cached_property
    def compared(self) -> pd.DataFrame | None:
        """The contrasts of all parts under each other; None where they have no common ones."""
        factors = {tuple(part.varied) for part in self.parts}
        if len(self.parts) < 2 or len(factors) > 1 or not self.count("done"):
            return None
        return side_by_side({part.title: part.table for part in self.parts}, list(factors.pop()))

    @cached_property
    def across(self) -> list[str]:
        """The answers of the parts in relation to each other, the main one first; none where there is one part."""
        if self.compared is None:
            return []
        held = "what is held equal" if self.splits == ["match_by"] else "the study"
        return across(self.compared, {part.title: part.answer.weighing for part in self.parts}, held=held)

    @cached_property
    def spent(self) -> pd.DataFrame:
        """What the study cost, by backbone and device."""
        return compute_spent(self.table, self.material.trials)

    def count(self, status: str) -> int:
        """How many runs ended, or didn't, with the status."""
        return int((self.table["status"] == status).sum()) if len(self.table) else 0

    @property
    def unfinished(self) -> bool:
        """Whether a later launch has something to add."""
        return self.count("missing") + self.count("failed") > 0 or self.table.empty


def part_title(splits: list[str], own: Cell) -> str:
    """A part in words; "" where there is only one."""
    told = dict(zip(splits, own, strict=True))
    studies = [f"in {told['study']}"] if "study" in told else []
    return ", ".join([*studies, *([labels.held_equal(told["match_by"])] if "match_by" in told else [])])


def attempted(compute: Callable[[], pd.DataFrame]) -> pd.DataFrame | Missing:
    """The table, or the reason that the statistics give for not having it."""
    try:
        return compute()
    except UserError as error:
        problem = error.problems[0]
        return Missing(f"The study {problem.rule}.")
