"""Which figures a study has, in the order of the report: each with its file name, title, caption, and how it is drawn.

A figure is left out where the study has nothing for it. Captions carry n, so that a figure that has been cut out of the
report still says how many runs it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from study.reporting import wording
from study.reporting.costs import costs_of, is_equal, positive
from study.reporting.figures.accuracy import accuracy_by_level, heat_map
from study.reporting.figures.budget import PARTS, budget_check, macs_by_part, numbers
from study.reporting.figures.cost import LETTERS, accuracy_against, beside_published
from study.reporting.figures.evidence import decomposition_bars, forest_plot
from study.reporting.figures.learning import learning_curves, tuning_flatness
from study.reporting.figures.style import Look
from study.reporting.findings import Findings, Missing, Part
from study.reporting.layout import Layout
from study.reporting.published import references
from study.reporting.statistics.cells import cut_ends
from study.reporting.statistics.intervals import FEWEST_SEEDS
from study.reporting.statistics.tuning import profile

TUNED = ("lr", "weight_decay", "label_smoothing", "warmup_epochs")
"""Options that are tuned and not studied; where a sweep varies them itself, a figure shows how flat their optimum is."""

LEARNED = ("val_accuracy", "train_loss")
"""What learning curves show: the first of these that was recorded."""


@dataclass(frozen=True)
class Plate:
    """One figure of a report. `alt` says what is to be seen to those who can't see it."""

    name: str
    title: str
    caption: str
    alt: str
    draw: Callable[[Look], Figure]


def plates(findings: Findings) -> list[Plate]:
    """Every figure that the study has something for."""
    if not findings.count("done"):
        return [named(plate, part) for part in findings.parts for plate in trials_plates(part)]
    alike = len({part.places for part in findings.parts}) == 1
    found = [side_by_side(findings)] if len(findings.parts) > 1 and alike else []
    for part in findings.parts:
        found += [named(plate, part) for plate in of_part(part, findings)]
    return found


def named(plate: Plate, part: Part) -> Plate:
    """The plate with its part's title, where the study has several."""
    if not part.title:
        return plate
    return replace(plate, name=f"{plate.name}{part.ending}", title=f"{plate.title}, {part.title}")


def side_by_side(findings: Findings) -> Plate:
    """All parts in one figure, a panel each."""
    first = findings.parts[0]
    places = Layout(first.places.along, first.places.series, (*findings.splits, *first.places.panels))
    seeds = "; ".join(f"{part.title}: {seeds_text(part)}" for part in findings.parts)
    return Plate(
        "side-by-side",
        "Side by side",
        f"Test accuracy by {wording.option(places.along)}, a panel for each way. Marks as in the figures below; {seeds}.",
        "; ".join(f"{part.title}: {means_in_words(part)}" for part in findings.parts),
        lambda look: accuracy_by_level(findings.table, places=places, look=look),
    )


def of_part(part: Part, findings: Findings) -> Iterator[Plate]:
    """The figures of one part: accuracy, costs, comparison, training, budget."""
    yield level_plate(part)
    yield from (cost_plate(part, cost) for cost in costs_of(part.table))
    yield heat_plate(part)
    if not isinstance(part.contrasts, Missing) and part.contrasts["difference"].notna().any():
        yield forest_plate(part.contrasts)
    if not isinstance(part.decomposition, Missing):
        yield decomposition_plate(part.decomposition)
    if references(part.table) and "params" in part.table:
        yield published_plate(part)
    yield from training_plates(part, findings.material.curves)
    yield from budget_plates(part, findings)


def level_plate(part: Part) -> Plate:
    """Accuracy over the levels along the axis."""
    table, places = part.table, part.places
    along, series = wording.option(places.along), wording.option(places.series[0])
    return Plate(
        f"accuracy-by-{places.along.replace('_', '-')}",
        f"Test accuracy by {along}",
        f"Test accuracy by {along} and {series}. Large marks: mean over seeds; bars: {interval_text(part)}; "
        f"small points: single runs{divergence_text(part)}; {seeds_text(part)}.",
        means_in_words(part),
        lambda look: accuracy_by_level(table, places=places, baseline=part.baseline, look=look),
    )


def cost_plate(part: Part, cost: str) -> Plate:
    """Accuracy against one cost."""
    table, places, name = part.table, part.places, wording.option(cost)
    costs = positive(table, cost)
    spread = wording.percent(float(np.ptp(costs) / costs.mean()))
    equal = f" {name.capitalize()} are equal within {spread} %: series are set apart sideways."
    return Plate(
        f"accuracy-by-{cost.replace('_', '-')}",
        f"Test accuracy against {name}",
        f"Test accuracy against {name}, logarithmic. Marks: cells, the figure inside is the {wording.axis(places.along)}; "
        f"bars: {interval_text(part)}; points: runs; {seeds_text(part)}."
        f"{equal if is_equal(costs) else ' Stairs: Pareto front of the means.'}",
        f"Test accuracy of every cell against its {name}; the table of costs gives each.",
        lambda look: accuracy_against(table, cost, places=places, look=look),
    )


def heat_plate(part: Part) -> Plate:
    """Means of all cells."""
    table, places = part.table, part.places
    along, series = wording.option(places.along), wording.option(places.series[0])
    return Plate(
        "heat-map",
        f"Test accuracy of every cell, {along} by {series}",
        f"Mean test accuracy in per cent of every combination of {along} and {series}; a dash: no measured run; "
        f"{seeds_text(part)}.",
        f"The means of the figure by {along} as a grid of colours.",
        lambda look: heat_map(table, places=places, look=look),
    )


def forest_plate(contrasts: pd.DataFrame) -> Plate:
    """The planned contrasts."""
    claimed = contrasts["verdict"].isin(["higher", "lower"]).sum()
    return Plate(
        "contrasts",
        "Planned contrasts",
        f"Differences in test accuracy, paired by seed, with 95 % t intervals. Filled: told from zero after Holm's "
        f"correction within the family ({claimed} of {len(contrasts)}); n = {counts_text(contrasts['n'])} pairs each.",
        f"Intervals of {len(contrasts)} differences, of which {claimed} leave out zero after correction; the table of "
        "contrasts gives each.",
        lambda look: forest_plot(contrasts, look=look),
    )


def decomposition_plate(decomposition: pd.DataFrame) -> Plate:
    """The shares of variation."""
    first = decomposition.iloc[0]
    shares = [
        f"{wording.term(str(row['term']))} {wording.percent(row['share'], digits=0)} %"
        for row in decomposition.to_dict("records")
    ]
    return Plate(
        "decomposition",
        "Where the variation comes from",
        f"Share of the variation in test accuracy that each part carries (they add up to 100 %), with 95 % intervals; "
        f"at the levels studied; n = {first['n']} seeds, {first['runs']} runs.",
        ", ".join(shares),
        lambda look: decomposition_bars(decomposition, look=look),
    )


def published_plate(part: Part) -> Plate:
    """Own cells beside published results."""
    table, places, found = part.table, part.places, references(part.table)
    told = "; ".join(f"{letter}: {one.told}" for letter, one in zip(LETTERS, found, strict=False))
    return Plate(
        "published",
        "Beside published results",
        f"Own cells (filled, {seeds_text(part)}) and published results (hollow), which were reached with other recipes and "
        f"enter no figure of this report. {told}.",
        f"Published results by parameters: {told}.",
        lambda look: beside_published(table, found, places=places, look=look),
    )


def training_plates(part: Part, curves: pd.DataFrame) -> Iterator[Plate]:
    """Learning curves, and how flat the optimum of each tuned option is."""
    table, places, seeds = part.table, part.places, seeds_text(part)
    along = wording.option(places.along)
    own = curves[curves["run_id"].isin(table["run_id"])]
    measure = next((name for name in LEARNED if name in own and own[name].notna().any()), None)
    if measure:
        name = wording.option(measure)
        yield Plate(
            "learning-curves",
            "Learning curves",
            f"{name.capitalize()} over epochs. Lines: mean over seeds; bands: lowest to highest seed; {seeds}."
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


def trials_plates(part: Part) -> Iterator[Plate]:
    """One figure for each tuned option whose levels are numbers."""
    yield from (trials_plate(part, name) for name in part.tuned if has_numbers(part.trials, name))


def trials_plate(part: Part, tuned: str) -> Plate:
    """How flat the optimum of an option is that trials chose."""
    name, seeds = wording.option(tuned), part.trials["seed"].nunique()
    others = " and ".join(wording.option(other) for other in part.tuned if other != tuned)
    lost = int((part.trials["status"] == "diverged").sum())
    return Plate(
        f"tuning-{tuned.replace('_', '-')}",
        f"How flat the {name} is",
        f"Validation accuracy of the trials by {name}{f', each level at its best {others}' if others else ''}. "
        f"Rings: chosen; lines: mean over n = {seeds} seed{'s; bands: lowest to highest seed' if seeds > 1 else ''}"
        f"{f'; {lost} diverged trials are not shown' if lost else ''}.",
        f"Validation accuracy over the {name}, one panel for each {wording.option(part.places.along)}; the table of what was "
        "tuned gives each choice.",
        lambda look: tuning_flatness(profile(part.trials, part.tuned, over=tuned), tuned, places=part.places, look=look),
    )


def tuning_plate(part: Part, tuned: str) -> Plate:
    """How flat the optimum of one option is."""
    name = wording.option(tuned)
    places = replace(part.places, panels=tuple(other for other in part.places.panels if other != tuned))
    return Plate(
        f"tuning-{tuned.replace('_', '-')}",
        f"How flat the {name} is",
        f"Validation accuracy by {name}. Lines: mean over seeds; bands: lowest to highest seed; {seeds_text(part)}.",
        f"Validation accuracy over the {name}, one panel for each {wording.option(places.along)}.",
        lambda look: tuning_flatness(part.table, tuned, places=places, look=look),
    )


def budget_plates(part: Part, findings: Findings) -> Iterator[Plate]:
    """How closely networks were matched, and where their MACs go."""
    table, places = part.table, part.places
    if "match_residual" in table and not np.isnan(numbers(table, "match_residual")).all():
        given = findings.material.facts.match.get("tolerance")
        tolerance = float(given) if isinstance(given, int | float) else None
        furthest = wording.percent(float(np.nanmax(np.abs(numbers(table, "match_residual")))), digits=2)
        yield Plate(
            "budget-check",
            "Who was matched how closely",
            f"Distance of every cell's network to its budget; at most {furthest} %."
            f"{f' Band: the tolerance of {wording.percent(tolerance)} %.' if tolerance else ''}",
            f"All networks lie within {furthest} % of their budget.",
            lambda look: budget_check(table, places=places, tolerance=tolerance, look=look),
        )
    columns = [f"macs_{name}" for name in PARTS]
    if all(name in table and not np.isnan(numbers(table, name)).any() for name in columns):
        yield Plate(
            "macs-by-part",
            "Where the MACs go",
            "Share of the MACs of one forward pass in each part of the network; beside it the total per image. "
            "One network for each cell.",
            "Shares of stem, token mixing, channel mixing and head in the MACs of each network.",
            lambda look: macs_by_part(table, places=places, look=look),
        )


def seeds_text(part: Part) -> str:
    """n in words: "n = 5 seeds per cell", "n = 2 to 5 seeds per cell"."""
    return f"n = {counts_text(part.cells['n'])} seeds per cell"


def counts_text(counts: pd.Series) -> str:
    """A range of counts."""
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low} to {high}"


def interval_text(part: Part) -> str:
    """Which intervals are drawn."""
    drawn = part.cells["low"].notna()
    ends = cut_ends(part.cells)
    told = f"95 % t interval over seeds{f', cut at {ends}' if ends else ''}"
    return told if drawn.all() else f"{told}, where at least {FEWEST_SEEDS} seeds differ"


def divergence_text(part: Part) -> str:
    """A word on crosses, where there are any."""
    number = int(part.cells["diverged"].sum())
    return f"; crosses: {number} diverged run{'s' if number > 1 else ''}, in no mean" if number else ""


def means_in_words(part: Part) -> str:
    """The means, cell by cell."""
    told = []
    for row in part.cells.to_dict("records"):
        cell = ", ".join(wording.assignment(name, row[name]) for name in part.levels if pd.notna(row[name]))
        told.append(f"{cell}: {wording.percent(row['mean'])} %" if row["n"] else f"{cell}: no run")
    return "; ".join(told)
