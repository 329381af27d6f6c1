"""How far accuracy moves over the levels of a factor, and which of two factors moves it further.

A factor's range is the largest difference between the means of two of its levels, averaged over the other factors with equal
weights. As the largest of several differences it is biased upwards, so it is never tested by itself: all differences of level
means (and, for two factors, all differences of those) get simultaneous intervals, and a range is bounded by the largest lower
and the largest upper limit. The ranges of two factors R_A - R_B = max over pairs of A of (min over pairs of B of (d_A - d_B))
are bounded likewise. While all intervals of the family hold, which they do at the stated confidence, so do the bounds.

Population: new training seeds and new test images, at these levels. A range says nothing of levels that were not studied.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from study.analysis.cell_grid import CellLevels, Level
from study.analysis.crossed import Array, crossed_estimate
from study.analysis.simultaneous import SimultaneousIntervals, simultaneous_intervals


@dataclass(frozen=True)
class Bounds:
    """An estimate with simultaneous limits; fractions of accuracy (or log-odds)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class RangeComparison:
    """The ranges of two factors and their difference, and how it fares with each level left out and on the log-odds scale."""

    factors: tuple[str, str]
    ranges: tuple[Bounds, Bounds]
    difference: Bounds
    without: Mapping[tuple[str, Level], float]  # the difference with one level left out; where its factor keeps two levels
    log_odds: float  # the difference of ranges of mean log-odds

    @property
    def larger(self) -> str | None:
        """The factor that matters more here: the sign is significant, and the same without any level and in log-odds."""
        sign = np.sign(self.difference.value) if self.difference.low > 0 or self.difference.high < 0 else 0
        if sign == 0 or any(np.sign(value) != sign for value in (*self.without.values(), self.log_odds)):
            return None
        return self.factors[0] if sign > 0 else self.factors[1]


def factor_range(correct: Array, cells: Sequence[CellLevels], place: int) -> Bounds:
    """The range of the factor at `place` of the cells (a complete crossing); `correct` `cells n m` is 0 or 1."""
    pairs = _pair_contrasts(cells, place)
    found = simultaneous_intervals(crossed_estimate(np.tensordot(pairs, correct, axes=1)))
    return _bounds(pairs @ correct.mean(axis=(1, 2)), found, slice(None))


def compare_ranges(
    correct: Array, cells: Sequence[CellLevels], factors: tuple[str, str], places: tuple[int, int]
) -> RangeComparison:
    """The ranges of the factors at `places` of the cells, a complete crossing without controls; `correct` `cells n m`."""
    first, second = (_pair_contrasts(cells, place) for place in places)
    both = (first[:, None] - second[None, :]).reshape(-1, len(cells))
    family = np.concatenate([first, second, both])
    found = simultaneous_intervals(crossed_estimate(np.tensordot(family, correct, axes=1)))
    means = correct.mean(axis=(1, 2))
    end = len(first), len(first) + len(second)
    ranges = (_bounds(first @ means, found, slice(end[0])), _bounds(second @ means, found, slice(*end)))
    shape = (len(first), len(second))
    limits = (part[end[1] :].reshape(shape).min(axis=1).max() for part in (found.low, found.high))
    clipped = np.clip(means, 0.5 / correct[0].size, 1 - 0.5 / correct[0].size)
    return RangeComparison(
        factors,
        ranges,
        Bounds(ranges[0].value - ranges[1].value, *map(float, limits)),
        without=_without_levels(means, cells, factors, places),
        log_odds=_difference_of_ranges(np.log(clipped / (1 - clipped)), cells, places),
    )


def _without_levels(
    means: Array, cells: Sequence[CellLevels], factors: tuple[str, str], places: tuple[int, int]
) -> dict[tuple[str, Level], float]:
    """The difference of ranges with each level left out in turn."""
    found = {}
    for factor, place in zip(factors, places, strict=True):
        levels = list(dict.fromkeys(cell[place] for cell in cells))
        for level in levels if len(levels) > 2 else []:
            kept = [position for position, cell in enumerate(cells) if cell[place] != level]
            found[factor, level] = _difference_of_ranges(means[kept], [cells[position] for position in kept], places)
    return found


def _difference_of_ranges(means: Array, cells: Sequence[CellLevels], places: tuple[int, int]) -> float:
    first, second = (float((_pair_contrasts(cells, place) @ means).max()) for place in places)
    return first - second


def _pair_contrasts(cells: Sequence[CellLevels], place: int) -> Array:
    """Weights `pairs cells` of every ordered pair of levels: mean of the one's cells minus mean of the other's."""
    levels = list(dict.fromkeys(cell[place] for cell in cells))
    means = {level: np.array([cell[place] == level for cell in cells]) for level in levels}
    return np.array([means[a] / means[a].sum() - means[b] / means[b].sum() for a, b in itertools.permutations(levels, 2)])


def _bounds(differences: Array, found: SimultaneousIntervals, part: slice) -> Bounds:
    """The largest of all differences, which is never below zero, with the limits of its part of the family."""
    return Bounds(float(differences.max()), max(float(found.low[part].max()), 0.0), float(found.high[part].max()))
