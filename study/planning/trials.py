"""From recorded trials to final runs: once every trial of a sweep has an outcome, the selection is made and saved.

Before that, ranges with a best candidate at an end are widened, which makes another round of trials. A diverged trial is an
outcome, the worst there is. A failed one is not, and delays what follows until it is retried.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby

from study.config.sweep import Sweep, Tuning
from study.errors import and_more
from study.planning.planned_run import PlannedRun
from study.planning.search_ranges import MAX_ROUNDS, restore_ranges, widen_ranges
from study.planning.stages import check_stage, list_awaited, read_stage
from study.planning.sweep_plan import Plan, make_plan
from study.records.columns import spell_level
from study.records.record import Attempts, read_records
from study.records.selection import Candidate, Choice, Selection, Trial, choose, read_selection, write_selection
from study.records.sweep_folder import SweepFolder

SHOWN_CELLS = 8


def make_plan_so_far(sweep: Sweep, folder: SweepFolder) -> Plan:
    """The plan with the saved selection and the seeds that the looks so far ask for.

    Without a selection, final runs are pending and trials are those of the current round.
    """
    sweep, selection = read_stage(sweep, folder), read_selection(folder)
    if selection is not None:
        plan = make_plan(restore_ranges(sweep, selection), selection)
    else:
        plan = _plan_next_rounds(make_plan(sweep), read_records(folder.records) if sweep.tuning else {})
    check_stage(plan, folder)
    return plan


def make_selected_plan(plan: Plan, folder: SweepFolder) -> Plan:
    """What follows when all trials of the plan have an outcome; the plan itself before that.

    That is a plan with wider ranges, or one with its final runs decided, whose selection is saved then. Both follow from the
    records alone: a launch that is killed anywhere comes to the same plans when it is repeated.
    """
    recorded = read_records(folder.records) if plan.pending else {}
    plan = _plan_next_rounds(plan, recorded)
    tuning = plan.sweep.tuning
    if tuning is None or not plan.pending or list_awaited(plan, recorded):
        return plan
    selection = Selection(
        axes={key: [level.value for level in levels] for key, levels in tuning.axes.items()},
        seeds=tuning.seeds,
        trials_per_cell=tuning.trials_per_choice,
        cells=_choose_for_cells(plan, recorded, tuning),
        added=tuple({key: [level.value for level in levels] for key, levels in new.items()} for new in tuning.added),
    )
    write_selection(folder, selection)
    return make_plan(plan.sweep, selection)


def _plan_next_rounds(plan: Plan, recorded: Mapping[str, Attempts]) -> Plan:
    """The plan with its ranges widened as often as the outcomes of its trials ask for; the same plan if they don't."""
    while plan.pending and plan.sweep.tuning and not list_awaited(plan, recorded):
        choices = _choose_for_cells(plan, recorded, plan.sweep.tuning).values()
        wider = widen_ranges(plan.sweep, choices)
        if wider is None:
            break
        plan = make_plan(replace(plan.sweep, tuning=wider))
    return plan


def _choose_for_cells(plan: Plan, recorded: Mapping[str, Attempts], tuning: Tuning) -> dict[str, Choice]:
    cells = {str(key): tuple(trials) for key, trials in groupby(plan.trials, key=lambda trial: trial.cell)}
    assert sum(map(len, cells.values())) == len(plan.trials) == len(cells) * tuning.trials_per_choice
    return {key: _choose_for_cell(trials, recorded, tuning) for key, trials in cells.items()}


def _choose_for_cell(trials: tuple[PlannedRun, ...], recorded: Mapping[str, Attempts], tuning: Tuning) -> Choice:
    """The choice among one cell's trials, which are in the order of the candidates."""
    candidates = []
    for start in range(0, len(trials), len(tuning.seeds)):
        batch = trials[start : start + len(tuning.seeds)]
        outcomes = tuple(Trial.from_record(recorded[trial.run_id].record) for trial in batch)
        candidates.append(Candidate(levels={key: batch[0].levels[key] for key in tuning.axes}, trials=outcomes))
    levels = {key: level for key, level in trials[0].levels.items() if key not in tuning.axes}
    return choose(candidates, levels, for_seed=trials[0].for_seed)


def describe_round(tuning: Tuning) -> str:
    """Why and by which levels the newest round widened the ranges."""
    new = [
        f"{key.rpartition('.')[2]} by {' and '.join(str(level.value) for level in levels)}"
        for key, levels in tuning.added[-1].items()
    ]
    count = f"round {len(tuning.added)} of at most {MAX_ROUNDS}"
    return f"a best candidate was at the end of its range: widened {', '.join(new)} for all cells ({count})"


def describe_selection(selection: Selection) -> list[str]:
    """Lines about a selection: its size, and choices that ask for a wider range or for care."""
    names = ", ".join(key.rpartition(".")[2] for key in selection.axes)
    trials = len(selection.cells) * selection.trials_per_cell
    seeds = "" if all(choice.for_seed is None for choice in selection.cells.values()) else " and seed"
    count = f"{len(selection.cells)} {'pairs of cell and seed' if seeds else 'cells'}"
    lines = [f"selected {names} for {count} from {trials} trials ({selection.trials_per_cell} per cell{seeds})"]
    at_edge, diverged = [], []
    for choice in selection.cells.values():
        cell = (
            " ".join(f"{key.rpartition('.')[2]}={spell_level(level)}" for key, level in choice.levels.items())
            or "the only cell"
        )
        cell += "" if choice.for_seed is None else f" seed={choice.for_seed}"
        at_edge += [f"{cell}: {key.rpartition('.')[2]} {choice.chosen[key]}" for key in choice.at_edge]
        diverged += [cell] if choice.val_accuracy is None else []
    for rule, cells in (("at the boundary of the search range", at_edge), ("every trial diverged", diverged)):
        lines += [f"{rule}: {'; '.join(and_more(cells, SHOWN_CELLS))}"] if cells else []
    return lines
