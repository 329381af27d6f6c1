"""Rows are grouped by the levels of factors, also by none, under every pandas that the project allows."""

from __future__ import annotations

import pandas as pd

from study.analysis.cell_grid import read_cells
from study.analysis.factor_layout import group_rows


def test_without_a_factor_all_rows_are_one_group():
    """The empty product has one level: every row is in it (pandas 2.2 knows no records of a frame without columns)."""
    table = pd.DataFrame({"seed": pd.array([0, 1], dtype="Int64")})
    assert read_cells(table, []) == [(), ()]
    assert [group.rows.tolist() for group in group_rows(table, [])] == [[True, True]]
