"""Which runs a command is about: by the values of their columns, as the run table names them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from study.errors import Problem, UserError
from study.records.columns import planned_columns
from study.records.plan_file import PlannedEntry


@dataclass(frozen=True)
class RunFilter:
    """Which planned runs a launch is about; all of them by default."""

    where: Mapping[str, str]
    limit: int | None = None
    retry: frozenset[Literal["failed"]] = frozenset()

    @property
    def is_partial(self) -> bool:
        """Whether the launch leaves runs out by request."""
        return bool(self.where) or self.limit is not None


def match_runs(planned: Iterable[PlannedEntry], where: Mapping[str, str]) -> set[str]:
    """The ids of the planned runs whose columns have the given values, compared as text.

    Raises UserError if there is no such column, or no run with such a value.
    """
    if not where:
        return {entry.run_id for entry in planned}
    columns = {entry.run_id: planned_columns(entry) for entry in planned}
    known = sorted({name for row in columns.values() for name in row})
    place = "command line, --where"
    problems = [Problem("no column of this name", place, key, choices=known) for key in where if key not in known]
    for key, value in where.items():
        levels = sorted({str(row[key]) for row in columns.values() if key in row})
        if key in known and value not in levels:
            problems.append(Problem("no planned run has this value", place, key, value, levels))
    if problems:
        raise UserError(*problems)
    return {run_id for run_id, row in columns.items() if all(str(row.get(key)) == value for key, value in where.items())}


def parse_where(words: Sequence[str]) -> dict[str, str]:
    """Parse `--where backbone=vit`. Raises UserError for words of another form and repeated columns."""
    parts = [word.partition("=") for word in words]
    problems = [Problem("expected COLUMN=VALUE", "command line", "--where", "".join(p)) for p in parts if not p[1]]
    for key, count in Counter(key for key, _, _ in parts).items():
        if count > 1:
            problems.append(Problem("a column can be given only once", "command line, --where", key))
    if problems:
        raise UserError(*problems)
    return {key: value for key, _, value in parts}
