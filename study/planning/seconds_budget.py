"""Equal seconds: widths chosen by the pace of specifications in a benchmark file.

A pace is in training seconds per 1,000 images, at the benchmark's batch size. It is looked up and never timed anew: a
second timing would give the same question other widths, and so other runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from study.backbones import get_spec_class, names
from study.backbones.specification import BackboneSpec
from study.config.options import TrainOptions
from study.errors import Problem, UserError
from study.planning.width_search import WidthMatch
from study.records.benchmark_file import Speed, architecture_key, read_benchmark, select_speed

UNIT = "training seconds per 1,000 images"


def read_paces(path: Path, train: TrainOptions) -> dict[BackboneSpec, float]:
    """The pace of every specification measured at the training's precision, and at its batch size or else the only one.

    Raises UserError naming what was measured if there is none.
    """
    benchmark = read_benchmark(path)
    by_architecture: dict[str, list[Speed]] = {}
    for speed in benchmark.architectures:
        if speed.precision == train.precision and speed.backbone in names():
            by_architecture.setdefault(architecture_key(speed.backbone, speed.model), []).append(speed)
    chosen = [select_speed(speeds, train.batch_size) for speeds in by_architecture.values()]
    found = {
        get_spec_class(speed.backbone).model_validate_json(json.dumps(speed.model)): speed.seconds_per_1000_images
        for speed in chosen
        if speed is not None
    }
    if not found:
        measured = sorted({f"{speed.precision} at batch size {speed.batch_size}" for speed in benchmark.architectures})
        wanted = f"{train.precision} at batch size {train.batch_size}"
        raise UserError(Problem(f"nothing was measured for {wanted}", choices=measured))
    return found


def solve_seconds(
    template: BackboneSpec, *, measured: Mapping[BackboneSpec, float], target: float, tolerance: float, head_dim: int
) -> WidthMatch:
    """The measured width of the template whose pace is nearest to the target; there is no interpolation.

    Raises UserError naming what was measured of the backbone if none is within the tolerance, or none has heads of
    `head_dim` features.
    """
    step = template.width_step(head_dim)
    matches = [
        WidthMatch(spec, value=pace, residual=(pace - target) / target)
        for spec, pace in measured.items()
        if spec.dim % step == 0 and _differs_in_widths_only(spec, template, head_dim=head_dim)
    ]
    sizes = f"patch size {template.patch_size}, depth {template.depth}"
    if not matches:
        rule = f"no width of {template.backbone} ({sizes}, heads of {head_dim}) has been measured"
        raise UserError(Problem(rule, choices=_list_measured(measured, template.backbone)))
    nearest = min(matches, key=lambda match: (abs(match.residual), match.spec.dim))
    if abs(nearest.residual) > tolerance:
        rule = (
            f"{template.backbone} ({sizes}) was measured at no {target:,} {UNIT} within {tolerance:.1%}; the nearest is "
            f"{nearest.value:.3g} at width {nearest.spec.dim} ({nearest.residual:+.1%})"
        )
        raise UserError(Problem(rule, value=target, choices=_list_measured(measured, template.backbone)))
    return nearest


def _differs_in_widths_only(spec: BackboneSpec, template: BackboneSpec, *, head_dim: int) -> bool:
    """Whether `spec` is the template at its width, whatever its hidden width."""
    if spec.backbone != template.backbone:
        return False
    natural, fine = template.at_width(spec.dim, head_dim), spec.fine_width_option
    return spec == (natural if fine is None else natural.with_fine_width(getattr(spec, fine)))


def _list_measured(measured: Mapping[BackboneSpec, float], backbone: str) -> list[str]:
    """What was measured of a backbone, fastest first."""
    found = sorted(
        (pace, spec.patch_size, spec.dim, spec.depth) for spec, pace in measured.items() if spec.backbone == backbone
    )
    return [f"{pace:.3g} (patch size {patch}, width {dim}, depth {depth})" for pace, patch, dim, depth in found]
