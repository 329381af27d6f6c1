"""The largest complete part of a design: by hand, by its laws on random holes, and ties."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from study.analysis.complete_designs import largest_complete_designs


def test_a_complete_study_is_kept_whole() -> None:
    assert largest_complete_designs(np.full((3, 2), 5)) == [((0, 1, 2), (0, 1))]


def test_the_level_that_costs_fewest_runs_goes() -> None:
    """One hole in 2 x 4 cells can be avoided only by leaving out its column, since two rows are the fewest."""
    runs = np.full((2, 4), 5)
    runs[1, 2] = 0
    assert largest_complete_designs(runs) == [((0, 1), (0, 1, 3))]


def test_runs_count_and_not_cells() -> None:
    """A hole in a 3 x 3 design: its row and its column are equally large, but one of them has runs missing."""
    runs = np.full((3, 3), 5)
    runs[0, 0] = 0
    runs[0, 1] = 1
    assert largest_complete_designs(runs) == [((1, 2), (0, 1, 2))]


def test_ties_are_all_returned() -> None:
    runs = np.full((3, 3), 5)
    runs[0, 0] = 0
    assert largest_complete_designs(runs) == [((1, 2), (0, 1, 2)), ((0, 1, 2), (1, 2))]


def test_nothing_complete() -> None:
    assert largest_complete_designs(np.array([[5, 0], [0, 5]])) == []


@settings(max_examples=60, deadline=None)
@given(arrays(np.int64, (3, 4), elements=st.integers(0, 3)))
def test_order_of_levels_is_nothing(runs: np.ndarray) -> None:
    """Reversing the levels reverses the choices; every choice is complete and can't be extended by a level."""
    found = largest_complete_designs(runs)
    mirrored = largest_complete_designs(runs[::-1, ::-1])
    back = {(tuple(sorted(2 - i for i in rows)), tuple(sorted(3 - j for j in columns))) for rows, columns in mirrored}
    assert set(found) == back
    for rows, columns in found:
        assert runs[np.ix_(rows, columns)].all()
        for row in set(range(3)) - set(rows):
            assert not runs[row, list(columns)].all()
        for column in set(range(4)) - set(columns):
            assert not runs[list(rows), column].all()
