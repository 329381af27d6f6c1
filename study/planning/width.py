"""The width of a cell's backbone: as the sweep gives it, or as its budget decides.

Equal seconds are met by the pace of specifications in a benchmark file: training seconds per 1,000 images, at the benchmark's
batch size. A pace is looked up and never timed anew: a second timing would give the same question other widths, and so
other runs.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from study.backbones import get_spec_class, names
from study.backbones.specification import BackboneSpec
from study.config.options import MatchOptions, TrainOptions
from study.errors import Problem, UserError
from study.planning.width_search import WidthMatch, named_budget, solve_width
from study.records.benchmark_file import Speed, architecture_key, read_benchmark, select_speed


@dataclass(frozen=True)
class BudgetMatch:
    """How a run met its budget: what was matched, the target, and the signed residual as a fraction of it."""

    by: str
    target: float | None = None  # params or MACs (whole numbers), or training seconds per 1,000 images
    residual: float | None = None
    head_dim: int | None = None
    tolerance: float | None = None  # of the residual, a fraction of the target


def options_set_by_budget(kind: type[BackboneSpec], match: MatchOptions) -> set[str]:
    """The model options that the budget decides; none where there is no budget."""
    return set() if match.by == "none" else set(kind.width_options(match.head_dim, match.head_dim))


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
            if match.by == "none":
                self._solved[key] = kind.model_validate(values), BudgetMatch("none")
            else:
                template = kind.model_validate({**values, "dim": match.head_dim})
                self._solved[key] = self._meet_budget(template, match, train)
        return self._solved[key]

    def _meet_budget(
        self, template: BackboneSpec, match: MatchOptions, train: TrainOptions
    ) -> tuple[BackboneSpec, BudgetMatch]:
        tolerance, head_dim, target = match.tolerance, match.head_dim, match.target
        if match.by == "seconds":
            assert isinstance(target, int | float) and match.benchmark is not None
            key = json.dumps([match.benchmark, train.precision, train.batch_size])
            if key not in self._paces:
                self._paces[key] = _read_paces(Path(match.benchmark), train)
            measured = self._paces[key]
            solved = solve_seconds(template, measured=measured, target=target, tolerance=tolerance, head_dim=head_dim)
        else:
            assert match.by != "none" and not isinstance(target, float | None)
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
