"""Matched budgets: the width at which a backbone costs what a study allows everyone.

Widths move in the steps that heads allow (heads keep their width), and the hidden width of the MLP is the fine knob.
For every width the knob would have to be somewhere to hit the target; the width is chosen whose natural proportions
come nearest to the target by themselves, so that the knob only trims the residual, and its neighbours only if the knob
would have to leave a quarter of to eight times the width: so far it must go where a second head doubles the width,
and further no one would build a model. A backbone without a knob (ConvMixer) is solved by width alone: among steps of
8, 4, 2 and 1 the coarsest that meets the tolerance, because round widths run faster and read better.

Parameters and MACs are decided by the closed form, in milliseconds, and always the same way. Seconds are looked up in
a table of measurements that the study names, never timed afresh, so that they are always the same too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from study.backbones import specify, variants
from study.backbones.specification import BackboneSpec
from study.errors import Problem, UserError

By = Literal["params", "macs"]
Price = Callable[[BackboneSpec], int]

KNOB_RATIOS = (1 / 4, 8)  # the fine knob stays within these multiples of the width; 4 is natural
ROUND_STEPS = (8, 4, 2, 1)
NEIGHBOURS = 4  # widths tried on each side of the target
SHORT_OPTIONS = {"k": "kernel_size", "p": "patch_size"}


@dataclass(frozen=True)
class Match:
    """A backbone of the wanted budget: its cost in the budget's unit, and by which fraction that is off the target."""

    spec: BackboneSpec
    value: float  # whole parameters, whole MACs, or seconds
    residual: float  # (value - target) / target
    width_step: int


class Unreachable(Exception):
    """No width meets the target within the tolerance; `nearest` is the closest that can be built (or was measured)."""

    def __init__(self, nearest: Match, *, by: str, target: float, tolerance: float) -> None:
        self.nearest = nearest
        spec = nearest.spec
        super().__init__(
            f"{spec.backbone} (patch size {spec.patch_size}, depth {spec.depth}) reaches no budget of {target:,} {by} "
            f"within {tolerance:.1%}; the nearest is {nearest.value:,} at width {spec.dim} ({nearest.residual:+.1%})"
        )


def solve(spec_template: BackboneSpec, *, by: By, target: int, tolerance: float, head_dim: int) -> Match:
    """The template at the width (and fine knob) whose params or MACs per image meet the target; Unreachable if none.

    The template's own width, and all options that follow from it (the keys of its `widths`), are ignored; its other
    options are kept.
    """
    price = PRICES[by]
    solver = _by_width_alone if spec_template.fine_width_option is None else _by_width_and_knob
    return _chosen(
        list(solver(spec_template, price=price, target=target, head_dim=head_dim)), by=by, target=target, tolerance=tolerance
    )


def solve_seconds(
    spec_template: BackboneSpec, *, measured: Mapping[BackboneSpec, float], target: float, tolerance: float, head_dim: int
) -> Match:
    """The measured width of the template whose seconds come nearest to the target; Unreachable if none is near enough.

    `measured` gives the seconds of whole specifications, in the unit of the target; widths between two measured ones
    are not guessed. UserError if the template was measured at no width with heads of `head_dim` features.
    """
    step = spec_template.width_step(head_dim)
    matches = [
        Match(spec=spec, value=seconds, residual=(seconds - target) / target, width_step=step)
        for spec, seconds in measured.items()
        if spec.dim % step == 0 and _differ_in_knob_only(spec, spec_template, head_dim=head_dim)
    ]
    if not matches:
        sizes = f"patch size {spec_template.patch_size}, depth {spec_template.depth}, heads of {head_dim}"
        raise UserError(Problem(f"no width of {spec_template.backbone} ({sizes}) has been measured"))
    matches.sort(key=lambda match: (abs(match.residual), match.spec.dim))
    return _chosen(matches, by="seconds", target=target, tolerance=tolerance)


def named_budget(text: str, *, by: By) -> int:
    """The params or MACs of a published variant, options changed: "convmixer_256_8 k5 p2", "vit_tiny_patch16".

    Options are k (kernel size), p (patch size), or spelled out as image_size=64. UserError for what isn't one.
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
    return PRICES[by](specify(name, settings))


def params(spec: BackboneSpec) -> int:
    """Trainable parameters."""
    return spec.closed_form().params


def macs(spec: BackboneSpec) -> int:
    """MACs of one image's forward pass."""
    return spec.closed_form().macs


PRICES: Mapping[By, Price] = {"params": params, "macs": macs}


def _chosen(matches: list[Match], *, by: str, target: float, tolerance: float) -> Match:
    """The first match within the tolerance."""
    for match in matches:
        if abs(match.residual) <= tolerance:
            return match
    nearest = min(matches, key=lambda match: (abs(match.residual), match.spec.dim))
    raise Unreachable(nearest, by=by, target=target, tolerance=tolerance)


def _by_width_alone(template: BackboneSpec, *, price: Price, target: int, head_dim: int) -> Iterator[Match]:
    """The nearest width in each step, coarse to fine."""
    finest = template.width_step(head_dim)
    for step in dict.fromkeys(max(step, finest) for step in ROUND_STEPS):
        around = _widths_around(template, step, price=price, target=target, head_dim=head_dim)
        matches = [_match(template.at_width(dim, head_dim), step, price=price, target=target) for dim in around]
        yield min(matches, key=lambda match: abs(match.residual))


def _by_width_and_knob(template: BackboneSpec, *, price: Price, target: int, head_dim: int) -> Iterator[Match]:
    """Every width around the target with its knob set as well as it can be, the most natural width first."""
    step = template.width_step(head_dim)
    around = _widths_around(template, step, price=price, target=target, head_dim=head_dim)
    specs = [template.at_width(dim, head_dim) for dim in around]
    for spec in sorted(specs, key=lambda spec: abs(math.log(price(spec) / target))):
        yield _match(_trimmed(spec, price=price, target=target), step, price=price, target=target)


def _trimmed(spec: BackboneSpec, *, price: Price, target: int) -> BackboneSpec:
    """The spec with its knob at the integer nearest to the target; the price is a straight line in the knob."""
    low, high = (max(1, round(ratio * spec.dim)) for ratio in KNOB_RATIOS)
    at_low, at_high = price(spec.with_fine_width(low)), price(spec.with_fine_width(high))
    slope = (at_high - at_low) / (high - low)
    knob = low + round((target - at_low) / slope)
    return spec.with_fine_width(min(max(knob, low), high))


def _widths_around(template: BackboneSpec, step: int, *, price: Price, target: int, head_dim: int) -> list[int]:
    """Multiples of the step around the one at which the natural price passes the target (prices rise with width)."""

    def dear(multiple: int) -> bool:
        return price(template.at_width(multiple * step, head_dim)) >= target

    high = 1
    while not dear(high):
        high *= 2
    low = high // 2  # not dear, or zero
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if dear(middle) else (middle, high)
    return [multiple * step for multiple in range(max(1, high - NEIGHBOURS), high + NEIGHBOURS)]


def _match(spec: BackboneSpec, step: int, *, price: Price, target: int) -> Match:
    value = price(spec)
    return Match(spec=spec, value=value, residual=(value - target) / target, width_step=step)


def _differ_in_knob_only(spec: BackboneSpec, template: BackboneSpec, *, head_dim: int) -> bool:
    """Whether `spec` is the template at its width, whatever its fine knob."""
    if spec.backbone != template.backbone:
        return False
    natural = template.at_width(spec.dim, head_dim)
    return spec == (
        natural if spec.fine_width_option is None else natural.with_fine_width(getattr(spec, spec.fine_width_option))
    )
