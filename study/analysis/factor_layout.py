"""The role of each factor in figures and curves: one along the axis, one distinguishing the series, the rest in panels.

A factor that the others determine (a learning rate zipped to the backbone) has no role of its own; one that only some series
have (a kernel size, where attention has none) splits those series. Nothing is averaged over a factor implicitly: each
combination of the remaining factors has its own panel.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from study.analysis.cell_grid import BoolArray, CellLevels, Level, read_cells, sort_key, to_level
from study.analysis.labels import format_cell
from study.config.sweep import BASELINE, CHANGE

_AXIS_FACTORS = ("patch_size", "kernel_size", "kernel_pixels")
_SERIES_FACTORS = ("backbone", "token_mixer")
"""Factors with a usual role; others get the remaining roles in the order of the sweep."""

_MAX_SERIES = 8
"""As many series have marks of their own; a factor with more levels is along the axis instead, if the other one has fewer."""

_MATCHING_ORDER = ("params", "macs", "seconds", "training_macs", "training_seconds", "none")


@dataclass(frozen=True)
class FactorLayout:
    """Columns of the run table: one `along` the axis, the `series` distinguished by marks, `panels` for the rest."""

    along: str
    series: tuple[str, ...]
    panels: tuple[str, ...] = ()

    @property
    def factors(self) -> tuple[str, ...]:
        """Every factor that has a role."""
        return (self.along, *self.series, *self.panels)


@dataclass(frozen=True)
class RowGroup:
    """The rows with the same levels of some factors: the levels, a title, and a mask of the rows."""

    levels: CellLevels
    title: str
    rows: BoolArray


def arrange_factors(table: pd.DataFrame, factors: Sequence[str]) -> FactorLayout:
    """The roles of the factors (columns of the run table); with fewer than two that vary, patch size and backbone fill in."""
    varied = find_independent_factors(table, factors)
    numbers = [name for name in _AXIS_FACTORS if name in varied] + [name for name in varied if name not in _SERIES_FACTORS]
    along = next(iter([*numbers, "patch_size"]))
    rest = [name for name in varied if name != along]
    series = next(iter([*(name for name in _SERIES_FACTORS if name in rest), *rest, "backbone"]))
    partial = [name for name in rest if name != series and None in list_levels(table, name)]
    panels = tuple(name for name in rest if name not in (series, *partial))
    if not partial and max(_MAX_SERIES, len(list_levels(table, along))) < len(list_levels(table, series)):
        along, series = series, along
    return FactorLayout(along, (series, *partial), panels)


def find_independent_factors(table: pd.DataFrame, factors: Sequence[str]) -> list[str]:
    """The factors that vary in the table and are not determined by the others, in their order.

    Where two determine each other, the one with a usual role stays: a kernel size that only convolutions have distinguishes
    them from attention, but the factor of interest is the token mixer.
    """
    usual = [name for name in (*_SERIES_FACTORS, *_AXIS_FACTORS) if name in factors]
    kept: list[str] = []
    for name in [*usual, *(name for name in factors if name not in usual)]:
        if name in table and len(set(read_cells(table, [*kept, name]))) > len(set(read_cells(table, kept))):
            kept.append(name)
    return [name for name in factors if name in kept]


def list_levels(table: pd.DataFrame, factor: str) -> list[Level]:
    """The levels of a factor that occur, in the order in which they are shown: numbers by size, then words."""
    return sorted({to_level(entry) for entry in table[factor]}, key=lambda level: _sort_key(factor, level))


def _sort_key(factor: str, level: Level) -> tuple[int, float, str]:
    if factor == CHANGE and level == BASELINE:
        return (-1, 0.0, "")
    return (0, _MATCHING_ORDER.index(level), "") if factor == "match_by" and level in _MATCHING_ORDER else sort_key(level)


def group_rows(table: pd.DataFrame, factors: Sequence[str]) -> list[RowGroup]:
    """The rows by their levels of the factors, sorted; one untitled group where there is no factor."""
    found: dict[CellLevels, list[int]] = {}
    for place, levels in enumerate(read_cells(table, factors)):
        found.setdefault(levels, []).append(place)
    groups = []
    for levels in sorted(found, key=lambda levels: tuple(map(_sort_key, factors, levels))):
        rows = np.zeros(len(table), dtype=bool)
        rows[found[levels]] = True
        groups.append(RowGroup(levels, format_cell(factors, levels), rows))
    return groups
