"""The stages of a study whose seeds are run as needed: which one is planned now, by the looks that were taken."""

from collections.abc import Mapping
from dataclasses import replace

from study.config.sweep import Sweep
from study.errors import Problem, UserError
from study.planning.planned_run import PlannedRun, describe_size
from study.planning.sweep_plan import Plan
from study.records.looks import TakenLook, check_looks, describe_design, read_looks
from study.records.record import OUTCOMES, Attempts
from study.records.sweep_folder import SweepFolder


def read_stage(sweep: Sweep, folder: SweepFolder) -> Sweep:
    """The sweep with the seeds of its current stage. Raises UserError if looks were taken of another design."""
    looks = read_looks(folder)
    design = describe_design(sweep.stages, sweep.effect_of_interest, sweep.comparison.contrasts)
    check_looks(looks, folder, design=design)
    if not looks or sweep.stages is None:
        return sweep
    stages = replace(sweep.stages, taken=len(looks), decided=not looks[-1].undecided)
    return replace(sweep, stages=stages, seeds=stages.seeds)


def check_stage(plan: Plan, folder: SweepFolder) -> None:
    """Raise UserError if the newest look saw other runs than the plan has with its seeds."""
    if (looks := read_looks(folder)) and plan.sweep.stages:
        seeds = range(plan.sweep.stages.sizes[len(looks) - 1])
        if {planned.run_id for planned in plan.finals if planned.run.seed in seeds} != looks[-1].runs.keys():
            rule = f"look {len(looks)} was taken of other runs than are planned now: give the changed sweep another name"
            raise UserError(Problem(f"{rule} (name=...)", str(folder.looks)))


def list_awaited(plan: Plan, recorded: Mapping[str, Attempts]) -> list[PlannedRun]:
    """The runs that still need an outcome before the plan goes on. A diverged run has one, a failed run hasn't."""
    finished = {run_id for run_id, attempts in recorded.items() if attempts.record.status in OUTCOMES}
    return [planned for planned in plan.awaited if planned.run_id not in finished]


def describe_next_stage(plan: Plan) -> str:
    """What the awaited runs of a plan are for."""
    if plan.pending:
        return f"the {len(plan.pending)} final runs"
    stages = plan.sweep.stages
    assert stages is not None
    return f"look {stages.following} of {len(stages.sizes)}, after which further seeds follow where a contrast is undecided"


def describe_look(look: TakenLook, plan: Plan) -> str:
    """What a look that was just taken of a plan's runs has decided, and what follows."""
    stages = plan.sweep.stages
    assert stages is not None
    total, undecided = len(look.contrasts), len(look.undecided)
    found = f"look {look.number} of {len(stages.sizes)}, after {len(plan.sweep.seeds)} seeds: {total - undecided} of {total} "
    found += "primary contrasts are decided"
    if not undecided:
        return f"{found}; no further seed is needed"
    return f"{found}; {'no further seed is planned' if look.number == len(stages.sizes) else 'further seeds follow'}"


def describe_stage(plan: Plan) -> list[str]:
    """Which look a plan's runs are for, and what may follow; nothing where seeds don't come in stages."""
    if (stages := plan.sweep.stages) is None:
        return []
    looks, every = len(stages.sizes), [each for each in plan.finals if each.run.seed == 0] * stages.sizes[-1]
    if stages.following is None:
        return [f"{'decided' if stages.decided else 'undecided'} at look {stages.taken} of {looks}: no seeds follow"]
    sizes = ", ".join(map(str, stages.sizes)) if looks < 8 else f"{stages.sizes[0]}, {stages.sizes[1]}, ..., {stages.sizes[-1]}"
    return [
        f"look {stages.following} of {looks} with {len(stages.seeds)} seeds; further ones follow until every primary contrast "
        f"is decided (looks with {sizes} seeds)",
        f"at most {len(plan.trials) + len(every):,} runs, {stages.sizes[-1]} seeds, {describe_size([*plan.trials, *every])}",
    ]
