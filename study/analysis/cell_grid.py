"""A run table as a grid of cells by seeds: the one place where it is decided which runs count.

A cell is one combination of the factors under study, as planned: it stays in the grid although none of its runs
finished. Only runs whose status is `done` are measured. A diverged run is an outcome without an accuracy: it is left
out of the means and bounded by `filled`. Failed and missing runs are holes, which a later launch fills.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from study.errors import Problem, UserError

Level = str | int | float | bool | None
CellLevels = tuple[Level, ...]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

TEST_ACCURACY = "test_accuracy"
_PER_RUN = ("run_id", "status", "reason", "seed", "launch", "task", "restart", "attempts", "train_seconds")


@dataclass(frozen=True, eq=False)
class Grid:
    """Accuracies laid out as `cells seeds`, NaN where nothing was measured, both in sorted order."""

    factors: tuple[str, ...]
    cells: tuple[CellLevels, ...]
    seeds: tuple[int, ...]
    values: FloatArray  # cells seeds; fractions
    status: npt.NDArray[np.str_]  # cells seeds; "" where no run was planned
    test_images: int | None
    chance: float  # accuracy of guessing, 1 / number of classes; 0 where the table doesn't tell

    def levels(self, factor: str) -> tuple[Level, ...]:
        """The levels of `factor` that occur, sorted."""
        place = self.factors.index(factor)
        return tuple(sorted({cell[place] for cell in self.cells}, key=sort_key))

    def select(self, places: Sequence[int]) -> Grid:
        """The grid of some cells alone, in the order given."""
        cells = tuple(self.cells[place] for place in places)
        return replace(self, cells=cells, values=self.values[list(places)], status=self.status[list(places)])

    def fill_diverged(self, case: Literal["worst", "best"]) -> FloatArray:
        """`values` in which each diverged run has the worst or best accuracy that it could defensibly have had.

        Worst: chance, since a network that has diverged knows nothing. Best: the best accuracy measured in its own
        cell, or in any where its own has none: the run would have trained as well as any of its kind.
        """
        if case == "worst":
            guess = np.full(len(self.cells), self.chance)
        else:
            own = np.max(np.where(np.isnan(self.values), -np.inf, self.values), axis=1, initial=-np.inf)
            anywhere = np.max(own, initial=-np.inf)
            guess = np.where(np.isfinite(own), own, anywhere if np.isfinite(anywhere) else 1.0)
        return np.where(self.status == "diverged", guess[:, None], self.values)


def is_measured(values: FloatArray) -> BoolArray:
    """Where a run gave an accuracy."""
    return np.asarray(~np.isnan(values))


def sort_key(level: Level) -> tuple[int, float, str]:
    """A sorting key for levels of one factor: numbers by size, then words, then "has no such option"."""
    if level is None:
        return (2, 0.0, "")
    if isinstance(level, str):
        return (1, 0.0, level)
    return (0, float(level), "")


def to_level(level: object) -> Level:
    """A table's entry as a Python scalar; every kind of missing becomes None."""
    value = level.item() if isinstance(level, np.generic) else level
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)  # a column of whole numbers with a hole is read as floats
    assert isinstance(value, str | int | float | bool), f"no level of a factor: {value!r}"
    return value


def read_grid(table: pd.DataFrame, factors: Sequence[str], *, measure: str = TEST_ACCURACY) -> Grid:
    """The table as a grid; a UserError where two runs share cell and seed, or a factor is no column."""
    _check_columns(table, [*factors, "seed", "status", measure])
    keys = [tuple(to_level(entry) for entry in row) for row in table[list(factors)].to_numpy(dtype=object)]
    cells = tuple(sorted(set(keys), key=lambda cell: tuple(map(sort_key, cell))))
    seeds = tuple(sorted({int(seed) for seed in table["seed"]}))
    row_of, column_of = ({key: place for place, key in enumerate(found)} for found in (cells, seeds))
    rows = np.array([row_of[key] for key in keys], dtype=int)
    columns = np.array([column_of[int(seed)] for seed in table["seed"]], dtype=int)
    _check_single(table, rows * len(seeds) + columns, factors=factors)
    accuracy = pd.to_numeric(table[measure], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    done = (table["status"] == "done").to_numpy(dtype=bool)
    values = np.full((len(cells), len(seeds)), np.nan)
    status = np.full(values.shape, "", dtype="<U16")
    values[rows, columns] = np.where(done, accuracy, np.nan)
    status[rows, columns] = table["status"].to_numpy(dtype=str)
    classes = read_count(table, "num_classes")
    chance = 1 / classes if classes else 0.0
    return Grid(tuple(factors), cells, seeds, values, status, read_count(table, "test_images"), chance)


def collect_levels(table: pd.DataFrame, factors: Sequence[str]) -> dict[str, tuple[Level, ...]]:
    """The levels of each factor that the table holds, sorted: for a table without its sweep beside it."""
    _check_columns(table, factors)
    return {factor: tuple(sorted({to_level(entry) for entry in table[factor]}, key=sort_key)) for factor in factors}


def merge_partial_options(table: pd.DataFrame, factors: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """The table and factors with each option that only some levels have made part of the factor that decides this.

    `kernel_size` 3, 7 beside `token_mixer` attention, depthwise_conv becomes `token_mixer` "attention", "depthwise_conv
    (kernel size 3)", "depthwise_conv (kernel size 7)", so that the combinations can be complete. An option of which no other
    factor decides who has it stays as it is.
    """
    kept = list(factors)
    for name in factors:
        own = [to_level(entry) for entry in table[name]]
        lacking = {place for place, entry in enumerate(own) if entry is None}
        hosts = [other for other in kept if other != name and determines(table[other], lacking)]
        if not lacking or len(lacking) == len(own) or not hosts:
            continue
        host = [to_level(entry) for entry in table[hosts[0]]]
        told = [h if o is None else f"{h} ({name.replace('_', ' ')} {o})" for h, o in zip(host, own, strict=True)]
        table = table.assign(**{hosts[0]: pd.Series(told, index=table.index, dtype=object)})
        kept.remove(name)
    return table, kept


def determines(column: pd.Series, lacking: set[int]) -> bool:
    """Whether each level of the column lies within the rows `lacking`, or outside them."""
    sides: dict[Level, bool] = {}
    return all(sides.setdefault(to_level(entry), place in lacking) == (place in lacking) for place, entry in enumerate(column))


def read_count(table: pd.DataFrame, column: str) -> int | None:
    """The smallest positive count in the column, or None where the table doesn't hold one."""
    if column not in table:
        return None
    counts = pd.to_numeric(table[column], errors="coerce").dropna()
    return int(counts.min()) if len(counts) and counts.min() > 0 else None


def _check_columns(table: pd.DataFrame, columns: Sequence[str]) -> None:
    """A UserError that names every column the table lacks."""
    known_names = [str(name) for name in table.columns]
    lacking = [name for name in columns if name not in known_names]
    if lacking:
        raise UserError(*(Problem("is no column of the run table", key=name, choices=known_names) for name in lacking))


def _check_single(table: pd.DataFrame, places: npt.NDArray[np.int_], *, factors: Sequence[str]) -> None:
    """A UserError where two runs share a cell and a seed: averaging over an unnamed axis would pass for seeds."""
    repeated = pd.Series(places).duplicated(keep=False).to_numpy()
    if not repeated.any():
        return
    first = table[places == places[repeated][0]]
    options = [str(name) for name in first.columns if name not in _PER_RUN]
    differ = [name for name in options if len({_comparable(entry) for entry in first[name]}) > 1]
    raise UserError(
        Problem(
            "several runs share one cell and seed; name the axis in which they differ as a factor too",
            key=", ".join(factors),
            value=" and ".join(sorted(map(str, first["run_id"]))) if "run_id" in first else len(first),
            choices=differ,
        )
    )


def _comparable(entry: object) -> str:
    """An entry as text for comparison, one text for every kind of missing."""
    return repr(entry.item() if isinstance(entry, np.generic) else entry).replace("<NA>", "nan")


def count_runs(grid: Grid) -> Mapping[str, npt.NDArray[np.int_]]:
    """Runs of each cell by status, as `cells` arrays: planned, done, diverged, failed, missing."""
    by_status = {name: (grid.status == name).sum(axis=1) for name in ("done", "diverged", "failed", "missing")}
    return {"planned": (grid.status != "").sum(axis=1), **by_status}
