"""From recorded trials to final runs: once every trial of a sweep has an outcome, the selection is made and kept.

A diverged trial is an outcome, the worst there is; a failed one is none and holds the selection up until it is retried.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby

from study.config.sweep import Sweep, Tuning
from study.planning.planned_run import PlannedRun
from study.planning.sweep_plan import Plan, make_plan
from study.records.record import OUTCOMES, Attempts, read_records
from study.records.selection import Candidate, Choice, Selection, choose, read_selection, trial_of, write_selection
from study.records.sweep_folder import SweepFolder

SHOWN = 8


def plan_so_far(sweep: Sweep, folder: SweepFolder) -> Plan:
    """The plan with what was selected already; its final runs are pending where nothing was."""
    return make_plan(sweep, read_selection(folder))


def with_selection(plan: Plan, folder: SweepFolder) -> Plan:
    """The plan with its final runs decided if all of its trials are recorded; writes the selection that decides them."""
    if not plan.pending:
        return plan
    selection = selection_of(plan, read_records(folder.records))
    if selection is None:
        return plan
    write_selection(folder, selection)
    return make_plan(plan.sweep, selection)


def selection_of(plan: Plan, recorded: Mapping[str, Attempts]) -> Selection | None:
    """What the recorded trials choose, or None as long as one of them has no outcome."""
    tuning = plan.sweep.tuning
    assert tuning is not None
    if unsettled(plan.trials, recorded):
        return None
    cells = {str(key): tuple(trials) for key, trials in groupby(plan.trials, key=lambda trial: trial.cell)}
    assert sum(map(len, cells.values())) == len(plan.trials) == len(cells) * tuning.trials_per_cell
    return Selection(
        axes={key: [level.value for level in levels] for key, levels in tuning.axes.items()},
        seeds=tuning.seeds,
        trials_per_cell=tuning.trials_per_cell,
        cells={key: choice_of(trials, recorded, tuning) for key, trials in cells.items()},
    )


def unsettled(trials: Iterable[PlannedRun], recorded: Mapping[str, Attempts]) -> list[PlannedRun]:
    """The trials without an outcome."""
    settled = {run_id for run_id, attempts in recorded.items() if attempts.record.status in OUTCOMES}
    return [trial for trial in trials if trial.run_id not in settled]


def choice_of(trials: tuple[PlannedRun, ...], recorded: Mapping[str, Attempts], tuning: Tuning) -> Choice:
    """The choice among one cell's trials, which stand candidate by candidate."""
    size = len(tuning.seeds)
    batches = [trials[start : start + size] for start in range(0, len(trials), size)]
    candidates = [
        Candidate(
            levels={key: batch[0].levels[key] for key in tuning.axes},
            trials=tuple(trial_of(recorded[trial.run_id].record) for trial in batch),
        )
        for batch in batches
    ]
    return choose(candidates, {key: level for key, level in trials[0].levels.items() if key not in tuning.axes})


def told(selection: Selection) -> list[str]:
    """What a user should know of a selection: its size, and choices that ask for a wider range or for care."""
    names = ", ".join(key.rpartition(".")[2] for key in selection.axes)
    trials = len(selection.cells) * selection.trials_per_cell
    lines = [f"selected {names} for {len(selection.cells)} cells from {trials} trials ({selection.trials_per_cell} per cell)"]
    edges = [
        f"{where(choice)}: {key.rpartition('.')[2]} {choice.chosen[key]}"
        for choice in selection.cells.values()
        for key in choice.at_edge
    ]
    lost = [where(choice) for choice in selection.cells.values() if choice.val_accuracy is None]
    for rule, cells in (("at the edge of what was tried", edges), ("every trial diverged", lost)):
        more = f", and {len(cells) - SHOWN} more" if len(cells) > SHOWN else ""
        lines += [f"{rule}: {'; '.join(cells[:SHOWN])}{more}"] if cells else []
    return lines


def where(choice: Choice) -> str:
    """The cell in a user's words: `backbone=vit patch_size=2`."""
    return " ".join(f"{key.rpartition('.')[2]}={level}" for key, level in choice.levels.items()) or "the only cell"
