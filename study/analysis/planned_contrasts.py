"""The contrasts that a sweep plans, derived from its axes before any accuracy is known.

A contrast is a weighted sum of cell means whose weights sum to zero. For the first factor (the patch size) and each further
one (token mixer, backbone, ...) the axes give these families, in this order:

1. the further factor averaged over the patch sizes: each level minus the reference level;
2. the same at each patch size;
3. the patch size averaged over the further factor: each size minus the next smaller one;
4. the same within each level;
5. the interaction: the change of each difference to the reference from the smallest to the largest patch size.

In an ablation (a factor `change`) they are: each change minus the baseline, averaged over the other factors (primary, alone);
the same at each level of every other factor; each other factor averaged over the changes; and the interactions.

Else the averaged contrasts of every factor and the interactions are primary (with one factor, its contrasts): one family,
adjusted together for multiple testing. The others are exploratory, and each of their families is adjusted by itself. Factors
that a contrast does not mention are averaged over, with equal weights, over the combinations that were planned for both sides.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from study.analysis.cell_grid import CellLevels, Level
from study.analysis.complete_designs import is_control
from study.analysis.labels import format_option, format_setting, format_sides, join_words
from study.config.sweep import BASELINE, CHANGE

REFERENCES: tuple[tuple[str, Level], ...] = (
    ("token_mixer", "depthwise_conv"),
    ("backbone", "convmixer"),
    ("stem", "patchify"),
    ("permute_pixels", False),
    ("permute_patches", False),
    (CHANGE, BASELINE),
)
"""Levels that others are compared with, unless the sweep names another; else the first as the sweep writes them."""

Weights = tuple[tuple[CellLevels, float], ...]


@dataclass(frozen=True)
class Contrast:
    """One planned comparison; `weights` pairs cells (levels in the order of `factors`) with their weights."""

    family: str  # "token mixer at each patch size"
    subject: str  # the factor that differs between the sides, or "a x b"
    upper: str  # "attention"
    lower: str  # "depthwise conv"; "" where `upper` names a contrast that the sweep states
    where: str  # "at patch size 2", "averaged over patch size", ""
    factors: tuple[str, ...]
    weights: Weights
    primary: bool
    control: bool  # whether a side is a level that is there to be poor

    def __post_init__(self) -> None:
        assert abs(sum(weight for _, weight in self.weights)) < 1e-9, f"the weights of {self.name!r} do not sum to zero"

    @property
    def name(self) -> str:
        """The contrast in words, unique within a plan, such as "attention − depthwise conv, at patch size 2"."""
        return format_sides(self.upper, self.lower) + (f", {self.where}" if self.where else "")


@dataclass(frozen=True)
class _Axes:
    """The factors that vary, each with its levels in the sweep's order, and the cells that were planned."""

    levels: dict[str, tuple[Level, ...]]
    planned: frozenset[CellLevels]
    references: Mapping[str, Level] = field(default_factory=dict)

    def group_planned(self, fixed: Mapping[str, Level], *, by: Sequence[str]) -> dict[CellLevels, list[CellLevels]]:
        """The planned cells at the fixed levels, without controls of other factors, grouped by their levels of some factors."""
        places = [list(self.levels).index(factor) for factor in by]
        found: dict[CellLevels, list[CellLevels]] = {}
        axes = (
            (fixed[factor],) if factor in fixed else [level for level in levels if not is_control(factor, level)] or levels
            for factor, levels in self.levels.items()
        )
        for cell in itertools.product(*axes):
            if cell in self.planned:
                found.setdefault(tuple(cell[place] for place in places), []).append(cell)
        return found


def plan_contrasts(
    levels: Mapping[str, Sequence[Level]],
    *,
    cells: Collection[CellLevels] | None = None,
    references: Mapping[str, Level] = MappingProxyType(dict(REFERENCES)),
) -> list[Contrast]:
    """The contrasts that follow from the axes: factors (columns of the run table) with their levels in the sweep's order.

    All further factors are crossed with the first. `cells` (levels in the order of the axes) are the planned combinations,
    where the sweep excludes some: averages then run over those that were planned for both sides, and contrasts without any
    are omitted. An axis with one level is not a factor. `references`: the levels that words are compared with; the first of a
    factor that it lacks.
    """
    varied = {factor: tuple(dict.fromkeys(values)) for factor, values in levels.items() if len(set(values)) > 1}
    planned = frozenset(itertools.product(*varied.values()))
    if cells is not None:
        places = [place for place, factor in enumerate(levels) if factor in varied]
        planned &= {tuple(cell[place] for place in places) for cell in cells}
    axes, factors = _Axes(varied, planned, references), list(varied)
    if CHANGE in varied:
        return list(_compare_changes(axes))
    if len(factors) == 1:
        return list(_compare_levels(axes, factors[0], at={}, family=format_option(factors[0])))
    return [contrast for second in factors[1:] for contrast in _cross_factors(axes, factors[0], second)]


def _compare_changes(axes: _Axes) -> Iterator[Contrast]:
    """The contrasts of an ablation; the only primary ones are those of the changes."""
    others = [factor for factor in axes.levels if factor != CHANGE]
    yield from _compare_levels(axes, CHANGE, at={}, family=f"{CHANGE}, averaged" if others else CHANGE)
    for factor in others:
        name = format_option(factor)
        found = [
            one
            for level in axes.levels[factor]
            for one in _compare_levels(axes, CHANGE, at={factor: level}, family=f"{CHANGE} at each {name}")
        ]
        found += _compare_levels(axes, factor, at={}, family=f"{name}, averaged")
        yield from (replace(one, primary=False) for one in (*found, *_compare_differences(axes, factor, CHANGE)))


def _cross_factors(axes: _Axes, first: str, second: str) -> list[Contrast]:
    one, other = format_option(first), format_option(second)
    found = list(_compare_levels(axes, second, at={}, family=f"{other}, averaged"))
    for level in axes.levels[first]:
        found += _compare_levels(axes, second, at={first: level}, family=f"{other} at each {one}")
    if second == next(factor for factor in axes.levels if factor != first):
        found += _compare_levels(axes, first, at={}, family=f"{one}, averaged")
    for level in axes.levels[second]:
        found += _compare_levels(axes, first, at={second: level}, family=f"{one} within each {other}")
    return found + list(_compare_differences(axes, first, second))


def _compare_levels(axes: _Axes, factor: str, *, at: Mapping[str, Level], family: str) -> Iterator[Contrast]:
    """The differences between levels of one factor, at fixed levels of some others and averaged over the rest."""
    rest = [format_option(other) for other in axes.levels if other != factor and other not in at]
    places = [f"at {format_setting(name, level)}" for name, level in at.items()]
    where = ", ".join([*places, *([f"averaged over {join_words(rest)}"] if rest else [])])
    for upper, lower in _choose_pairs(axes, factor):
        weights = _weigh_difference(axes, {factor: upper, **at}, {factor: lower, **at})
        if weights:
            sides = format_setting(factor, upper), format_setting(factor, lower)
            control = is_control(factor, upper) or is_control(factor, lower)
            yield Contrast(family, factor, *sides, where, tuple(axes.levels), weights, primary=not at, control=control)


def _compare_differences(axes: _Axes, first: str, second: str) -> Iterator[Contrast]:
    """The change of each difference to the reference from the first factor's first level to its last."""
    start, end = axes.levels[first][0], axes.levels[first][-1]
    for upper, lower in _choose_pairs(axes, second):
        late = _weigh_difference(axes, {second: upper, first: end}, {second: lower, first: end})
        early = _weigh_difference(axes, {second: upper, first: start}, {second: lower, first: start})
        if late and early:
            weights = late + tuple((cell, -weight) for cell, weight in early)
            gap = f"({format_setting(second, upper)} − {format_setting(second, lower)})"
            sides = f"{gap} at {format_setting(first, end)}", f"{gap} at {format_setting(first, start)}"
            family = f"{format_option(second)} x {format_option(first)}"
            control = is_control(second, upper) or is_control(second, lower)
            yield Contrast(
                family, f"{second} x {first}", *sides, "", tuple(axes.levels), weights, primary=True, control=control
            )


def _choose_pairs(axes: _Axes, factor: str) -> list[tuple[Level, Level]]:
    """The pairs of levels to compare: all with the reference if there is one, else each number with its predecessor."""
    levels = axes.levels[factor]
    if (reference := axes.references.get(factor)) in levels and factor in axes.references:
        return [(level, reference) for level in levels if level != reference]
    numbers = [level for level in levels if isinstance(level, int | float) and not isinstance(level, bool)]
    if numbers and set(levels) <= {*numbers, None}:
        return list(zip(numbers[1:], numbers[:-1], strict=True))
    return [(level, levels[0]) for level in levels[1:]]


def _weigh_difference(axes: _Axes, upper: Mapping[str, Level], lower: Mapping[str, Level]) -> Weights:
    """Weights of "mean of the upper cells minus mean of the lower ones" over the combinations that have both.

    An option that some levels lack (a kernel size, where attention has none) cannot be held equal between the sides: within
    each combination of the other factors, each side is averaged over its own.
    """
    shared = [factor for factor in axes.levels if factor not in upper and None not in axes.levels[factor]]
    sides = [axes.group_planned(fixed, by=shared) for fixed in (upper, lower)]
    both = [combination for combination in sides[0] if combination in sides[1]]
    return tuple(
        (cell, sign / len(both) / len(side[combination]))
        for combination in both
        for side, sign in zip(sides, (1, -1), strict=True)
        for cell in side[combination]
    )
