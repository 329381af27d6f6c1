"""What tuning chose for every cell, and from what: `runs/<sweep>/selection.json`, written once and never changed.

A cell's candidates are the combinations of the tuned levels, each tried with every seed of `tune.seeds`. Chosen is the
candidate with the fewest diverged trials, among those the one with the highest mean validation accuracy, then the lowest
mean validation loss, then the first in the sweep's order. Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pydantic import Field, JsonValue

from study.config.formats import FORMAT, upgrade_text
from study.config.options import Options
from study.errors import Problem, UserError
from study.records.record import Record, Status
from study.records.sweep_folder import SweepFolder, write_new


class Trial(Options):
    """The outcome of one trial; of a diverged one neither accuracy nor loss is known."""

    run_id: str
    seed: int
    status: Status
    val_accuracy: float | None
    val_loss: float | None


class Candidate(Options):
    """One combination of tuned levels with its trials."""

    levels: dict[str, JsonValue]
    trials: tuple[Trial, ...] = Field(min_length=1)

    @property
    def diverged(self) -> int:
        return sum(trial.status == "diverged" for trial in self.trials)

    @property
    def val_accuracy(self) -> float | None:
        """The mean over the trials that came to an accuracy; None where none did."""
        return mean([trial.val_accuracy for trial in self.trials if trial.val_accuracy is not None])

    @property
    def val_loss(self) -> float | None:
        """The mean over the trials that came to a loss; None where none did."""
        return mean([trial.val_loss for trial in self.trials if trial.val_loss is not None])

    def merit(self) -> tuple[float, float, float]:
        """Less is better: diverged trials, then accuracy, then loss."""
        accuracy, loss = self.val_accuracy, self.val_loss
        return self.diverged, math.inf if accuracy is None else -accuracy, math.inf if loss is None else loss


class Choice(Options):
    """What one cell's final runs are trained with."""

    levels: dict[str, JsonValue]  # of the cell, on the sweep's axes
    chosen: dict[str, JsonValue]
    val_accuracy: float | None  # of the chosen candidate; None where all of its trials diverged
    tied: int  # other candidates with as many diverged trials and the same accuracy
    at_edge: tuple[str, ...]  # tuned options whose chosen level is the least or the greatest tried
    candidates: tuple[Candidate, ...]


class Selection(Options):
    """The choices of a sweep by the cell's key, with the trials they rest on."""

    axes: dict[str, list[JsonValue]]
    seeds: tuple[int, ...]
    trials_per_cell: int
    cells: dict[str, Choice]
    format: int = FORMAT

    def chosen_trials(self) -> set[str]:
        """The run ids of the trials whose levels were chosen."""
        return {
            trial.run_id
            for choice in self.cells.values()
            for candidate in choice.candidates
            if candidate.levels == choice.chosen
            for trial in candidate.trials
        }


def mean(values: Sequence[float]) -> float | None:
    """The mean, or None of no values."""
    return math.fsum(values) / len(values) if values else None


def trial_of(record: Record) -> Trial:
    """What a trial's record says of it."""
    result = record.result
    return Trial(
        run_id=record.run_id,
        seed=record.run["seed"],
        status=record.status,
        val_accuracy=result.get("val_accuracy"),
        val_loss=result.get("val_loss"),
    )


def choose(candidates: Sequence[Candidate], levels: Mapping[str, JsonValue]) -> Choice:
    """The choice among a cell's candidates, given in the sweep's order."""
    best = min(candidates, key=Candidate.merit)
    tied = [other for other in candidates if other is not best and other.merit()[:2] == best.merit()[:2]]
    tried = {key: [candidate.levels[key] for candidate in candidates] for key in best.levels}
    return Choice(
        levels=dict(levels),
        chosen=best.levels,
        val_accuracy=best.val_accuracy,
        tied=len(tied),
        at_edge=tuple(key for key, values in tried.items() if at_edge(best.levels[key], values)),
        candidates=tuple(candidates),
    )


def at_edge(chosen: JsonValue, tried: Sequence[JsonValue]) -> bool:
    """Whether a better level may lie beyond those tried: the chosen one is the least or the greatest of several."""
    numbers = [value for value in tried if isinstance(value, int | float) and not isinstance(value, bool)]
    return len(numbers) == len(tried) and len(set(numbers)) > 1 and chosen in (min(numbers), max(numbers))


def write_selection(folder: SweepFolder, selection: Selection) -> None:
    """Keeps the selection for good; an assertion if another one is there."""
    write_new(folder.selection, selection.model_dump(mode="json"))


def read_selection(folder: SweepFolder) -> Selection | None:
    """The sweep's selection, or None before it is made; UserError where the file is something else."""
    try:
        return Selection.model_validate_json(upgrade_text(folder.selection.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except ValueError:
        raise UserError(Problem("this file is no selection of this version of the project", str(folder.selection))) from None
