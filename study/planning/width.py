"""Matched budgets: a cell's width as the sweep gives it, or the width at which its backbone costs what the study allows.

Widths move in the steps that heads allow (heads keep their width), and the hidden width of the MLP trims the residual.
Chosen is the width whose natural proportions (a hidden width of four times the width) come nearest to the target. Another
one is tried only if the hidden width would have to be less than a quarter or more than eight times the width: that far it
must go where a second head doubles the width, and no one would build a model beyond. A backbone without a hidden width
(ConvMixer) is solved by width alone: among steps of 8, 4, 2 and 1 the coarsest that meets the tolerance, because round
widths run faster and read better.

Parameters and MACs follow from the closed form. Seconds are those of a benchmark file (training seconds per 1,000 images, at
the benchmark's batch size), looked up and never timed anew: a second timing would give the same question other widths.
"""

import json
import math
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from study.backbones import get_spec_class, names, specify, variants
from study.backbones.specification import BackboneSpec
from study.config.options import MatchOptions, TrainOptions
from study.errors import Problem, UserError
from study.planning.traced_cost import find_cost
from study.records.benchmark_file import Speed, architecture_key, read_benchmark, select_speed

By = Literal["params", "macs"]

KNOB_RATIOS = (1 / 4, 8)  # the hidden width stays within these multiples of the width; 4 is natural
ROUND_STEPS = (8, 4, 2, 1)
NEIGHBORS = 4  # widths tried on each side of the target
SHORT_OPTIONS = {"k": "kernel_size", "p": "patch_size"}


@dataclass(frozen=True)
class BudgetMatch:
    """How a run met its budget: what was matched, the target, and the signed residual as a fraction of it."""

    by: str
    target: float | None = None  # params or MACs, training seconds per 1,000 images, MACs or seconds of a training
    residual: float | None = None
    head_dim: int | None = None
    tolerance: float | None = None  # of the residual, a fraction of the target


@dataclass(frozen=True)
class WidthMatch:
    """A backbone at a width that was tried for a budget."""

    spec: BackboneSpec
    value: float  # its cost: whole parameters, whole MACs, or seconds
    residual: float  # (value - target) / target


def options_set_by_budget(kind: type[BackboneSpec], match: MatchOptions) -> set[str]:
    """The model options that the budget decides; none where it doesn't solve widths."""
    return set(kind.width_options(match.head_dim, match.head_dim)) if match.solves_widths else set()


@dataclass
class WidthSolver:
    """Solves widths, and keeps the solutions and what benchmark files say."""

    _solved: dict[str, tuple[BackboneSpec, BudgetMatch]] = field(default_factory=dict)
    _paces: dict[str, dict[BackboneSpec, float]] = field(default_factory=dict)

    def solve(
        self, kind: type[BackboneSpec], values: Mapping[str, Any], match: MatchOptions, train: TrainOptions
    ) -> tuple[BackboneSpec, BudgetMatch]:
        """The specification at its own width, or at the width that meets the budget.

        Raises pydantic's ValidationError if the values make no model, UserError if it can't meet the budget.
        """
        recipe = [train.precision, train.batch_size] if match.by == "seconds" else []
        key = json.dumps([kind.backbone, values, match.model_dump(mode="json"), recipe], default=str)
        if key not in self._solved:
            if match.solves_widths:
                if not options_set_by_budget(kind, match):
                    rule = f"{kind.backbone} gives no width (`width_options`) that could meet a budget: match.by: none"
                    raise UserError(rule)
                template = kind.model_validate({**values, "dim": match.head_dim})
                self._solved[key] = self._meet_budget(template, match, train)
            else:
                self._solved[key] = kind.model_validate(values), BudgetMatch("none")
        return self._solved[key]

    def read_paces(self, match: MatchOptions, train: TrainOptions) -> Mapping[BackboneSpec, float]:
        """The pace of every measured specification, in training seconds per 1,000 images, as `_read_paces` finds it."""
        assert match.benchmark is not None
        key = json.dumps([match.benchmark, train.precision, train.batch_size])
        if key not in self._paces:
            self._paces[key] = _read_paces(Path(match.benchmark), train)
        return self._paces[key]

    def _meet_budget(
        self, template: BackboneSpec, match: MatchOptions, train: TrainOptions
    ) -> tuple[BackboneSpec, BudgetMatch]:
        tolerance, head_dim, target = match.tolerance, match.head_dim, match.target
        if match.by == "seconds":
            assert isinstance(target, int | float)
            measured = self.read_paces(match, train)
            solved = solve_seconds(template, measured=measured, target=target, tolerance=tolerance, head_dim=head_dim)
        else:
            assert match.by in ("params", "macs") and not isinstance(target, float | None)
            target = target if isinstance(target, int) else named_budget(target, by=match.by)
            solved = solve_width(template, by=match.by, target=target, tolerance=tolerance, head_dim=head_dim)
        return solved.spec, BudgetMatch(match.by, target, solved.residual, head_dim, tolerance)


def _read_paces(path: Path, train: TrainOptions) -> dict[BackboneSpec, float]:
    """The pace of every specification measured at the training's precision, and at its batch size or else the only one.

    Raises UserError naming what was measured if there is none.
    """
    benchmark = read_benchmark(path)
    by_architecture: dict[str, list[Speed]] = {}
    for speed in benchmark.architectures:
        if speed.precision == train.precision and speed.backbone in names():
            by_architecture.setdefault(architecture_key(speed.backbone, speed.model), []).append(speed)
    found = {
        get_spec_class(chosen.backbone).model_validate_json(json.dumps(chosen.model)): chosen.seconds_per_1000_images
        for speeds in by_architecture.values()
        if (chosen := select_speed(speeds, train.batch_size)) is not None
    }
    if not found:
        measured = sorted({f"{speed.precision} at batch size {speed.batch_size}" for speed in benchmark.architectures})
        wanted = f"{train.precision} at batch size {train.batch_size}"
        raise UserError(Problem(f"nothing was measured for {wanted}", choices=measured))
    return found


def solve_seconds(
    template: BackboneSpec, *, measured: Mapping[BackboneSpec, float], target: float, tolerance: float, head_dim: int
) -> WidthMatch:
    """The measured width of the template whose pace is nearest to the target, whatever its hidden width; no interpolation.

    Raises UserError naming what was measured of the backbone if none is within the tolerance, or none has heads of
    `head_dim` features.
    """
    own = {spec: pace for spec, pace in measured.items() if spec.backbone == template.backbone}
    matches = []
    for spec, pace in own.items():
        if spec.dim % template.width_step(head_dim) == 0:
            natural, fine = template.at_width(spec.dim, head_dim), spec.fine_width_option
            if spec == (natural if fine is None else natural.with_fine_width(getattr(spec, fine))):
                matches.append(WidthMatch(spec, value=pace, residual=(pace - target) / target))
    sizes = f"patch size {template.patch_size}, depth {template.depth}"
    choices = [
        f"{pace:.3g} (patch size {patch}, width {dim}, depth {depth})"
        for pace, patch, dim, depth in sorted((pace, spec.patch_size, spec.dim, spec.depth) for spec, pace in own.items())
    ]
    if not matches:
        rule = f"no width of {template.backbone} ({sizes}, heads of {head_dim}) has been measured"
        raise UserError(Problem(rule, choices=choices))
    nearest = min(matches, key=lambda match: (abs(match.residual), match.spec.dim))
    if abs(nearest.residual) > tolerance:
        rule = (
            f"{template.backbone} ({sizes}) was measured at no {target:,} training seconds per 1,000 images within "
            f"{tolerance:.1%}; the nearest is {nearest.value:.3g} at width {nearest.spec.dim} ({nearest.residual:+.1%})"
        )
        raise UserError(Problem(rule, value=target, choices=choices))
    return nearest


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
        f"{template.short_name} (patch size {template.patch_size}, depth {template.depth}) reaches no budget of {target:,} "
        f"{by} within {tolerance:.1%}; the nearest is {nearest.value:,} at width {nearest.spec.dim} ({nearest.residual:+.1%})"
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
    cost = find_cost(spec)
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
