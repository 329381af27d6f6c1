"""Which runs a command is about: by the values of their columns, as the table names them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from study.errors import Problem, UserError
from study.records.columns import planned_columns

if TYPE_CHECKING:
    from study.planning.planned_run import PlannedRun


@dataclass(frozen=True)
class Selection:
    """Which of the planned runs a launch is about; everything by default."""

    where: Mapping[str, str]
    limit: int | None = None
    retry: frozenset[Literal["failed"]] = frozenset()

    def of(self, runs: Iterable[PlannedRun]) -> set[str]:
        """The ids of the runs that are like this; UserError where none can be."""
        return selected((planned.to_json() for planned in runs), self.where)


def selected(planned: Iterable[Mapping[str, Any]], where: Mapping[str, str]) -> set[str]:
    """The ids of planned runs whose columns have the wanted values, compared as text."""
    if not where:
        return {document["run_id"] for document in planned}
    columns = {document["run_id"]: planned_columns(document) for document in planned}
    known = sorted({name for row in columns.values() for name in row})
    problems = [
        Problem("no column of this name", "command line, --where", key, choices=known) for key in where if key not in known
    ]
    for key, value in where.items():
        levels = sorted({str(row[key]) for row in columns.values() if key in row})
        if key in known and value not in levels:
            problems.append(Problem("no planned run has this value", "command line, --where", key, value, levels))
    if problems:
        raise UserError(*problems)
    return {run_id for run_id, row in columns.items() if all(str(row.get(key)) == value for key, value in where.items())}


def pairs(words: Sequence[str]) -> dict[str, str]:
    """`--where backbone=vit` as a mapping."""
    parted = [word.partition("=") for word in words]
    wrong = [Problem("written COLUMN=VALUE", "command line", "--where", "".join(p)) for p in parted if not p[1]]
    named = Counter(key for key, _, _ in parted)
    wrong += [
        Problem("given twice, and no run has two values", "command line, --where", key)
        for key, times in named.items()
        if times > 1
    ]
    if wrong:
        raise UserError(*wrong)
    return {key: value for key, _, value in parted}
