"""The largest complete part of a study with holes: levels of which every combination was measured, without controls.

Effects averaged over other factors compare like with like only in a complete crossing. Which levels to leave out for it is
decided by how many runs are kept, not by the order of levels; where several choices keep equally many, all are returned, and
a claim has to hold in each.
"""

import itertools
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from study.analysis.cell_grid import BoolArray, Grid, Level, is_measured

CONTROLS: Mapping[str, tuple[Level, ...]] = {
    "token_mixer": ("identity", "random"),
    "permute_pixels": (True,),
    "permute_patches": (True,),
}
"""Levels that are in a study to be poor: they are shown and compared, but belong to no range or share."""

Levels = tuple[int, ...]
"""Positions of the kept levels along one axis."""


def is_control(factor: str, level: Level) -> bool:
    """Whether the level is in a study to be poor."""
    return level in CONTROLS.get(factor, ())


def merge_partial_options(grid: Grid) -> Grid:
    """The grid of the factors that vary, each option that only some levels have merged into the factor that determines which.

    `kernel_size` 3, 7 with `token_mixer` attention, depthwise_conv becomes `token_mixer` "attention", "depthwise_conv
    (kernel size 3)", "depthwise_conv (kernel size 7)", so that the combinations can be complete. An option whose presence no
    other factor determines stays a factor.
    """
    columns = {factor: [cell[place] for cell in grid.cells] for place, factor in enumerate(grid.factors)}
    columns = {factor: own for factor, own in columns.items() if len(set(own)) > 1}
    for name, own in list(columns.items()):
        lacks = [level is None for level in own]
        # A host's levels each lack the option in all of their cells or in none.
        hosts = [
            other
            for other, found in columns.items()
            if other != name and len({*zip(found, lacks, strict=True)}) == len({*found})
        ]
        if any(lacks) and hosts:
            pairs = zip(columns[hosts[0]], own, strict=True)
            columns[hosts[0]] = [
                host if level is None else f"{host} ({name.replace('_', ' ')} {level})" for host, level in pairs
            ]
            del columns[name]
    return replace(grid, factors=tuple(columns), cells=tuple(zip(*columns.values(), strict=True)))


def drop_controls(grid: Grid) -> Grid:
    """The grid without the cells of controls."""
    kept = [place for place, cell in enumerate(grid.cells) if not any(map(is_control, grid.factors, cell))]
    return grid.select(kept)


def find_complete_designs(grid: Grid, *, fewest_seeds: int) -> list[Grid]:
    """The largest complete designs of a grid; a cell with fewer measured runs than `fewest_seeds` counts as a hole.

    Empty where no two levels of each factor are complete.
    """
    axes = [grid.levels(factor) for factor in grid.factors]
    places = [tuple(map(tuple.index, axes, cell)) for cell in grid.cells]
    runs = np.zeros([len(axis) for axis in axes], dtype=int)
    for place, count in zip(places, is_measured(grid.values).sum(axis=1), strict=True):
        runs[place] = count if count >= fewest_seeds else 0
    return [
        grid.select([n for n, place in enumerate(places) if all(map(tuple.__contains__, design, place))])
        for design in largest_complete_designs(runs)
    ]


def select_seeds(grid: Grid, kept: BoolArray) -> Grid:
    """The grid with some of its seeds, by a mask."""
    seeds = tuple(itertools.compress(grid.seeds, kept))
    correct = None if grid.correct is None else grid.correct[:, kept]
    return replace(grid, seeds=seeds, values=grid.values[:, kept], status=grid.status[:, kept], correct=correct)


def largest_complete_designs(runs: npt.NDArray[np.int_]) -> list[tuple[Levels, ...]]:
    """All choices of levels, one tuple per axis, whose cells all have runs and that together keep the most.

    `runs` counts the measured runs of every cell, one axis per factor; 0 is a hole. Each axis keeps two levels at
    least, or its only one. Empty where no such choice is complete. Exponential in the number of levels: about 2**16 choices
    in a second.
    """
    best: list[tuple[Levels, ...]] = []
    most = 0
    subsets = (
        [kept for count in range(min(2, size), size + 1) for kept in itertools.combinations(range(size), count)]
        for size in runs.shape
    )
    for choice in itertools.product(*subsets):
        kept = runs[np.ix_(*choice)]
        if kept.all() and kept.sum() >= most:
            best = [*(best if kept.sum() == most else []), choice]
            most = int(kept.sum())
    return best
