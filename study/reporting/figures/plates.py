"""Which figures a study has, in the order of the report: each with its file name, title, caption, and how it is drawn.

A figure is left out where the study has nothing for it, and the reason is kept. Captions carry n, so that a figure that
has been cut out of the report still says how many runs it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from study.reporting import wording
from study.reporting.figures.accuracy import accuracy_by_level, heat_map
from study.reporting.figures.cost import accuracy_against, is_equal, positive
from study.reporting.figures.evidence import decomposition_bars, forest_plot
from study.reporting.figures.learning import learning_curves
from study.reporting.figures.style import Look
from study.reporting.findings import Findings, Missing, Part
from study.reporting.statistics.intervals import FEWEST_SEEDS


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
    found = []
    for part in findings.parts:
        if findings.count("done"):
            found += [named(plate, part) for plate in of_part(part, findings.material.curves)]
    return found


def named(plate: Plate, part: Part) -> Plate:
    """The plate with its part's title, where the study has several."""
    if not part.title:
        return plate
    ending = part.title.split(":")[0].replace(" ", "-")
    return Plate(f"{plate.name}-{ending}", f"{plate.title}, {part.title}", plate.caption, plate.alt, plate.draw)


def of_part(part: Part, curves: pd.DataFrame) -> Iterator[Plate]:
    """The figures of one part."""
    table, places = part.table, part.places
    along, series = wording.option(places.along), wording.option(places.series[0])
    seeds = seeds_text(part)
    yield Plate(
        f"accuracy-by-{places.along.replace('_', '-')}",
        f"Test accuracy by {along}",
        f"Test accuracy by {along} and {series}. Large marks: mean over seeds; bars: {interval_text(part)}; "
        f"small points: single runs{divergence_text(part)}; {seeds}.",
        means_in_words(part),
        lambda look: accuracy_by_level(table, places=places, baseline=part.baseline, look=look),
    )
    for cost in ("params", "macs", "images_per_second"):
        if cost in table and len(positive(table, cost)):
            yield cost_plate(part, cost, seeds=seeds)
    yield Plate(
        "heat-map",
        f"Test accuracy of every cell, {along} by {series}",
        f"Mean test accuracy in per cent of every combination of {along} and {series}; a dash: no measured run; {seeds}.",
        f"The means of the figure by {along} as a grid of colours.",
        lambda look: heat_map(table, places=places, look=look),
    )
    if not isinstance(part.contrasts, Missing) and part.contrasts["difference"].notna().any():
        yield forest_plate(part.contrasts)
    if not isinstance(part.decomposition, Missing):
        yield decomposition_plate(part.decomposition)
    if len(curves) and curves["run_id"].isin(table["run_id"]).any():
        yield Plate(
            "learning-curves",
            "Learning curves",
            f"Validation accuracy over epochs. Lines: mean over seeds; bands: lowest to highest seed; {seeds}.",
            f"Validation accuracy over epochs, one panel for each {along}.",
            lambda look: learning_curves(table, curves, places=places, look=look),
        )


def cost_plate(part: Part, cost: str, *, seeds: str) -> Plate:
    """Accuracy against one cost."""
    table, places, name = part.table, part.places, wording.option(cost)
    costs = positive(table, cost)
    spread = wording.percent(float(np.ptp(costs) / costs.mean()))
    equal = f" {name.capitalize()} are equal within {spread} %: series are set apart sideways."
    return Plate(
        f"accuracy-by-{cost.replace('_', '-')}",
        f"Test accuracy against {name}",
        f"Test accuracy against {name}, logarithmic. Marks: cells, the figure inside is the "
        f"{wording.axis(places.along)}; bars: {interval_text(part)}; points: runs; {seeds}."
        f"{equal if is_equal(costs) else ''}",
        f"Test accuracy of every cell against its {name}; the means are those of the figure by "
        f"{wording.option(places.along)}.",
        lambda look: accuracy_against(table, cost, places=places, look=look),
    )


def forest_plate(contrasts: pd.DataFrame) -> Plate:
    """The planned contrasts."""
    claimed = contrasts["verdict"].isin(["higher", "lower"])
    seeds = counts_text(contrasts["n"])
    return Plate(
        "contrasts",
        "Planned contrasts",
        f"Differences in test accuracy, paired by seed, with 95 % t intervals. Filled: told from zero after Holm's "
        f"correction within the family ({claimed.sum()} of {len(contrasts)}); n = {seeds} pairs each.",
        f"Intervals of {len(contrasts)} differences, of which {claimed.sum()} leave out zero after correction; the table of "
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
    told = "95 % t interval over seeds"
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
