"""Equal seconds: widths chosen by the pace that a benchmark file gives to specifications.

A pace is counted in training seconds per 1,000 images, at the benchmark's batch size. It is looked up and never timed
afresh: a second timing would give other widths, and so other runs, to the same question.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from study.backbones import get_spec_class, names
from study.backbones.specification import BackboneSpec
from study.config.options import MatchOptions, TrainOptions
from study.errors import Problem, UserError
from study.planning.width_search import Match, Unreachable, solve_seconds
from study.records.benchmark_file import Benchmark, Speed, architecture_key, at_batch_size

UNIT = "training seconds per 1,000 images"


def paces(benchmark: Benchmark, train: TrainOptions) -> dict[BackboneSpec, float]:
    """The pace of every specification that was measured for such a training: at its precision, and at its batch size or
    else the only one. UserError, naming what was measured, where there is none."""
    by_architecture: dict[str, list[Speed]] = {}
    for speed in benchmark.architectures:
        if speed.precision == train.precision and speed.backbone in names():
            by_architecture.setdefault(architecture_key(speed.backbone, speed.model), []).append(speed)
    chosen = [at_batch_size(speeds, train.batch_size) for speeds in by_architecture.values()]
    found = {_specification(speed): speed.seconds_per_1000_images for speed in chosen if speed is not None}
    if not found:
        there = sorted({f"{speed.precision} at batch size {speed.batch_size}" for speed in benchmark.architectures})
        wanted = f"{train.precision} at batch size {train.batch_size}"
        raise UserError(Problem(f"nothing was measured for {wanted}", choices=there))
    return found


def solve_pace(template: BackboneSpec, *, measured: Mapping[BackboneSpec, float], match: MatchOptions) -> Match:
    """The measured width of the template whose pace comes nearest to the target; UserError, naming what was measured of
    the backbone, where none comes within the tolerance."""
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
        raise UserError(Problem(rule, value=match.target, choices=_told(measured, template.backbone))) from None
    except UserError as error:
        rules = (problem.rule for problem in error.problems)
        raise UserError(*(Problem(rule, choices=_told(measured, template.backbone)) for rule in rules)) from None


def _specification(speed: Speed) -> BackboneSpec:
    return get_spec_class(speed.backbone).model_validate_json(json.dumps(speed.model))


def _told(measured: Mapping[BackboneSpec, float], backbone: str) -> list[str]:
    """What was measured of a backbone, fastest first."""
    found = sorted(
        (pace, spec.patch_size, spec.dim, spec.depth) for spec, pace in measured.items() if spec.backbone == backbone
    )
    return [f"{pace:.3g} (patch size {patch}, width {dim}, depth {depth})" for pace, patch, dim, depth in found]
