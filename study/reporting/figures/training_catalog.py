"""The figures about training: learning curves, and the sensitivity to each tuned option."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pandas as pd

from study.analysis import labels
from study.analysis.factor_layout import FactorLayout
from study.analysis.findings import StudyPart
from study.analysis.tuning_choices import select_best_candidates
from study.reporting.figures.excerpts import excerpt_study
from study.reporting.figures.figure_spec import FigureSpec, describe_n
from study.reporting.figures.training_plots import ACCURACY_CURVES, plot_learning_curves, plot_sensitivity

_TUNED = ("lr", "weight_decay", "label_smoothing", "warmup_epochs")
"""Options that are tuned rather than studied; where a sweep varies them itself, a figure shows the sensitivity to them."""

_LEARNED = ("val_accuracy", "train_loss")
"""What learning curves show: the first of these that was recorded."""


def list_training_figures(part: StudyPart, curves: pd.DataFrame) -> Iterator[FigureSpec]:
    """Learning curves, and the sensitivity to each tuned option."""
    table, layout = part.table, part.layout
    own = curves[curves["run_id"].isin(table["run_id"])]
    measure = next((name for name in _LEARNED if name in own and own[name].notna().any()), None)
    if measure:
        name = labels.format_option(measure).capitalize()
        shown = excerpt_study(table, (layout.along, *layout.panels), layout.series)
        yield FigureSpec(
            "learning-curves",
            "Learning curves",
            f"{name} over epochs. Lines: mean over seeds; bands: lowest to highest seed; {describe_n(part)}."
            f"{' Vertical axis: log scale of the error.' if measure in ACCURACY_CURVES else ''}"
            f"{'' if measure == _LEARNED[0] else _explain_missing_validation(table)}{shown.note}",
            f"{name} over epochs, one panel for each {labels.format_option(layout.along)}.",
            partial(plot_learning_curves, shown.table, curves, layout=layout, measure=measure),
        )
    yield from list_trial_figures(part)
    for tuned in layout.panels:
        if tuned in _TUNED and table[tuned].notna().all():
            others = replace(layout, panels=tuple(name for name in layout.panels if name != tuned))
            caption = (
                f"by {labels.format_option(tuned)}. Lines: mean over seeds; bands: lowest to highest seed; {describe_n(part)}"
            )
            yield _specify_sensitivity(tuned, caption, runs=table, layout=others)


def _explain_missing_validation(table: pd.DataFrame) -> str:
    joint = "fit_on" in table and bool((table["fit_on"] == "train+val").any())
    why = "these runs were trained on the validation images as well" if joint else "none was recorded"
    return f" There are no validation curves: {why}."


def list_trial_figures(part: StudyPart) -> Iterator[FigureSpec]:
    """One figure for each tuned option whose levels are numbers, if some trial has an accuracy."""
    for name in part.tuned:
        column = part.trials[name]
        numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
        if numeric and column.notna().all() and part.trials["val_accuracy"].notna().any():
            yield _specify_trials(part, name)


def _specify_trials(part: StudyPart, tuned: str) -> FigureSpec:
    seeds = part.trials["seed"].nunique()
    others = " and ".join(labels.format_option(other) for other in part.tuned if other != tuned)
    diverged = int((part.trials["status"] == "diverged").sum())
    caption = (
        f"of the trials by {labels.format_option(tuned)}{f', each level at its best {others}' if others else ''}. Circles: "
        f"selected; lines: mean over n = {seeds} seed{'s; bands: lowest to highest seed' if seeds > 1 else ''}"
        f"{f'; {diverged} diverged trials are not shown' if diverged else ''}"
    )
    best = select_best_candidates(part.trials, part.tuned, over=tuned)
    return _specify_sensitivity(tuned, caption, runs=best, layout=part.layout)


def _specify_sensitivity(tuned: str, caption: str, *, runs: pd.DataFrame, layout: FactorLayout) -> FigureSpec:
    name, shown = labels.format_option(tuned), excerpt_study(runs, (layout.along, *layout.panels), layout.series)
    return FigureSpec(
        f"tuning-{tuned.replace('_', '-')}",
        f"Sensitivity to {name}",
        f"Validation accuracy {caption}.{shown.note}",
        f"Validation accuracy over the {name}, one panel for each {labels.format_option(layout.along)}.",
        partial(plot_sensitivity, shown.table, tuned, layout=layout),
    )
