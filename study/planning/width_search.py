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

import math
import re
from bisect import bisect_left
from collections.abc import Iterator
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


def solve_width(template: BackboneSpec, *, by: By, target: int, tolerance: float, head_dim: int) -> WidthMatch:
    """The template at the width (and hidden width) whose params or MACs per image meet the target.

    The template's own width, and all options that follow from it (the keys of its `width_options`), are ignored; its other
    options are kept. Raises UserError naming the nearest width if none is within the tolerance.
    """
    search = _Search(template, by=by, target=target, head_dim=head_dim)
    tried = []
    for match in search.by_width_alone() if template.fine_width_option is None else search.by_width_and_knob():
        if abs(match.residual) <= tolerance:
            return match
        tried.append(match)
    nearest = min(tried, key=lambda match: (abs(match.residual), match.spec.dim))
    raise UserError(
        f"{template.backbone} (patch size {template.patch_size}, depth {template.depth}) reaches no budget of {target:,} {by} "
        f"within {tolerance:.1%}; the nearest is {nearest.value:,} at width {nearest.spec.dim} ({nearest.residual:+.1%})"
    )


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
            matches = map(self._match, self._specs_around(step))
            yield min(matches, key=lambda match: abs(match.residual))

    def by_width_and_knob(self) -> Iterator[WidthMatch]:
        """Every width around the target with its hidden width trimmed, the most natural width first."""
        step = self.template.width_step(self.head_dim)
        for spec in sorted(self._specs_around(step), key=lambda spec: abs(math.log(_cost(spec, self.by) / self.target))):
            yield self._match(self._trim(spec))

    def _match(self, spec: BackboneSpec) -> WidthMatch:
        value = _cost(spec, self.by)
        return WidthMatch(spec, value=value, residual=(value - self.target) / self.target)

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
        high = bisect_left(range(high), True, lo=high // 2 + 1, key=reaches)  # half of it doesn't reach the target, or is zero
        multiples = range(max(1, high - NEIGHBORS), high + NEIGHBORS)
        return [self.template.at_width(multiple * step, self.head_dim) for multiple in multiples]
