"""The hyperparameters that tuning selected for every cell, and their trials: `runs/<sweep>/selection.json`, immutable.

Where each seed tunes for itself, every pair of cell and final seed has its own choice, as if it were a cell.

A cell's candidates are the combinations of the tuned levels, each trained with every seed of `tune.seeds`. Selected is the
candidate with the fewest diverged trials, among those the one with the highest mean validation accuracy, then the lowest
mean validation loss, then the first in the sweep's order.
"""

import math
import os
from collections.abc import Mapping, Sequence

from pydantic import Field, JsonValue

from study.config.documents import Accuracy, Positive, read_document
from study.config.formats import FORMAT
from study.config.options import Options
from study.records.record import Record, Status
from study.records.sweep_folder import SweepFolder, write_new


class Trial(Options):
    """The outcome of one trial; a diverged one has neither accuracy nor loss."""

    run_id: str
    seed: int
    status: Status
    val_accuracy: Accuracy | None
    val_loss: Positive | None

    @staticmethod
    def from_record(record: Record) -> "Trial":
        return Trial(
            run_id=record.run_id,
            seed=record.run["seed"],
            status=record.status,
            val_accuracy=record.result.val_accuracy,
            val_loss=record.result.val_loss,
        )


class Candidate(Options):
    """One combination of tuned levels with its trials."""

    levels: dict[str, JsonValue]
    trials: tuple[Trial, ...] = Field(min_length=1)

    @property
    def diverged(self) -> int:
        return sum(trial.status == "diverged" for trial in self.trials)

    @property
    def val_accuracy(self) -> float | None:
        """The mean over the trials that have one; None if none has."""
        return _mean([trial.val_accuracy for trial in self.trials if trial.val_accuracy is not None])

    @property
    def val_loss(self) -> float | None:
        """The mean over the trials that have one; None if none has."""
        return _mean([trial.val_loss for trial in self.trials if trial.val_loss is not None])

    def ranking_key(self) -> tuple[float, float, float]:
        """Diverged trials, then accuracy, then loss: the smallest key is the best."""
        accuracy, loss = self.val_accuracy, self.val_loss
        return self.diverged, math.inf if accuracy is None else -accuracy, math.inf if loss is None else loss


class Choice(Options):
    """The selected options of one cell's final runs."""

    levels: dict[str, JsonValue]  # of the cell's factors
    chosen: dict[str, JsonValue]
    val_accuracy: Accuracy | None  # of the selected candidate; None if all of its trials diverged
    tied: int  # other candidates with as many diverged trials and the same accuracy
    at_edge: tuple[str, ...]  # tuned options selected at the boundary of their search range
    candidates: tuple[Candidate, ...]
    for_seed: int | None = None  # the only final seed that the choice holds for; None: all of the cell


class Selection(Options):
    """The choices of a sweep by the name of a cell, or of a cell and seed, with their trials."""

    axes: dict[str, list[JsonValue]]
    seeds: tuple[int, ...]
    trials_per_cell: int  # of one choice
    cells: dict[str, Choice]
    added: tuple[dict[str, list[JsonValue]], ...] = ()  # the levels of `axes` that each round of widening added
    format: int = FORMAT

    def chosen_trials(self) -> set[str]:
        """The run ids of the trials of the selected candidates."""
        return {
            trial.run_id
            for choice in self.cells.values()
            for candidate in choice.candidates
            if candidate.levels == choice.chosen
            for trial in candidate.trials
        }


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def choose(candidates: Sequence[Candidate], levels: Mapping[str, JsonValue], *, for_seed: int | None = None) -> Choice:
    """Select one of a cell's candidates, given in the sweep's order."""
    best = min(candidates, key=Candidate.ranking_key)
    rank = best.ranking_key()[:2]
    tied = [other for other in candidates if other is not best and other.ranking_key()[:2] == rank]
    tried = {key: [candidate.levels[key] for candidate in candidates] for key in best.levels}
    return Choice(
        levels=dict(levels),
        chosen=best.levels,
        val_accuracy=best.val_accuracy,
        tied=len(tied),
        at_edge=tuple(key for key, values in tried.items() if is_at_boundary(best.levels[key], values)),
        candidates=tuple(candidates),
        for_seed=for_seed,
    )


def is_at_boundary(chosen: JsonValue, tried: Sequence[JsonValue]) -> bool:
    """Whether a level is the minimum or maximum of several numeric levels, so that a better one may be outside."""
    numbers = [value for value in tried if isinstance(value, int | float) and not isinstance(value, bool)]
    return len(numbers) == len(tried) and len(set(numbers)) > 1 and chosen in (min(numbers), max(numbers))


def write_selection(folder: SweepFolder, selection: Selection) -> None:
    """Write the selection. UserError if there is another one."""
    write_new(folder.selection, selection.model_dump(mode="json"))


def read_selection(folder: SweepFolder) -> Selection | None:
    """The sweep's selection, or None before it is made. Raises UserError if the file is no selection."""
    hint = "restore it, or move it away and launch again, which selects anew from the same trials"
    return read_document(folder.selection, Selection, hint=hint) if os.path.lexists(folder.selection) else None
