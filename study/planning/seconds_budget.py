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
from study.config.options import MatchOptions, TrainOptions
from study.errors import Problem, UserError
from study.planning.width_search import Unreachable, WidthMatch, solve_seconds
from study.records.benchmark_file import Speed, architecture_key, at_batch_size, read_benchmark

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
    chosen = [at_batch_size(speeds, train.batch_size) for speeds in by_architecture.values()]
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


def solve_pace(template: BackboneSpec, *, measured: Mapping[BackboneSpec, float], match: MatchOptions) -> WidthMatch:
    """The measured width of the template whose pace is nearest to the target.

    Raises UserError naming what was measured of the backbone if none is within the tolerance.
    """
    assert isinstance(match.target, int | float)
    try:
        return solve_seconds(
            template, measured=measured, target=match.target, tolerance=match.tolerance, head_dim=match.head_dim
        )
    except Unreachable as error:
        nearest = error.nearest
        rule = (
            f"{template.backbone} (patch size {template.patch_size}, depth {template.depth}) was measured at no "
            f"{match.target:,} {UNIT} within {match.tolerance:.1%}; the nearest is {nearest.value:.3g} at width "
            f"{nearest.spec.dim} ({nearest.residual:+.1%})"
        )
        raise UserError(Problem(rule, value=match.target, choices=_list_measured(measured, template.backbone))) from None
    except UserError as error:
        rules = (problem.rule for problem in error.problems)
        raise UserError(*(Problem(rule, choices=_list_measured(measured, template.backbone)) for rule in rules)) from None


def _list_measured(measured: Mapping[BackboneSpec, float], backbone: str) -> list[str]:
    """What was measured of a backbone, fastest first."""
    found = sorted(
        (pace, spec.patch_size, spec.dim, spec.depth) for spec, pace in measured.items() if spec.backbone == backbone
    )
    return [f"{pace:.3g} (patch size {patch}, width {dim}, depth {depth})" for pace, patch, dim, depth in found]
