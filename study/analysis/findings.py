"""Everything that a report says, computed once from its material; figures, report and page all show this.

Where something can't be computed (too few seeds, empty cells, nothing measured) the reason stands in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from study.analysis import labels
from study.analysis.answer import Answer, answer_question
from study.analysis.cell_grid import CellLevels, Level, read_grid
from study.analysis.cell_means import summarize_cells
from study.analysis.contrast_results import estimate_contrasts
from study.analysis.cost_columns import add_cost
from study.analysis.cost_curves import average_over_costs, choose_budgets, fit_power_law, interpolate_at_budgets
from study.analysis.factor_layout import (
    FactorLayout,
    RowGroup,
    arrange_factors,
    find_independent_factors,
    group_rows,
    list_levels,
    read_cells,
)
from study.analysis.pareto_front import find_pareto_front
from study.analysis.planned_contrasts import plan_contrasts
from study.analysis.protocol_check import check_protocol, summarize_compute
from study.analysis.report_tables import StudyTables
from study.analysis.study_comparison import compare_studies, summarize_studies
from study.analysis.tuning_choices import summarize_choices
from study.analysis.variance_shares import decompose_variance
from study.errors import UserError

SPLITS = ("match_by", "study")
"""Factors of their own kind: what is compared within each of their levels is answered once for each. Where each study has a
way of matching of its own, it is known by that."""


@dataclass(frozen=True)
class Unavailable:
    """Something the report hasn't got, and why, as a sentence."""

    reason: str


@dataclass(frozen=True, eq=False)
class StudyPart:
    """The runs that share one way of matching (and, in a comparison, one sweep), with all that is computed of them."""

    title: str  # "at equal parameters"; "" where the study has one way only
    table: pd.DataFrame
    trials: pd.DataFrame  # what chose the tuned options of these runs; empty where nothing was tuned
    tuned: list[str]
    layout: FactorLayout
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
        return answer_question(self.table, self.levels, baseline=self.baseline)

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
        return summarize_cells(self.table, list(self.levels))

    @cached_property
    def contrasts(self) -> pd.DataFrame | Unavailable:
        """The planned contrasts."""
        plan = plan_contrasts(self.levels, cells=read_grid(self.table, list(self.levels)).cells)
        if not plan:
            return Unavailable("No two cells differ in one factor alone, so there is nothing to compare.")
        return estimate_contrasts(self.table, plan)

    @cached_property
    def decomposition(self) -> pd.DataFrame | Unavailable:
        """The shares of variation."""
        if len(self.varied) < 2:
            return Unavailable("Shares of the variation need at least two factors.")
        return _try_compute(lambda: decompose_variance(self.table, self.varied))

    @cached_property
    def fairness(self) -> pd.DataFrame:
        """What was equal, what varied, who deviates."""
        return check_protocol(self.table, list(self.levels))

    @cached_property
    def choices(self) -> pd.DataFrame | Unavailable:
        """What tuning chose in every cell, from which candidates."""
        known = self.trials["selected"].notna() if self.tuned else pd.Series(dtype=bool)
        if not self.tuned:
            return Unavailable("No option was tuned: every cell is trained as the sweep says.")
        if not known.any():
            ended = int((self.trials["status"] != "missing").sum())
            return Unavailable(f"Nothing is chosen yet: {ended} of {len(self.trials)} trials are recorded.")
        return summarize_choices(self.trials[known], self.tuned, list(self.levels))

    def front(self, cost: str) -> pd.DataFrame | Unavailable:
        """The Pareto front of accuracy over a cost; its column `cost` holds the price, of which less is better."""
        if cost not in self.table or not self.cells["n"].sum():
            return Unavailable(f"No run has both an accuracy and its {labels.format_option(cost)}.")
        found = find_pareto_front(add_cost(self.table, cost), list(self.levels), cost="price")
        return Unavailable(f"No cell's {labels.format_option(cost)} is known.") if found.empty else found

    def area(self, cost: str) -> pd.DataFrame | Unavailable:
        """Mean accuracy over log cost, for the curves along the layout's axis; costs are prices, of which less is better."""
        if len(self.levels[self.layout.along]) < 2 or cost not in self.table or not self.cells["n"].sum():
            return Unavailable("Curves of accuracy over cost need cells of different cost.")
        table = add_cost(self.table, cost)
        return _try_compute(lambda: average_over_costs(table, list(self.levels), along=self.layout.along, cost="price"))

    def at_budget(self, cost: str) -> pd.DataFrame:
        """Accuracies at equal cost, for the curves along the layout's axis; empty where they have no common range."""
        table, along = add_cost(self.table, cost), self.layout.along
        budgets = choose_budgets(table, list(self.levels), along=along, cost="price")
        return interpolate_at_budgets(table, list(self.levels), along=along, cost="price", budgets=budgets)

    def power_law(self, cost: str) -> pd.DataFrame | Unavailable:
        """The scaling fit, for the curves along the layout's axis."""
        if len(self.levels[self.layout.along]) < 4 or cost not in self.table or not self.cells["n"].sum():
            return Unavailable("A scaling fit needs at least four sizes.")
        table = add_cost(self.table, cost)
        return _try_compute(lambda: fit_power_law(table, list(self.levels), along=self.layout.along, cost="price"))


@dataclass(frozen=True, eq=False)
class Findings:
    """The material with its parts; one part where there is one way of matching."""

    study: StudyTables

    @property
    def table(self) -> pd.DataFrame:
        """The run table."""
        return self.study.table

    @cached_property
    def splits(self) -> list[str]:
        """The factors that divide the material into parts."""
        return find_independent_factors(self.table, [name for name in SPLITS if name in self.study.factors])

    @cached_property
    def parts(self) -> list[StudyPart]:
        """One part for each combination of the splits, sorted; none for an empty table."""
        if self.table.empty:
            return []
        factors = [name for name in self.study.factors if name not in SPLITS]
        return [self.part(group, factors) for group in group_rows(self.table, self.splits)]

    def part(self, group: RowGroup, factors: list[str]) -> StudyPart:
        """The part with its factors in the order of their places, each with its levels."""
        table, trials = self.table[group.rows].reset_index(drop=True), self.study.trials
        own = trials[[key == group.levels for key in read_cells(trials, self.splits)]] if len(trials) else trials
        tuned = [name for name in self.study.tuned if own[name].notna().any()]
        places = arrange_factors(table, factors)
        title = part_title(self.splits, group.levels)
        return StudyPart(
            title, table, own.reset_index(drop=True), tuned, places, {name: list_levels(table, name) for name in places.factors}
        )

    @cached_property
    def compared(self) -> pd.DataFrame | None:
        """The contrasts of all parts under each other; None where they have no common ones."""
        factors = {tuple(part.varied) for part in self.parts}
        if len(self.parts) < 2 or len(factors) > 1 or not self.count("done"):
            return None
        return compare_studies({part.title: part.table for part in self.parts}, list(factors.pop()))

    @cached_property
    def across(self) -> list[str]:
        """The answers of the parts in relation to each other, the main one first; none where there is one part."""
        if self.compared is None:
            return []
        held = "what is held equal" if self.splits == ["match_by"] else "the study"
        return summarize_studies(self.compared, {part.title: part.answer.factor_comparison for part in self.parts}, held=held)

    @cached_property
    def spent(self) -> pd.DataFrame:
        """What the study cost, by backbone and device."""
        return summarize_compute(self.table, self.study.trials)

    def count(self, status: str) -> int:
        """How many runs ended, or didn't, with the status."""
        return int((self.table["status"] == status).sum()) if len(self.table) else 0

    @property
    def unfinished(self) -> bool:
        """Whether a later launch has something to add."""
        return self.count("missing") + self.count("failed") > 0 or self.table.empty


def part_title(splits: list[str], own: CellLevels) -> str:
    """A part in words; "" where there is only one."""
    told = dict(zip(splits, own, strict=True))
    studies = [f"in {told['study']}"] if "study" in told else []
    return ", ".join([*studies, *([labels.format_matching(told["match_by"])] if "match_by" in told else [])])


def _try_compute(compute: Callable[[], pd.DataFrame]) -> pd.DataFrame | Unavailable:
    """The table, or the reason that the statistics give for not having it."""
    try:
        return compute()
    except UserError as error:
        problem = error.problems[0]
        return Unavailable(f"The study {problem.rule}.")
