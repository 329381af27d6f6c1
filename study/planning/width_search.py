"""Matched budgets: the width at which a backbone costs what the study allows.

Widths move in the steps that heads allow (heads keep their width), and the hidden width of the MLP trims the residual.
Chosen is the width whose natural proportions (a hidden width of four times the width) come nearest to the target. Another
one is tried only if the hidden width would have to be less than a quarter or more than eight times the width: that far it
must go where a second head doubles the width, and no one would build a model beyond. A backbone without a hidden width
(ConvMixer) is solved by width alone: among steps of 8, 4, 2 and 1 the coarsest that meets the tolerance, because round
widths run faster and read better.

Parameters and MACs follow from the closed form. Seconds are looked up in the study's benchmark file, never timed anew. So
the same sweep always has the same widths.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from study.backbones import specify, variants
from study.backbones.specification import BackboneSpec
from study.errors import Problem, UserError

By = Literal["params", "macs"]

KNOB_RATIOS = (1 / 4, 8)  # the hidden width stays within these multiples of the width; 4 is natural
ROUND_STEPS = (8, 4, 2, 1)
NEIGHBORS = 4  # widths tried on each side of the target
SHORT_OPTIONS = {"k": "kernel_size", "p": "patch_size"}


@dataclass(frozen=True)
class WidthMatch:
    """A backbone at a width that was tried for a budget."""

    spec: BackboneSpec
    value: float  # its cost: whole parameters, whole MACs, or seconds
    residual: float  # (value - target) / target
    width_step: int


class Unreachable(Exception):
    """No width meets the target within the tolerance; `nearest` is the closest that can be built (or was measured)."""

    def __init__(self, nearest: WidthMatch, *, by: str, target: float, tolerance: float) -> None:
        self.nearest = nearest
        spec = nearest.spec
        super().__init__(
            f"{spec.backbone} (patch size {spec.patch_size}, depth {spec.depth}) reaches no budget of {target:,} {by} "
            f"within {tolerance:.1%}; the nearest is {nearest.value:,} at width {spec.dim} ({nearest.residual:+.1%})"
        )


def solve_width(template: BackboneSpec, *, by: By, target: int, tolerance: float, head_dim: int) -> WidthMatch:
    """The template at the width (and hidden width) whose params or MACs per image meet the target; Unreachable if none.

    The template's own width, and all options that follow from it (the keys of its `width_options`), are ignored; its other
    options are kept.
    """
    search = _Search(template, by=by, target=target, head_dim=head_dim)
    matches = search.by_width_alone() if template.fine_width_option is None else search.by_width_and_knob()
    return _first_within(matches, by=by, target=target, tolerance=tolerance)


def solve_seconds(
    template: BackboneSpec, *, measured: Mapping[BackboneSpec, float], target: float, tolerance: float, head_dim: int
) -> WidthMatch:
    """The measured width of the template whose seconds are nearest to the target; Unreachable if none is near enough.

    `measured` gives the seconds of whole specifications, in the unit of the target; there is no interpolation between
    measured widths. UserError if the template was measured at no width with heads of `head_dim` features.
    """
    step = template.width_step(head_dim)
    matches = [
        WidthMatch(spec=spec, value=seconds, residual=(seconds - target) / target, width_step=step)
        for spec, seconds in measured.items()
        if spec.dim % step == 0 and _differ_in_widths_only(spec, template, head_dim=head_dim)
    ]
    if not matches:
        sizes = f"patch size {template.patch_size}, depth {template.depth}, heads of {head_dim}"
        raise UserError(Problem(f"no width of {template.backbone} ({sizes}) has been measured"))
    matches.sort(key=lambda match: (abs(match.residual), match.spec.dim))
    return _first_within(matches, by="seconds", target=target, tolerance=tolerance)


def named_budget(text: str, *, by: By) -> int:
    """The params or MACs of a published variant, options changed: "convmixer_256_8 k5 p2", "vit_tiny_patch16".

    Options are k (kernel size), p (patch size), or spelled out as image_size=64. UserError for anything else.
    """
    name, *words = text.split() or [""]
    if name not in variants():
        raise UserError(Problem("no published variant of this name", value=name, choices=variants()))
    settings: dict[str, object] = {}
    for word in words:
        match = re.fullmatch(r"([a-z_]+?)=?(\d+)", word)
        if match is None:
            raise UserError(Problem("an option of a variant is written k5, p2 or image_size=64", value=word))
        settings[SHORT_OPTIONS.get(match[1], match[1])] = int(match[2])
    return _cost(specify(name, settings), by)


def _cost(spec: BackboneSpec, by: By) -> int:
    cost = spec.closed_form()
    return cost.params if by == "params" else cost.macs


def _first_within(matches: Iterable[WidthMatch], *, by: str, target: float, tolerance: float) -> WidthMatch:
    tried = []
    for match in matches:
        if abs(match.residual) <= tolerance:
            return match
        tried.append(match)
    nearest = min(tried, key=lambda match: (abs(match.residual), match.spec.dim))
    raise Unreachable(nearest, by=by, target=target, tolerance=tolerance)


@dataclass(frozen=True)
class _Search:
    """The widths worth trying for a budget, best first."""

    template: BackboneSpec
    by: By
    target: int
    head_dim: int

    def by_width_alone(self) -> Iterator[WidthMatch]:
        """The nearest width in each step, coarse to fine."""
        finest = self.template.width_step(self.head_dim)
        for step in dict.fromkeys(max(step, finest) for step in ROUND_STEPS):
            matches = [self._match(spec, step) for spec in self._specs_around(step)]
            yield min(matches, key=lambda match: abs(match.residual))

    def by_width_and_knob(self) -> Iterator[WidthMatch]:
        """Every width around the target with its hidden width trimmed, the most natural width first."""
        step = self.template.width_step(self.head_dim)
        for spec in sorted(self._specs_around(step), key=lambda spec: abs(math.log(_cost(spec, self.by) / self.target))):
            yield self._match(self._trim(spec), step)

    def _match(self, spec: BackboneSpec, step: int) -> WidthMatch:
        value = _cost(spec, self.by)
        return WidthMatch(spec=spec, value=value, residual=(value - self.target) / self.target, width_step=step)

    def _trim(self, spec: BackboneSpec) -> BackboneSpec:
        """The spec with the hidden width whose cost is nearest to the target; the cost is linear in it."""
        low, high = (max(1, round(ratio * spec.dim)) for ratio in KNOB_RATIOS)
        at_low, at_high = (_cost(spec.with_fine_width(knob), self.by) for knob in (low, high))
        slope = (at_high - at_low) / (high - low)
        knob = low + round((self.target - at_low) / slope)
        return spec.with_fine_width(min(max(knob, low), high))

    def _specs_around(self, step: int) -> list[BackboneSpec]:
        """Widths, in multiples of the step, around the one whose natural cost reaches the target (costs rise with width)."""

        def reaches(multiple: int) -> bool:
            return _cost(self.template.at_width(multiple * step, self.head_dim), self.by) >= self.target

        high = 1
        while not reaches(high):
            high *= 2
        low = high // 2  # doesn't reach the target, or is zero
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if reaches(middle) else (middle, high)
        multiples = range(max(1, high - NEIGHBORS), high + NEIGHBORS)
        return [self.template.at_width(multiple * step, self.head_dim) for multiple in multiples]


def _differ_in_widths_only(spec: BackboneSpec, template: BackboneSpec, *, head_dim: int) -> bool:
    """Whether `spec` is the template at its width, whatever its hidden width."""
    if spec.backbone != template.backbone:
        return False
    natural = template.at_width(spec.dim, head_dim)
    return spec == (
        natural if spec.fine_width_option is None else natural.with_fine_width(getattr(spec, spec.fine_width_option))
    )
