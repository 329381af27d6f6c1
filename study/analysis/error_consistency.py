"""Whether two architectures err on the same images: the error consistency of their runs, beyond what equal accuracy explains.

Cohen's kappa of two runs' correctness on the same test images: 1 where they err on the same images, 0 where they err as
independently as their accuracies allow (Geirhos, Meding, Wichmann, "Beyond accuracy: quantifying trial-by-trial behaviour of
CNNs and humans by measuring error consistency", 2020). Two runs of one architecture are the yardstick: where the kappa between
two architectures is as large as that within each, they differ in nothing that these images show.
"""

import itertools

import numpy as np
import pandas as pd

from study.analysis.cell_grid import BoolArray, FloatArray, Grid, Level

COMPARED = ("token_mixer", "backbone")
"""The factors whose levels are compared: the first of them that a study varies."""


def compute_kappas(grid: Grid, a: int, b: int) -> FloatArray:
    """Cohen's kappa of each run of cell `a` and each of cell `b`, `seeds seeds`; needs `correct`.

    NaN where a run is not done, or both are certain to agree since neither errs (or neither is ever correct).
    """
    assert grid.correct is not None
    runs, images = grid.correct[[a, b]].astype(np.float32), grid.correct.shape[-1]
    one, other = runs.sum(axis=2, dtype=float)[..., None] / images
    observed = 1 - one - other.T + 2 * (runs[0] @ runs[1].T).astype(float) / images
    expected = one * other.T + (1 - one) * (1 - other.T)
    done = grid.status[[a, b]] == "done"
    known = done[0][:, None] & done[1] & (expected < 1)
    return np.where(known, (observed - expected) / np.where(known, 1 - expected, 1.0), np.nan)


def compare_errors(grid: Grid) -> pd.DataFrame | None:
    """One row per pair of levels of the first of `COMPARED` that varies; None without one, or without correctness per image.

    - `factor`, `upper`, `lower`: the pair; `cells`: pairs of cells that are equal but for it, over which all else is averaged.
    - `between`: mean kappa of a run of the one and a run of the other, with different seeds; `within_upper`, `within_lower`:
      of two runs of the same cell. NaN without two seeds.
    - `only_upper`, `only_lower`: the share of images that the one classifies correctly in most of its runs and the other
      incorrectly in most of its own.

    Population: none; a description of these runs on these test images.
    """
    factor = next((name for name in COMPARED if name in grid.factors and len(grid.levels(name)) > 1), None)
    if factor is None or grid.correct is None:
        return None
    place, mostly = grid.factors.index(factor), _find_majorities(grid)
    within = [_average_pairs(compute_kappas(grid, number, number)) for number in range(len(grid.cells))]
    cells: dict[tuple[Level, ...], dict[Level, int]] = {}
    for number, cell in enumerate(grid.cells):
        if (grid.status[number] == "done").any():
            cells.setdefault((*cell[:place], *cell[place + 1 :]), {})[cell[place]] = number
    rows = []
    for lower, upper in itertools.combinations(grid.levels(factor), 2):
        pairs = [(own[upper], own[lower]) for own in cells.values() if {upper, lower} <= own.keys()]
        if pairs:
            rows.append(
                {
                    "factor": factor,
                    "upper": upper,
                    "lower": lower,
                    "cells": len(pairs),
                    "between": _average([_average_pairs(compute_kappas(grid, a, b)) for a, b in pairs]),
                    "within_upper": _average([within[a] for a, _ in pairs]),
                    "within_lower": _average([within[b] for _, b in pairs]),
                    "only_upper": float(np.mean([(mostly[a, 0] & mostly[b, 1]).mean() for a, b in pairs])),
                    "only_lower": float(np.mean([(mostly[b, 0] & mostly[a, 1]).mean() for a, b in pairs])),
                }
            )
    return pd.DataFrame(rows) if rows else None


def _find_majorities(grid: Grid) -> BoolArray:
    """Whether most done runs of a cell classify an image correctly, and whether most do incorrectly (`cells 2 images`)."""
    assert grid.correct is not None
    right, runs = grid.correct.sum(axis=1), (grid.status == "done").sum(axis=1)[:, None]
    return np.stack([2 * right > runs, 2 * right < runs], axis=1)


def _average_pairs(kappas: FloatArray) -> float:
    """The mean over pairs of runs with different seeds: equal seeds share data order and patch embedding."""
    return _average(list(kappas[~np.eye(len(kappas), dtype=bool)]))


def _average(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
