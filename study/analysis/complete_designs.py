"""The largest complete part of a study with holes: levels of which every combination was measured, without controls.

Effects averaged over other factors compare like with like only in a complete crossing. Which levels to leave out for it is
decided by how many runs are kept, not by the order of levels: those of the seeds with which all of the kept cells were
measured, since only these are paired. Where several choices keep equally many, all are returned, and a claim has to hold in
each.
"""

import itertools
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

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


def find_complete_designs(grid: Grid, *, common_seeds: int | None) -> list[Grid]:
    """The largest complete designs of a grid, each with the seeds of all of its cells, of which there are `common_seeds`.

    None: each cell has a run, whatever its seed, and the designs have all seeds of these runs. Empty where no two levels of
    each factor are complete.
    """
    axes = [grid.levels(factor) for factor in grid.factors]
    places = [tuple(map(tuple.index, axes, cell)) for cell in grid.cells]
    measured = np.zeros([*map(len, axes), len(grid.seeds)], dtype=bool)
    for place, own in zip(places, is_measured(grid.values), strict=True):
        measured[place] = own
    designs = [
        grid.select([n for n, place in enumerate(places) if all(map(tuple.__contains__, design, place))])
        for design in largest_complete_designs(measured, common_seeds=common_seeds)
    ]
    keep = np.any if common_seeds is None else np.all
    return [_select_seeds(design, keep(is_measured(design.values), axis=0)) for design in designs]


def _select_seeds(grid: Grid, kept: BoolArray) -> Grid:
    """The grid with some of its seeds, by a mask."""
    seeds = tuple(itertools.compress(grid.seeds, kept))
    correct = None if grid.correct is None else grid.correct[:, kept]
    return replace(grid, seeds=seeds, values=grid.values[:, kept], status=grid.status[:, kept], correct=correct)


def largest_complete_designs(measured: BoolArray, *, common_seeds: int | None) -> list[tuple[Levels, ...]]:
    """All choices of levels, one tuple per axis, that keep the most runs: those of the seeds that all of their cells have.

    `measured` says which cells have which seeds: one axis per factor, then the seeds. Each axis keeps two levels at
    least, or its only one. Empty where no such choice has so many common seeds. None: each cell has a run, and all count.
    Where runs are missing, exponential in the number of levels: about 2**16 choices in a second.
    """
    if measured.all() and measured.shape[-1] >= (common_seeds or 0):
        return [tuple(tuple(range(size)) for size in measured.shape[:-1])]
    best: list[tuple[Levels, ...]] = []
    most = 0
    subsets = (
        [kept for count in range(min(2, size), size + 1) for kept in itertools.combinations(range(size), count)]
        for size in measured.shape[:-1]
    )
    for choice in itertools.product(*subsets):
        own = measured[np.ix_(*choice)].reshape(-1, measured.shape[-1])
        common = int(own.all(axis=0).sum())
        complete, kept = (
            (own.any(axis=1).all(), int(own.sum())) if common_seeds is None else (common >= common_seeds, len(own) * common)
        )
        if complete and kept >= most:
            best = [*(best if kept == most else []), choice]
            most = kept
    return best
