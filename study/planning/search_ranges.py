"""Ranges of tuned options that widen by themselves: no cell's best candidate should be at the end of what was tried.

A range is extended by one level at that end, at the ratio of its last two levels, and for all cells, so that every cell has the
same trials. After three rounds, or where an option allows no further level, what is still at an end is only reported.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from annotated_types import Ge, Gt, Le, Lt
from pydantic import JsonValue

from study.config.sweep import Setting, Sweep, Tuning
from study.config.yaml_source import OPTIONS
from study.planning.resolver import Resolver
from study.records.selection import Choice, Selection, is_at_boundary

MAX_ROUNDS = 3


def widen_ranges(sweep: Sweep, choices: Iterable[Choice]) -> Tuning | None:
    """The next round of trials, given the choices of this one; None where no range is to be widened any more."""
    tuning, choices = sweep.tuning, [choice for choice in choices if choice.val_accuracy is not None]
    if tuning is None or not tuning.widen or len(tuning.added) == MAX_ROUNDS:
        return None
    added: dict[str, list[JsonValue]] = {}
    for key, axis in tuning.axes.items():
        levels = [setting.value for setting in axis]
        ends = [end for end in levels if any(key in choice.at_edge and choice.chosen[key] == end for choice in choices)]
        beyond = [extend_range(key, levels, end=end) for end in ends]
        if new := [level for level in beyond if level is not None and _is_valid(sweep, tuning, key, level)]:
            added[key] = [*new]
    return _add_levels(tuning, added) if added else None


def is_range(axis: Sequence[Setting]) -> bool:
    """Whether a tuned option's levels are several numbers, between which there may be others."""
    levels = [setting.value for setting in axis]
    return any(is_at_boundary(level, levels) for level in levels)


def extend_range(key: str, levels: Sequence[float], *, end: float) -> float | None:
    """The level beyond an `end` of several numeric levels: at the ratio of the last two there, within the option's bounds.

    A bound that is itself allowed is the last level; to one that isn't, the distance is halved. Three significant digits; an
    integer where the option is one. None where there is no such level, as beyond 0.
    """
    section, _, name = key.partition(".")
    field = OPTIONS[section].model_fields[name]
    ordered = sorted(levels, reverse=end == min(levels))
    if ordered[-1] == 0 or ordered[-2] == 0:
        return None
    level = float(f"{ordered[-1] ** 2 / ordered[-2]:.3g}")
    for bound in field.metadata:
        match bound:
            case Ge(ge=float() | int() as limit):
                level = max(level, float(limit))
            case Le(le=float() | int() as limit):
                level = min(level, float(limit))
            case Gt(gt=float() | int() as limit) if level <= limit:
                level = limit + float(f"{(ordered[-1] - limit) / 2:.3g}")
            case Lt(lt=float() | int() as limit) if level >= limit:
                level = limit - float(f"{(limit - ordered[-1]) / 2:.3g}")
    level = round(level) if field.annotation is int else level
    return None if level in levels else level


def _is_valid(sweep: Sweep, tuning: Tuning, key: str, level: float) -> bool:
    """Whether every cell can be trained with this level."""
    setting, resolver, others = Setting(level, tuning.place), Resolver(sweep), next(tuning.candidates())
    resolved = [resolver.resolve({**cell, **others, key: setting}, imposed=tuning.imposed()) for cell in sweep.cells()]
    return None not in resolved and not resolver.model_problems


def restore_ranges(sweep: Sweep, selection: Selection) -> Sweep:
    """The sweep with the ranges that were selected from, if they are its own after widening."""
    if sweep.tuning is None or not sweep.tuning.widen:
        return sweep
    tuning = sweep.tuning
    for levels in selection.added:
        if levels.keys() <= tuning.axes.keys():
            tuning = _add_levels(tuning, levels)
    return replace(sweep, tuning=tuning)


def _add_levels(tuning: Tuning, levels: Mapping[str, Sequence[JsonValue]]) -> Tuning:
    """The tuning with another round of levels, after those that it has: so candidates of equal rank keep their order."""
    added = {key: tuple(Setting(level, tuning.axes[key][0].place) for level in new) for key, new in levels.items()}
    axes = {key: (*axis, *added.get(key, ())) for key, axis in tuning.axes.items()}
    return replace(tuning, axes=axes, added=(*tuning.added, added))
