"""From recorded trials to final runs: once every trial of a sweep has an outcome, the selection is made and saved.

A diverged trial is an outcome, the worst there is. A failed one is not, and delays the selection until it is retried.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

from study.config.sweep import Sweep, Tuning
from study.errors import and_more
from study.planning.planned_run import PlannedRun
from study.planning.sweep_plan import Plan, make_plan
from study.records.record import OUTCOMES, Attempts, read_records
from study.records.selection import Candidate, Choice, Selection, Trial, choose, read_selection, write_selection
from study.records.sweep_folder import SweepFolder

SHOWN_CELLS = 8


def make_plan_so_far(sweep: Sweep, folder: SweepFolder) -> Plan:
    """The plan with the saved selection; without one, its final runs are pending."""
    return make_plan(sweep, read_selection(folder))


def make_selected_plan(plan: Plan, folder: SweepFolder) -> Plan:
    """The plan with its final runs decided, if all of its trials have an outcome; the selection is saved."""
    tuning, recorded = plan.sweep.tuning, read_records(folder.records) if plan.pending else {}
    if tuning is None or not plan.pending or trials_without_outcome(plan, recorded):
        return plan
    cells = {str(key): tuple(trials) for key, trials in groupby(plan.trials, key=lambda trial: trial.cell)}
    assert sum(map(len, cells.values())) == len(plan.trials) == len(cells) * tuning.trials_per_cell
    selection = Selection(
        axes={key: [level.value for level in levels] for key, levels in tuning.axes.items()},
        seeds=tuning.seeds,
        trials_per_cell=tuning.trials_per_cell,
        cells={key: _choose_for_cell(trials, recorded, tuning) for key, trials in cells.items()},
    )
    write_selection(folder, selection)
    return make_plan(plan.sweep, selection)


def trials_without_outcome(plan: Plan, recorded: Mapping[str, Attempts]) -> list[PlannedRun]:
    finished = {run_id for run_id, attempts in recorded.items() if attempts.record.status in OUTCOMES}
    return [trial for trial in plan.trials if trial.run_id not in finished]


def _choose_for_cell(trials: tuple[PlannedRun, ...], recorded: Mapping[str, Attempts], tuning: Tuning) -> Choice:
    """The choice among one cell's trials, which are in the order of the candidates."""
    candidates = []
    for start in range(0, len(trials), len(tuning.seeds)):
        batch = trials[start : start + len(tuning.seeds)]
        outcomes = tuple(Trial.from_record(recorded[trial.run_id].record) for trial in batch)
        candidates.append(Candidate(levels={key: batch[0].levels[key] for key in tuning.axes}, trials=outcomes))
    return choose(candidates, {key: level for key, level in trials[0].levels.items() if key not in tuning.axes})


def describe_selection(selection: Selection) -> list[str]:
    """Lines about a selection: its size, and choices that ask for a wider range or for care."""
    names = ", ".join(key.rpartition(".")[2] for key in selection.axes)
    trials = len(selection.cells) * selection.trials_per_cell
    lines = [f"selected {names} for {len(selection.cells)} cells from {trials} trials ({selection.trials_per_cell} per cell)"]
    at_edge, diverged = [], []
    for choice in selection.cells.values():
        cell = " ".join(f"{key.rpartition('.')[2]}={level}" for key, level in choice.levels.items()) or "the only cell"
        at_edge += [f"{cell}: {key.rpartition('.')[2]} {choice.chosen[key]}" for key in choice.at_edge]
        diverged += [cell] if choice.val_accuracy is None else []
    for rule, cells in (("at the boundary of the search range", at_edge), ("every trial diverged", diverged)):
        lines += [f"{rule}: {'; '.join(and_more(cells, SHOWN_CELLS))}"] if cells else []
    return lines
