"""Matched training: the epochs at which an architecture's whole training costs what the study allows.

Trainings are counted in whole optimizer steps, so epochs are a fraction where the budget ends within one. The MACs of a
training are those of its steps: three forward passes per image. Its seconds are those of a benchmark file's training steps,
without augmentation, validation and start-up, which no architecture changes.
"""

from study.backbones.specification import BackboneSpec
from study.config.options import MatchOptions, TrainOptions
from study.errors import Problem, UserError
from study.planning.traced_cost import find_cost
from study.planning.width import BudgetMatch, WidthSolver


def solve_epochs(
    spec: BackboneSpec, match: MatchOptions, train: TrainOptions, *, images: int, solver: WidthSolver
) -> tuple[float, BudgetMatch]:
    """The epochs, of `images` each, of the fewest steps that are within the tolerance of a budget of training.

    Raises UserError where no number of steps is, or where the benchmark file lacks the architecture.
    """
    assert match.solves_epochs and isinstance(match.target, int | float)
    if match.by == "training_macs":
        step_cost: float = train.batch_size * find_cost(spec).training_macs
    else:
        step_cost = train.batch_size * _find_pace(spec, match, train, solver) / 1000
    steps, target = count_steps_within(match.tolerance, step_cost, float(match.target)), match.target
    residual = steps * step_cost / target - 1
    if residual > match.tolerance:
        size = f"patch size {spec.patch_size}, depth {spec.depth}, width {spec.dim}"
        unit = "MACs" if match.by == "training_macs" else "seconds"
        rule = f"no number of training steps of {spec.short_name} ({size}), each of {step_cost:,.6g} {unit}, is within"
        raise UserError(Problem(f"{rule} {100 * match.tolerance:g}% of this budget", value=target))
    return steps / (images // train.batch_size), BudgetMatch(match.by, float(target), residual, tolerance=match.tolerance)


def count_steps_within(tolerance: float, step_cost: float, target: float) -> int:
    """The fewest steps, at least one, that fall short of the target by no more than the tolerance, a fraction of it."""
    steps = max(1, int((1 - tolerance) * target / step_cost) - 1)  # rounding may have gone either way
    while steps * step_cost / target - 1 < -tolerance:
        steps += 1
    return steps


def _find_pace(spec: BackboneSpec, match: MatchOptions, train: TrainOptions, solver: WidthSolver) -> float:
    """The training seconds per 1,000 images of exactly this architecture."""
    measured = solver.read_paces(match, train)
    if spec not in measured:
        sizes = {one: f"patch size {one.patch_size}, width {one.dim}, depth {one.depth}" for one in (spec, *measured)}
        own = sorted({sizes[one] for one in measured if one.backbone == spec.backbone})
        rule = f"{spec.backbone} ({sizes[spec]}) has not been measured with all of its options"
        raise UserError(Problem(rule, choices=own))
    return measured[spec]
