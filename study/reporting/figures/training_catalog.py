"""How the runs of a study learned, and how flat the optimum of each option is that was tuned for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from study.analysis import labels
from study.analysis.findings import StudyPart
from study.analysis.tuning_choices import select_best_candidates
from study.reporting.figures.figure_spec import Plate, seeds_text
from study.reporting.figures.training_plots import PERCENT, learning_curves, tuning_flatness

TUNED = ("lr", "weight_decay", "label_smoothing", "warmup_epochs")
"""Options that are tuned and not studied; where a sweep varies them itself, a figure shows how flat their optimum is."""

LEARNED = ("val_accuracy", "train_loss")
"""What learning curves show: the first of these that was recorded."""


def training_plates(part: StudyPart, curves: pd.DataFrame) -> Iterator[Plate]:
    """Learning curves, and how flat the optimum of each tuned option is."""
    table, places, seeds = part.table, part.layout, seeds_text(part)
    along = labels.format_option(places.along)
    own = curves[curves["run_id"].isin(table["run_id"])]
    measure = next((name for name in LEARNED if name in own and own[name].notna().any()), None)
    if measure:
        name = labels.format_option(measure)
        yield Plate(
            "learning-curves",
            "Learning curves",
            f"{name.capitalize()} over epochs. Lines: mean over seeds; bands: lowest to highest seed; {seeds}."
            f"{' Axis spaced by the logarithm of the error.' if measure in PERCENT else ''}"
            f"{'' if measure == LEARNED[0] else unvalidated(table)}",
            f"{name.capitalize()} over epochs, one panel for each {along}.",
            lambda look: learning_curves(table, curves, places=places, measure=measure, look=look),
        )
    yield from trials_plates(part)
    yield from (tuning_plate(part, name) for name in places.panels if name in TUNED and table[name].notna().all())


def unvalidated(table: pd.DataFrame) -> str:
    """Why a figure of training shows no validation accuracy."""
    joint = "fit_on" in table and bool((table["fit_on"] == "train+val").any())
    why = "these runs were fitted on the validation images too" if joint else "none was recorded"
    return f" There are no validation curves: {why}."


def has_numbers(trials: pd.DataFrame, name: str) -> bool:
    """Whether the trials' levels of an option have a size, and some trial an accuracy to show over it."""
    column = trials[name]
    sized = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column) and column.notna().all()
    return bool(sized and trials["val_accuracy"].notna().any())


def trials_plates(part: StudyPart) -> Iterator[Plate]:
    """One figure for each tuned option whose levels are numbers."""
    yield from (trials_plate(part, name) for name in part.tuned if has_numbers(part.trials, name))


def trials_plate(part: StudyPart, tuned: str) -> Plate:
    """How flat the optimum of an option is that trials chose."""
    name, seeds = labels.format_option(tuned), part.trials["seed"].nunique()
    others = " and ".join(labels.format_option(other) for other in part.tuned if other != tuned)
    lost = int((part.trials["status"] == "diverged").sum())
    return Plate(
        f"tuning-{tuned.replace('_', '-')}",
        f"How flat the {name} is",
        f"Validation accuracy of the trials by {name}{f', each level at its best {others}' if others else ''}. "
        f"Rings: chosen; lines: mean over n = {seeds} seed{'s; bands: lowest to highest seed' if seeds > 1 else ''}"
        f"{f'; {lost} diverged trials are not shown' if lost else ''}.",
        f"Validation accuracy over the {name}, one panel for each {labels.format_option(part.layout.along)}; the table of what "
        "was tuned gives each choice.",
        lambda look: tuning_flatness(
            select_best_candidates(part.trials, part.tuned, over=tuned), tuned, places=part.layout, look=look
        ),
    )


def tuning_plate(part: StudyPart, tuned: str) -> Plate:
    """How flat the optimum of one option is."""
    name = labels.format_option(tuned)
    places = replace(part.layout, panels=tuple(other for other in part.layout.panels if other != tuned))
    return Plate(
        f"tuning-{tuned.replace('_', '-')}",
        f"How flat the {name} is",
        f"Validation accuracy by {name}. Lines: mean over seeds; bands: lowest to highest seed; {seeds_text(part)}.",
        f"Validation accuracy over the {name}, one panel for each {labels.format_option(places.along)}.",
        lambda look: tuning_flatness(part.table, tuned, places=places, look=look),
    )
