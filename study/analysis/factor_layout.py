"""Which factor stands where in a figure: one along the axis, one by colour and marker, the rest in panels.

A factor that the others determine (a learning rate zipped to the backbone) asks for no place of its own; one that only
some series have (a kernel size, where attention has none) splits those series. No factor is averaged over in silence:
what has no place on the axis or among the series makes a panel for each of its combinations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from study.analysis import labels
from study.analysis.cell_grid import CellLevels, Level, sort_key, to_level

ALONG = ("patch_size", "kernel_size", "kernel_pixels")
SERIES = ("backbone", "token_mixer")
"""Factors with a usual place; others fill what is left in the order of the sweep."""

WAYS = ("params", "macs", "seconds", "none")
"""Ways of matching in the order in which they are shown."""


@dataclass(frozen=True)
class FactorLayout:
    """Column names of the run table: one `along` the axis, the `series` told apart by marks, `panels` for the rest."""

    along: str
    series: tuple[str, ...]
    panels: tuple[str, ...] = ()

    @property
    def factors(self) -> tuple[str, ...]:
        """Every factor that has a place."""
        return (self.along, *self.series, *self.panels)


@dataclass(frozen=True)
class RowGroup:
    """The runs that share a series, or a panel: their levels, how they are called, and which rows they are."""

    levels: CellLevels
    title: str
    rows: npt.NDArray[np.bool_]


def arrange_factors(table: pd.DataFrame, factors: Sequence[str]) -> FactorLayout:
    """The places of the factors; with fewer than two that vary, patch size and backbone fill in."""
    varied = find_independent_factors(table, factors)
    numbers = [name for name in ALONG if name in varied] + [name for name in varied if name not in SERIES]
    along = next(iter([*numbers, "patch_size"]))
    rest = [name for name in varied if name != along]
    series = next(iter([*(name for name in SERIES if name in rest), *rest, "backbone"]))
    partial = [name for name in rest if name != series and None in list_levels(table, name)]
    return FactorLayout(along, (series, *partial), tuple(name for name in rest if name not in (series, *partial)))


def find_independent_factors(table: pd.DataFrame, factors: Sequence[str]) -> list[str]:
    """The factors that vary in the table and are no function of the others, in their order.

    Where two determine each other, the usual inhabitants of series and axis stay, in this order: a kernel size that only
    convolutions have tells them from attention, but it is the mixer that is meant.
    """
    usual = [name for name in (*SERIES, *ALONG) if name in factors]
    kept: list[str] = []
    for name in [*usual, *(name for name in factors if name not in usual)]:
        if name in table and len(set(read_cells(table, [*kept, name]))) > len(set(read_cells(table, kept))):
            kept.append(name)
    return [name for name in factors if name in kept]


def list_levels(table: pd.DataFrame, factor: str) -> list[Level]:
    """The levels of a factor that occur, numbers by size, then words."""
    return sorted({to_level(entry) for entry in table[factor]}, key=lambda level: _level_order(factor, level))


def _level_order(factor: str, level: Level) -> tuple[int, float, str]:
    """A sorting key for the levels of a factor."""
    return (0, WAYS.index(level), "") if factor == "match_by" and level in WAYS else sort_key(level)


def read_cells(table: pd.DataFrame, factors: Sequence[str]) -> list[CellLevels]:
    """Each row's levels of the factors."""
    columns = [[to_level(entry) for entry in table[name]] for name in factors]
    return list(zip(*columns, strict=True)) if columns else [()] * len(table)


def group_rows(table: pd.DataFrame, factors: Sequence[str]) -> list[RowGroup]:
    """The rows by their levels of the factors, sorted; one untitled group where there is no factor."""
    own = read_cells(table, factors)
    ordered = sorted(set(own), key=lambda key: tuple(map(_level_order, factors, key)))
    return [RowGroup(key, describe_group(factors, key), np.array([found == key for found in own])) for key in ordered]


def describe_group(factors: Sequence[str], key: CellLevels) -> str:
    """A group in words; options that it hasn't got go unsaid."""
    return ", ".join(labels.format_setting(name, level) for name, level in zip(factors, key, strict=True) if level is not None)
