"""How far accuracy moves over the levels of each factor, and which of two factors moves it further.

A factor's range is the largest difference between the means of two of its levels, averaged over the other factors with equal
weights. As the largest of several differences it is biased upwards, so it is never tested by itself: all differences of level
means (and, of two factors, all differences of those) get simultaneous intervals, and a range is bounded by the largest lower
and the largest upper limit. The ranges of two factors R_A - R_B = max over pairs of A of (min over pairs of B of (d_A - d_B))
are bounded likewise. While all intervals of the family hold, which they do at the stated confidence, so do the bounds.

Ranges are those of the largest complete part of the study without controls. Population: new training seeds and new test
images (these test images where no correctness was kept), at these levels. A range says nothing of levels that weren't studied.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from study.analysis.cell_grid import CellLevels, FloatArray, Grid, Level
from study.analysis.complete_designs import drop_controls, find_complete_designs
from study.analysis.crossed import estimate_weighted_means
from study.analysis.group_sequential import Look, adjust_family
from study.analysis.intervals import MIN_SEEDS
from study.analysis.labels import format_setting
from study.analysis.simultaneous import DRAWS

_MOST_FILLED = 8  # cells with diverged runs: above, their 2**k best and worst cases aren't enumerated and nothing is claimed


@dataclass(frozen=True)
class Bounds:
    """An estimate with simultaneous 95 % limits; fractions of accuracy."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class FactorRange:
    """The range of a factor over the levels of a design: mean of the best minus mean of the worst."""

    factor: str
    levels: tuple[Level, ...]
    best: Level
    worst: Level
    bounds: Bounds


@dataclass(frozen=True)
class RangeCase:
    """The ranges of two factors and their difference in one case: with a level left out, or on the log-odds scale."""

    left_out: tuple[str, Level] | None  # factor, level; None on the log-odds scale
    ranges: tuple[float, float]

    @property
    def difference(self) -> float:
        return self.ranges[0] - self.ranges[1]

    @property
    def name(self) -> str:
        """ "without patch size 1", "in log-odds"."""
        return "in log-odds" if self.left_out is None else f"without {format_setting(*self.left_out)}"


@dataclass(frozen=True)
class RangeComparison:
    """The difference of two factors' ranges, and how it fares with each level left out and on the log-odds scale."""

    factors: tuple[str, str]
    difference: Bounds
    cases: tuple[RangeCase, ...]

    @property
    def sign(self) -> float:
        """Of the difference where it is significant, else 0."""
        return float(np.sign(self.difference.value)) if self.difference.low > 0 or self.difference.high < 0 else 0.0

    @property
    def reversals(self) -> list[RangeCase]:
        """The cases in which the difference hasn't the sign that it has over all levels."""
        return [case for case in self.cases if np.sign(case.difference) != np.sign(self.difference.value)]

    @property
    def larger(self) -> str | None:
        """The factor that matters more here: the sign is significant, and the same without any level and in log-odds."""
        return None if self.sign == 0 or self.reversals else self.factors[0 if self.sign > 0 else 1]


@dataclass(frozen=True)
class DesignRanges:
    """The ranges in one largest complete design. `comparison` is there with two factors of three levels or more."""

    ranges: tuple[FactorRange, ...]
    n: int
    images: int | None
    left_out: tuple[tuple[str, Level], ...]  # factor, level; of the study without controls, where the design lacks it
    comparison: RangeComparison | None


def estimate_ranges(grid: Grid, *, look: Look | None = None, draws: int = DRAWS) -> list[DesignRanges]:
    """The ranges of all factors of two levels or more, in every largest complete design; none without three common seeds.

    The first two factors of three levels or more are compared. All ranges and differences of a design are one family; at a
    `look` their bounds hold at all looks as well.
    """
    study = drop_controls(grid)
    designs = find_complete_designs(study, common_seeds=MIN_SEEDS)
    return [_estimate_design(design, study, look=look, draws=draws) for design in designs if len(design.cells) > 1]


def _estimate_design(design: Grid, study: Grid, *, look: Look | None, draws: int) -> DesignRanges:
    varied = [factor for factor in design.factors if len(design.levels(factor)) > 1]
    pairs = {factor: _pair_contrasts(design.cells, design.factors.index(factor)) for factor in varied}
    compared = [factor for factor in varied if len(design.levels(factor)) > 2][:2]
    family = list(pairs.values())
    if len(compared) == 2:
        one, two = (pairs[factor] for factor in compared)
        family += [(one[:, None] + sign * two).reshape(-1, len(design.cells)) for sign in (-1, 1)]
    estimate = estimate_weighted_means(design, np.concatenate(family))
    found = adjust_family(estimate, look=look, draws=draws)
    ends = np.cumsum([len(part) for part in family])[:-1]
    limits = [*zip(*(np.split(part, ends) for part in (estimate.mean, found.low, found.high)), strict=True)]
    ranges = [_describe_range(design, factor, Bounds(*_fold(*limits[n]))) for n, factor in enumerate(varied)]
    comparison = None
    if len(compared) == 2:
        sizes = [found.bounds.value for factor in compared for found in ranges if found.factor == factor]
        low, high = _bound_difference(limits[-2], limits[-1], shape=(len(one), len(two)))
        factors = (compared[0], compared[1])
        cases = _list_cases(design.values.mean(axis=1), design, factors)
        comparison = RangeComparison(factors, Bounds(sizes[0] - sizes[1], low, high), tuple(cases))
    left_out = [(name, level) for name in study.factors for level in study.levels(name) if level not in design.levels(name)]
    return DesignRanges(tuple(ranges), len(design.seeds), estimate.images, tuple(left_out), comparison)


def _bound_difference(
    minus: tuple[FloatArray, ...], plus: tuple[FloatArray, ...], *, shape: tuple[int, int]
) -> tuple[float, float]:
    """Limits of R_A - R_B from (mean, low, high) of d_A - d_B and d_A + d_B for every pair of A and pair of B.

    With both orders of each pair: the largest over d_A and -d_A of the smallest over d_B and -d_B.
    """
    low, high = (np.stack([np.minimum(minus[n], plus[n]), -np.maximum(minus[m], plus[m])]) for n, m in ((1, 2), (2, 1)))
    found = [float(part.reshape(2, *shape).min(axis=2).max()) for part in (low, high)]
    return found[0], found[1]


def _fold(mean: FloatArray, low: FloatArray, high: FloatArray) -> tuple[float, float, float]:
    """The largest of the differences and of their negatives, which is never below 0, with its limits."""
    return float(np.abs(mean).max()), max(float(np.maximum(low, -high).max()), 0.0), float(np.maximum(high, -low).max())


def _describe_range(design: Grid, factor: str, bounds: Bounds) -> FactorRange:
    levels, place = design.levels(factor), design.factors.index(factor)
    means = [design.values[[cell[place] == level for cell in design.cells]].mean() for level in levels]
    return FactorRange(factor, levels, levels[int(np.argmax(means))], levels[int(np.argmin(means))], bounds)


def _list_cases(means: FloatArray, design: Grid, factors: tuple[str, str]) -> list[RangeCase]:
    """The two ranges with each level left out in turn, and in log-odds, from the cells' means."""
    places = tuple(map(design.factors.index, factors))
    cases = []
    for factor, place in zip(factors, places, strict=True):
        for level in design.levels(factor):
            kept = [n for n, cell in enumerate(design.cells) if cell[place] != level]
            cells = [design.cells[n] for n in kept]
            cases.append(RangeCase((factor, level), _compute_ranges(means[kept], cells, places)))
    step = 0.5 / (len(design.seeds) * (design.test_images or 1000))
    clipped = np.clip(means, step, 1 - step)
    return [*cases, RangeCase(None, _compute_ranges(np.log(clipped / (1 - clipped)), design.cells, places))]


def _compute_ranges(means: FloatArray, cells: Sequence[CellLevels], places: Sequence[int]) -> tuple[float, float]:
    one, two = (float(np.abs(_pair_contrasts(cells, place) @ means).max()) for place in places)
    return one, two


def _pair_contrasts(cells: Sequence[CellLevels], place: int) -> FloatArray:
    """Weights `pairs cells` of every pair of levels: mean of the one's cells minus mean of the other's."""
    levels = list(dict.fromkeys(cell[place] for cell in cells))
    means = {level: np.array([cell[place] == level for cell in cells]) for level in levels}
    return np.array([means[a] / means[a].sum() - means[b] / means[b].sum() for a, b in itertools.combinations(levels, 2)])


def is_reversed_by_divergence(grid: Grid, factors: tuple[str, str], *, sign: float) -> bool:
    """Whether diverged runs, those of each cell at chance or at their best, could reverse the difference of two ranges.

    Tried in every largest complete design of the study that has these runs, over all levels, without any one, in log-odds.
    True also where too many cells have such runs to try, or where a design lacks all but two levels of a factor.
    """
    study = drop_controls(grid)
    bounds = [replace(study, values=study.fill_diverged(case), correct=None) for case in ("worst", "best")]
    for worst, best in zip(*(find_complete_designs(bound, common_seeds=MIN_SEEDS) for bound in bounds), strict=True):
        open_cells = np.flatnonzero((worst.status == "diverged").any(axis=1))
        if len(open_cells) > _MOST_FILLED or any(len(worst.levels(name)) < 3 for name in factors):
            return True  # with two levels left, no range remains without one of them
        lowest, highest = (bound.values.mean(axis=1) for bound in (worst, best))
        for choice in itertools.product((False, True), repeat=len(open_cells)):
            means = lowest.copy()
            means[open_cells] = np.where(choice, highest[open_cells], lowest[open_cells])
            whole = RangeCase(None, _compute_ranges(means, worst.cells, [worst.factors.index(name) for name in factors]))
            if any(np.sign(case.difference) != sign for case in (whole, *_list_cases(means, worst, factors))):
                return True
    return False
