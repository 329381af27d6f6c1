"""A run table as a grid of accuracies, cells by seeds: the one place that decides which runs are included.

A cell is one combination of the levels of the factors under study. Planned cells stay in the grid although none of their
runs finished. Only runs with status `done` have an accuracy. A diverged run is an outcome without an accuracy: it is excluded
from means and bounded by `Grid.fill_diverged`. Failed and missing runs are gaps that a later launch fills.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from study.errors import Problem, UserError
from study.records.correctness import unpack_correctness

Level = str | int | float | bool | None
CellLevels = tuple[Level, ...]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

TEST_ACCURACY = "test_accuracy"
_PER_RUN = ("run_id", "status", "reason", "seed", "launch", "task", "restart", "attempts", "train_seconds")


@dataclass(frozen=True, eq=False)
class Grid:
    """Values as `cells seeds`, NaN where nothing was measured; cells and seeds are sorted."""

    factors: tuple[str, ...]
    cells: tuple[CellLevels, ...]
    seeds: tuple[int, ...]
    values: FloatArray  # cells seeds; fractions
    status: npt.NDArray[np.str_]  # cells seeds; "" where no run was planned
    test_images: int | None
    chance: float  # accuracy of guessing, 1 / number of classes; 0 where the table does not give the number
    correct: BoolArray | None = None  # cells seeds images, of the test set that all runs share; False where a run isn't done
    lacks_correct: str = "no correctness per image was kept"  # why `correct` is None
    choice_variance: FloatArray | None = None  # cells; what tuning's choice adds to the variance of a cell's mean

    def levels(self, factor: str) -> tuple[Level, ...]:
        """The levels of `factor` that occur, sorted."""
        place = self.factors.index(factor)
        return tuple(sorted({cell[place] for cell in self.cells}, key=sort_key))

    def select(self, places: Sequence[int]) -> "Grid":
        """The grid of the cells at these indices, in the order given."""
        chosen = list(places)
        if chosen == list(range(len(self.values))):
            return self  # the correctness of a large study isn't copied
        cells = tuple(self.cells[place] for place in chosen)
        correct = None if self.correct is None else self.correct[chosen]
        choice = None if self.choice_variance is None else self.choice_variance[chosen]
        values, status = self.values[chosen], self.status[chosen]
        return replace(self, cells=cells, values=values, status=status, correct=correct, choice_variance=choice)

    @cached_property
    def joint_counts(self) -> npt.NDArray[np.float32]:
        """How many test images each two runs both classify correctly (`cells seeds cells seeds`); needs `correct`.

        All mean squares over seeds and images follow from these counts, which are exact: below 2^24. They grow with the square
        of the number of runs: where every run counts, `summed_joint_counts` suffice.
        """
        assert self.correct is not None
        runs = self.correct.reshape(self.values.size, -1)
        found = np.zeros((len(runs), len(runs)), dtype=np.float32)
        for start in range(0, runs.shape[1], 4096):  # not all images as floats at once
            part = runs[:, start : start + 4096].astype(np.float32)
            found += part @ part.T
        return found.reshape(*self.values.shape, *self.values.shape)

    @cached_property
    def summed_joint_counts(self) -> tuple[FloatArray, FloatArray]:
        """`joint_counts`, summed over all pairs of seeds, and over pairs of a seed with itself (`cells cells` each); exact."""
        assert self.correct is not None
        pairs, own = np.zeros((2, len(self.cells), len(self.cells)))
        for start in range(0, self.correct.shape[2], 4096):
            part = self.correct[:, :, start : start + 4096]
            total = part.sum(axis=1, dtype=np.float64)
            pairs += total @ total.T
            for seed in range(len(self.seeds)):
                runs = part[:, seed].astype(np.float32)
                own += runs @ runs.T
        return pairs, own

    def fill_diverged(self, case: Literal["worst", "best"]) -> FloatArray:
        """`values` with a defensible bound for each diverged run (`cells seeds`).

        Worst: chance, since a diverged network predicts nothing. Best: the best accuracy measured in the same cell, or in
        any cell where the same cell has none.
        """
        if case == "worst":
            bound = np.full(len(self.cells), self.chance)
        else:
            own = np.max(np.where(np.isnan(self.values), -np.inf, self.values), axis=1, initial=-np.inf)
            anywhere = np.max(own, initial=-np.inf)
            bound = np.where(np.isfinite(own), own, anywhere if np.isfinite(anywhere) else 1.0)
        return np.where(self.status == "diverged", bound[:, None], self.values)


def is_measured(values: FloatArray) -> BoolArray:
    """Where a run gave a value."""
    return np.asarray(~np.isnan(values))


def average_measured(values: FloatArray) -> FloatArray:
    """The mean of the measured values along the last axis (`... seeds` -> `...`); NaN where there is none."""
    known = is_measured(values)
    n = known.sum(axis=-1)
    return np.where(n > 0, np.where(known, values, 0.0).sum(axis=-1) / np.maximum(n, 1), np.nan)


def sort_key(level: Level) -> tuple[int, float, str]:
    """A sorting key for levels of one factor: numbers by size, then words, then None (an option that the cell lacks)."""
    if level is None:
        return (2, 0.0, "")
    if isinstance(level, str):
        return (1, 0.0, level)
    return (0, float(level), "")


def to_level(entry: object) -> Level:
    """A table's entry as a Python scalar; every kind of missing value becomes None."""
    value = entry.item() if isinstance(entry, np.generic) else entry
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)  # pandas reads a column of integers with a missing entry as floats
    assert isinstance(value, str | int | float | bool), f"not a level of a factor: {value!r}"
    return value


def read_numbers(table: pd.DataFrame, column: str) -> FloatArray:
    """A numeric column as floats (`rows`), NaN where an entry is missing and throughout where the table lacks the column.

    Tables have typed columns since they were read; this only turns pandas' nullable types into NumPy's.
    """
    if column not in table:
        return np.full(len(table), np.nan)
    return table[column].to_numpy(dtype=np.float64, na_value=np.nan)


def read_cells(table: pd.DataFrame, factors: Sequence[str]) -> list[CellLevels]:
    """The levels of the factors in each row."""
    columns = []
    for name in factors:
        codes, entries = pd.factorize(table[name], use_na_sentinel=False)
        levels = [to_level(entry) for entry in entries]
        columns.append([levels[code] for code in codes])
    return list(zip(*columns, strict=True)) if columns else [()] * len(table)


def select_done(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of completed runs."""
    return table[(table["status"] == "done").to_numpy(dtype=bool)]


def read_grid(
    table: pd.DataFrame, factors: Sequence[str], *, measure: str = TEST_ACCURACY, correctness: pd.DataFrame | None = None
) -> Grid:
    """The column `measure` of a run table as a grid of the factors' cells by seeds, with `correctness` per test image.

    Raises UserError where two runs have the same cell and seed, or a factor is not a column.
    """
    names = [str(name) for name in table.columns]
    lacking = [name for name in (*factors, "seed", "status", measure) if name not in names]
    if lacking:
        raise UserError(*(Problem("is not a column of the run table", key=name, choices=names) for name in lacking))
    keys = read_cells(table, factors)
    cells = tuple(sorted(set(keys), key=lambda cell: tuple(map(sort_key, cell))))
    seeds = tuple(sorted({int(seed) for seed in table["seed"]}))
    row_of, column_of = ({key: place for place, key in enumerate(found)} for found in (cells, seeds))
    rows = np.array([row_of[key] for key in keys], dtype=int)
    columns = np.array([column_of[int(seed)] for seed in table["seed"]], dtype=int)
    _check_single(table, rows * len(seeds) + columns, factors=factors)
    values = np.full((len(cells), len(seeds)), np.nan)
    status = np.full(values.shape, "", dtype="<U16")
    status[rows, columns] = table["status"].to_numpy(dtype=str)
    values[rows, columns] = np.where(status[rows, columns] == "done", read_numbers(table, measure), np.nan)
    classes = _read_count(table, "num_classes")
    chance = 1 / classes if classes else 0.0
    grid = Grid(tuple(factors), cells, seeds, values, status, _read_count(table, "test_images"), chance)
    found = _read_correct(table, correctness)
    if isinstance(found, str):
        return replace(grid, lacks_correct=found)
    done = (table["status"] == "done").to_numpy(dtype=bool)
    correct = np.zeros((*values.shape, found.shape[1]), dtype=bool)
    correct[rows[done], columns[done]] = found
    return replace(grid, correct=correct, lacks_correct="")


def _read_correct(table: pd.DataFrame, correctness: pd.DataFrame | None) -> BoolArray | str:
    """The correctness of the completed runs, `runs images`, or why they have none in common."""
    done = select_done(table)
    if correctness is None or not len(correctness) or not len(done):
        return "no correctness per image was kept"
    own = correctness[correctness["split"] == "test"].set_index("run_id")
    run_ids = list(done["run_id"])
    lacking = len(set(run_ids) - set(own.index))
    if lacking:
        return f"no correctness per image was kept of {lacking} of {len(run_ids)} runs"
    own = own.loc[run_ids]
    if own["images"].nunique() > 1 or ("data_digest" in done and done["data_digest"].nunique(dropna=False) > 1):
        return "the runs have different test images"
    return np.stack([unpack_correctness(*pair) for pair in zip(own["correct"], own["images"], strict=True)])


def _read_count(table: pd.DataFrame, column: str) -> int | None:
    """The smallest positive count in the column, or None where the table has none."""
    smallest = pd.Series(read_numbers(table, column)).min()
    return int(smallest) if smallest > 0 else None


def _check_single(table: pd.DataFrame, places: npt.NDArray[np.int_], *, factors: Sequence[str]) -> None:
    """UserError where two runs have the same cell and seed: averaging over an unnamed factor would count as more seeds."""
    repeated = pd.Series(places).duplicated(keep=False).to_numpy()
    if not repeated.any():
        return
    first = table[places == places[repeated][0]]
    options = [str(name) for name in first.columns if name not in _PER_RUN]
    raise UserError(
        Problem(
            "several runs have the same cell and seed; name the option in which they differ as a factor too",
            key=", ".join(factors),
            value=" and ".join(sorted(map(str, first["run_id"]))) if "run_id" in first else len(first),
            choices=[name for name in options if len(set(map(to_level, first[name]))) > 1],
        )
    )
