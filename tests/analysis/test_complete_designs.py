"""The largest complete part of a design: by hand, by its laws on random holes, and ties."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from study.analysis.complete_designs import Levels, largest_complete_designs


def find_largest(runs: np.ndarray, *, common_seeds: int = 1) -> list[tuple[Levels, ...]]:
    """The designs where each cell has the first of five seeds, so many as `runs` says."""
    return largest_complete_designs(np.arange(5) < runs[..., None], common_seeds=common_seeds)


def test_a_complete_study_is_kept_whole() -> None:
    assert find_largest(np.full((3, 2), 5)) == [((0, 1, 2), (0, 1))]


def test_the_level_that_costs_fewest_runs_goes() -> None:
    """One hole in 2 x 4 cells can be avoided only by leaving out its column, since two rows are the fewest."""
    runs = np.full((2, 4), 5)
    runs[1, 2] = 0
    assert find_largest(runs) == [((0, 1), (0, 1, 3))]


def test_runs_count_and_not_cells() -> None:
    """A hole in a 3 x 3 design: its row and its column are equally large, but one of them has runs missing."""
    runs = np.full((3, 3), 5)
    runs[0, 0] = 0
    runs[0, 1] = 1
    assert find_largest(runs) == [((1, 2), (0, 1, 2))]


def test_ties_are_all_returned() -> None:
    runs = np.full((3, 3), 5)
    runs[0, 0] = 0
    assert find_largest(runs) == [((1, 2), (0, 1, 2)), ((0, 1, 2), (1, 2))]


def test_nothing_complete() -> None:
    assert find_largest(np.array([[5, 0], [0, 5]])) == []
    assert find_largest(np.full((2, 2), 2), common_seeds=3) == []


def test_runs_count_where_all_cells_have_their_seed() -> None:
    """Three runs that failed with three of five seeds leave two in common, and three without any one level: six ties."""
    measured = np.ones((3, 3, 5), dtype=bool)
    measured[range(3), range(3), range(3)] = False
    assert len(largest_complete_designs(measured, common_seeds=3)) == 6
    assert largest_complete_designs(measured, common_seeds=None) == [((0, 1, 2), (0, 1, 2))]
    measured[2, 2, 2] = True  # 27 runs of three seeds in all cells, 24 of four without one level
    assert largest_complete_designs(measured, common_seeds=3) == [((0, 1, 2), (0, 1, 2))]


@settings(max_examples=60, deadline=None)
@given(arrays(np.bool_, (3, 4, 3), elements=st.sampled_from([True, True, True, False])))
def test_order_of_levels_is_nothing(measured: np.ndarray) -> None:
    """Reversing the levels reverses the choices; none keeps fewer runs than it would with another level."""
    found = largest_complete_designs(measured, common_seeds=1)
    mirrored = largest_complete_designs(measured[::-1, ::-1], common_seeds=1)
    back = {(tuple(sorted(2 - i for i in rows)), tuple(sorted(3 - j for j in columns))) for rows, columns in mirrored}
    assert set(found) == back
    for rows, columns in found:
        assert (kept := count_runs(measured, rows, columns))
        for row in set(range(3)) - set(rows):
            assert count_runs(measured, (*rows, row), columns) <= kept
        for column in set(range(4)) - set(columns):
            assert count_runs(measured, rows, (*columns, column)) <= kept


def count_runs(measured: np.ndarray, rows: Levels, columns: Levels) -> int:
    """Of the seeds that all cells have, one at a time."""
    cells = list(itertools.product(rows, columns))
    return sum(len(cells) for seed in range(3) if all(measured[row, column, seed] for row, column in cells))
