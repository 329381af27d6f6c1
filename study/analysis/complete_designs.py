"""The largest complete part of a study with holes: levels of which every combination was measured.

Effects averaged over other factors compare like with like only in a complete crossing. Which levels to leave out for it is
decided by how many runs are kept, not by the order of levels; where two ways keep equally many, both are returned, and a
claim has to hold in each.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Levels = tuple[int, ...]
"""Positions of the kept levels along one axis."""


def largest_complete_designs(runs: npt.NDArray[np.int_], *, fewest_levels: int = 2) -> list[tuple[Levels, ...]]:
    """All choices of levels, one tuple per axis, whose cells all have runs and that together keep the most.

    `runs` counts the measured runs of every cell, one axis per factor; 0 is a hole. Each axis keeps `fewest_levels` at least,
    or all of a shorter one. Empty where no such choice is complete. Exponential in the number of levels: about 2**16 choices in
    a second.
    """
    best: list[tuple[Levels, ...]] = []
    most = 0
    for choice in itertools.product(*(_subsets(size, min(fewest_levels, size)) for size in runs.shape)):
        kept = runs[np.ix_(*choice)]
        if kept.all() and kept.sum() >= most:
            best = [*(best if kept.sum() == most else []), choice]
            most = int(kept.sum())
    return best


def _subsets(size: int, fewest: int) -> Sequence[Levels]:
    return [levels for count in range(fewest, size + 1) for levels in itertools.combinations(range(size), count)]
