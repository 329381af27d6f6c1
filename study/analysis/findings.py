"""Everything that a report shows, computed once from the study's tables; figures, Markdown and the page all read this.

Where a result is not available (too few seeds, empty cells, nothing measured), the reason takes its place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from study.analysis import labels
from study.analysis.answer import Answer, answer_question
from study.analysis.cell_grid import FloatArray, Level, read_cells
from study.analysis.compute_usage import summarize_compute
from study.analysis.cost_columns import add_cost
from study.analysis.cost_curves import average_over_costs, choose_budgets, fit_power_law, interpolate_at_budgets
from study.analysis.declared_contrasts import DeclaredContrasts
from study.analysis.expectations import check_expectations, describe_results
from study.analysis.factor_layout import (
    FactorLayout,
    RowGroup,
    arrange_factors,
    find_independent_factors,
    group_rows,
    list_levels,
)
from study.analysis.further_tests import estimate_further_contrasts
from study.analysis.group_sequential import find_look
from study.analysis.margin import Margin
from study.analysis.pareto_front import compute_cell_costs, find_pareto_front
from study.analysis.planned_contrasts import REFERENCES
from study.analysis.random_effects import combine_data_sets, describe_data_sets
from study.analysis.report_tables import StudyTables
from study.analysis.study_comparison import join_contrasts, summarize_studies
from study.analysis.study_results import StudyResults, Unavailable
from study.analysis.tuning_choices import read_choice_variances, summarize_choices
from study.config.sweep import CHANGE
from study.records.columns import name_column, spell_level

SPLITS = ("match_by", "study", "data_set", "data_name")
"""Factors that divide a report into parts, each answered on its own. Where every study has its own way of matching, the parts
are named after that. Data sets are blocks: their accuracies have different scales, so nothing is averaged over them."""

_HELD = {"match_by": "what is held equal", "data_set": "the data set", "data_name": "the data set"}


@dataclass(frozen=True, eq=False, kw_only=True)
class StudyPart(StudyResults):
    """The runs with one way of matching (and, in a comparison, of one sweep), with all results computed from them."""

    title: str  # "at equal parameters"; "" where the study has one part
    trials: pd.DataFrame  # of the tuned options of these runs; empty where nothing was tuned
    tuned: list[str]
    choices: pd.DataFrame | Unavailable  # what tuning selected in every cell, as from `summarize_choices`
    layout: FactorLayout
    expectations: list[dict[str, Any]]  # that can be checked, cells by column

    @property
    def baseline(self) -> float | None:
        """The accuracy (fraction) of a linear model on pixels, where the table has it and it is the same for all cells."""
        known = set(self.baselines)
        return float(known.pop()) if len(known) == 1 and not np.isnan(self.baselines).any() else None

    @property
    def ending(self) -> str:
        """The ending of the names of this part's files."""
        return "".join(f"-{word}" for word in self.title.replace(":", "").replace(",", "").split())

    @property
    def heading(self) -> str:
        """The title, capitalized."""
        return self.title[:1].upper() + self.title[1:]

    @cached_property
    def answer(self) -> Answer:
        """The answer to the sweep's question."""
        choices = self.choices if isinstance(self.choices, pd.DataFrame) else None
        found = answer_question(self, choices=choices)
        return replace(found, sentences=(*found.sentences, *describe_results(self.checked))) if self.is_checked else found

    @property
    def is_checked(self) -> bool:
        """Whether the expectations can be held against results."""
        return bool(self.expectations) and isinstance(self.contrasts, pd.DataFrame) and bool(self.cells["n"].sum())

    @cached_property
    def checked(self) -> pd.DataFrame:
        """What was expected beside what was found, as from `check_expectations`."""
        return check_expectations(self, self.expectations)

    @cached_property
    def on_further_tests(self) -> pd.DataFrame | Unavailable:
        """The primary contrasts on every further test, as from `estimate_further_contrasts`."""
        found = estimate_further_contrasts(self)
        return Unavailable("No run was evaluated on further tests.") if found.empty else found

    @property
    def sentences(self) -> list[str]:
        """The answer without the number of missing runs, which every report gives in its first line."""
        return [text for text in self.answer.sentences if not text.startswith("Provisional:")]

    def front(self, cost: str) -> pd.DataFrame | Unavailable:
        """The Pareto front of accuracy over a cost column; less is better in its own column `cost` (see `add_cost`)."""
        if cost not in self.table or not self.cells["n"].sum():
            return Unavailable(f"No run has both an accuracy and its {labels.format_option(cost)}.")
        found = find_pareto_front(self.grid, self._cell_costs(cost))
        return Unavailable(f"No cell's {labels.format_option(cost)} is known.") if found.empty else found

    def area(self, cost: str) -> pd.DataFrame | Unavailable:
        """Mean accuracy over log cost, for the curves along the layout's axis."""
        if len(self.levels[self.layout.along]) < 2 or cost not in self.table or not self.cells["n"].sum():
            return Unavailable("Curves of accuracy over cost need cells of different cost.")
        return average_over_costs(self.grid, self._cell_costs(cost), along=self.layout.along)

    def at_budget(self, cost: str) -> pd.DataFrame:
        """Accuracies at equal cost, for the curves along the layout's axis; empty where they have no common range."""
        costs, along = self._cell_costs(cost), self.layout.along
        budgets = choose_budgets(self.grid, costs, along=along)
        return interpolate_at_budgets(self.grid, costs, along=along, budgets=budgets)

    def power_law(self, cost: str) -> pd.DataFrame:
        """The scaling fit, for the curves along the layout's axis."""
        return fit_power_law(self.grid, self._cell_costs(cost), along=self.layout.along)

    def _cell_costs(self, cost: str) -> FloatArray:
        """The grid's cells' costs by a column, of which less is better (`cells`)."""
        return compute_cell_costs(add_cost(self.table, cost), self.grid, cost="cost")


def _find_choices(
    trials: pd.DataFrame, tuned: Sequence[str], factors: Sequence[str], *, correctness: pd.DataFrame
) -> pd.DataFrame | Unavailable:
    if not tuned:
        return Unavailable("No option was tuned: every cell is trained as given in the sweep.")
    known = trials["selected"].notna()
    if not known.any():
        ended = int((trials["status"] != "missing").sum())
        return Unavailable(f"Nothing is selected yet: {ended} of {len(trials)} trials are recorded.")
    return summarize_choices(trials[known], tuned, factors, correctness=correctness)


def _name_columns(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with their values as the columns and entries of the table."""
    return {name_column(key): spell_level(value) for key, value in options.items()}


@dataclass(frozen=True, eq=False)
class Findings:
    """A study's tables with its parts; one part where there is one way of matching."""

    study: StudyTables

    @property
    def table(self) -> pd.DataFrame:
        """The run table."""
        return self.study.table

    @cached_property
    def splits(self) -> list[str]:
        """The factors that divide the study into parts."""
        return find_independent_factors(self.table, [name for name in SPLITS if name in self.study.factors])

    @cached_property
    def parts(self) -> list[StudyPart]:
        """One part for each combination of the splits, sorted; none for an empty table."""
        if self.table.empty:
            return []
        factors = [name for name in self.study.factors if name not in SPLITS]
        return [self._build_part(group, factors) for group in group_rows(self.table, self.splits)]

    def _build_part(self, group: RowGroup, factors: list[str]) -> StudyPart:
        """The part with its factors in the order of the layout, each with its levels."""
        table, trials = self.table[group.rows].reset_index(drop=True), self.study.trials
        if len(trials):
            trials = trials[[key == group.levels for key in read_cells(trials, self.splits)]].reset_index(drop=True)
        layout = arrange_factors(table, factors)
        named = dict(zip(self.splits, group.levels, strict=True))
        study = [f"in {named['study']}"] if "study" in named else []
        data = [f"on {named[name]}" for name in ("data_set", "data_name") if name in named]
        tuned = [name for name in self.study.tuned if trials[name].notna().any()]
        choices = _find_choices(trials, tuned, layout.factors, correctness=self.study.correctness)
        variances = {} if isinstance(choices, Unavailable) else read_choice_variances(choices, layout.factors)
        return StudyPart(
            table=table,
            levels={name: self._order_levels(table, name) for name in layout.factors},
            declared=self._declare_contrasts(layout.factors),
            expectations=self._list_expectations(named),
            title=", ".join([*study, *data, *([labels.format_matching(named["match_by"])] if "match_by" in named else [])]),
            correctness=self.study.correctness,
            predictions=self.study.predictions,
            margin=Margin.from_facts(self.study.facts.effect_of_interest),
            look=find_look(self.study.facts, table),
            trials=trials,
            choice_variance=variances,
            tuned=tuned,
            choices=choices,
            layout=layout,
        )

    def _order_levels(self, table: pd.DataFrame, factor: str) -> list[Level]:
        """The levels of a factor as they are shown; changes in the order of the sweep."""
        found = list_levels(table, factor)
        if factor != CHANGE:
            return found
        written = self.study.written_levels(factor)
        return sorted(found, key=lambda level: written.index(level) if level in written else len(written))

    def _declare_contrasts(self, factors: Sequence[str]) -> DeclaredContrasts:
        """What the sweep states; words are else compared with the usual level, or the first that the sweep writes."""
        stated, first = self.study.facts.contrasts, {}
        for name in factors:
            if (written := self.study.written_levels(name)) and isinstance(written[0], str | bool):
                first[name] = written[0]
        return DeclaredContrasts(
            references={**first, **dict(REFERENCES), **_name_columns(stated.get("reference", {}))},
            own={name: [_name_columns(term) for term in terms] for name, terms in stated.get("own", {}).items()},
            primary=stated.get("primary"),
        )

    def _list_expectations(self, named: Mapping[str, Level]) -> list[dict[str, Any]]:
        """The expectations of the part with these levels of the splits."""
        found = []
        for entry in self.study.facts.expectations:
            cell = _name_columns(entry.get("cell", {}))
            if all(level == named[name] for name, level in cell.items() if name in named):
                found.append({**entry, "cell": {name: level for name, level in cell.items() if name not in named}})
        return found

    @cached_property
    def compared(self) -> pd.DataFrame | None:
        """The contrasts of all parts in one table; None where they have no common ones."""
        if len(self.parts) < 2 or len({tuple(part.varied) for part in self.parts}) > 1 or not self.count("done"):
            return None
        contrasts = {part.title: part.contrasts for part in self.parts}
        known = {title: found for title, found in contrasts.items() if isinstance(found, pd.DataFrame)}
        return join_contrasts(known) if len(known) > 1 else None

    @cached_property
    def over_data_sets(self) -> pd.DataFrame:
        """The primary contrasts over data sets, as from `combine_data_sets`; empty where these are few or not what differs."""
        of_data = self.compared is not None and self.splits in (["data_set"], ["data_name"])
        return combine_data_sets(self.compared) if of_data and self.compared is not None else pd.DataFrame()

    @cached_property
    def across(self) -> list[str]:
        """The answers of the parts in relation to each other, the main one first; none where there is one part."""
        if self.compared is None:
            return []
        held = _HELD.get(self.splits[0], "the study") if len(self.splits) == 1 else "the study"
        ranges = {part.title: part.ranges for part in self.parts}
        larger = {part.title: part.answer.larger for part in self.parts}
        found = [*summarize_studies(self.compared, ranges, larger, held=held), *describe_data_sets(self.over_data_sets)]
        if names := self.study.facts.contrasts.get("not_shared"):
            rule = "the sweeps don't state the same, so those that follow from the factors are compared"
            found.append(f"The contrasts of {labels.join_words(names)} are not used: {rule}.")
        return found

    @cached_property
    def spent(self) -> pd.DataFrame:
        """The compute that the study used, by backbone and device."""
        return summarize_compute(self.table, self.study.trials)

    def count(self, status: str) -> int:
        """The number of runs with the status."""
        return int((self.table["status"] == status).sum()) if len(self.table) else 0

    @property
    def unfinished(self) -> bool:
        """Whether a later launch can add runs."""
        return self.count("missing") + self.count("failed") > 0 or self.table.empty
