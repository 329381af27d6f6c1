"""Which figures a study has, in the order of the report: each with its file name, title, caption, and how it is drawn.

A figure is left out where the study has nothing for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from study.analysis import labels
from study.analysis.cost_columns import RUN_SPEEDS, is_matched, list_costs, positive_values
from study.analysis.factor_layout import FactorLayout
from study.analysis.findings import Findings, StudyPart, Unavailable
from study.analysis.intervals import MIN_SEEDS
from study.reporting.figures.accuracy_plots import accuracy_by_level, heat_map
from study.reporting.figures.budget_plots import PARTS, budget_check, macs_by_part, numbers
from study.reporting.figures.contrast_plots import decomposition_bars, forest_plot
from study.reporting.figures.cost_plots import LETTERS, accuracy_against, beside_published
from study.reporting.figures.figure_spec import Plate, counts_text, divergence_text, interval_text, means_in_words, seeds_text
from study.reporting.figures.training_catalog import training_plates, trials_plates
from study.reporting.published_results import references


def plates(findings: Findings) -> list[Plate]:
    """Every figure that the study has something for."""
    if not findings.count("done"):
        return [named(plate, part) for part in findings.parts for plate in trials_plates(part)]
    alike = len({part.layout for part in findings.parts}) == 1
    found = [side_by_side(findings)] if len(findings.parts) > 1 and alike else []
    for part in findings.parts:
        found += [named(plate, part) for plate in of_part(part, findings)]
    return found


def named(plate: Plate, part: StudyPart) -> Plate:
    """The plate with its part's title, where the study has several."""
    if not part.title:
        return plate
    return replace(plate, name=f"{plate.name}{part.ending}", title=f"{plate.title}, {part.title}")


def side_by_side(findings: Findings) -> Plate:
    """All parts in one figure, a panel each."""
    first = findings.parts[0]
    places = FactorLayout(first.layout.along, first.layout.series, (*findings.splits, *first.layout.panels))
    seeds = "; ".join(f"{part.title}: {seeds_text(part)}" for part in findings.parts)
    return Plate(
        "side-by-side",
        "Side by side",
        f"Test accuracy by {labels.format_option(places.along)}, a panel for each way. Marks as in the figures below; {seeds}.",
        "; ".join(f"{part.title}: {means_in_words(part)}" for part in findings.parts),
        lambda look: accuracy_by_level(findings.table, places=places, look=look),
    )


def of_part(part: StudyPart, findings: Findings) -> Iterator[Plate]:
    """The figures of one part: accuracy, costs, comparison, training, budget."""
    yield level_plate(part)
    yield from (cost_plate(part, cost) for cost in list_costs(part.table) if not is_matched(positive_values(part.table, cost)))
    yield heat_plate(part)
    if not isinstance(part.contrasts, Unavailable) and part.contrasts["difference"].notna().any():
        yield forest_plate(part.contrasts)
    if not isinstance(part.decomposition, Unavailable):
        yield decomposition_plate(part.decomposition)
    if references(part.table) and "params" in part.table:
        yield published_plate(part)
    yield from training_plates(part, findings.study.curves)
    yield from budget_plates(part, findings)


def level_plate(part: StudyPart) -> Plate:
    """Accuracy over the levels along the axis."""
    table, places = part.table, part.layout
    along, series = labels.format_option(places.along), labels.format_option(places.series[0])
    return Plate(
        f"accuracy-by-{places.along.replace('_', '-')}",
        f"Test accuracy by {along}",
        f"Test accuracy by {along} and {series}. Large marks: mean over seeds; bars: {interval_text(part)}; "
        f"small points: single runs{divergence_text(part)}; {seeds_text(part)}.",
        means_in_words(part),
        lambda look: accuracy_by_level(table, places=places, baseline=part.baseline, look=look),
    )


def cost_plate(part: StudyPart, cost: str) -> Plate:
    """Accuracy against one cost."""
    table, places, name = part.table, part.layout, labels.format_option(cost)
    return Plate(
        f"accuracy-by-{cost.replace('_', '-')}",
        f"Test accuracy against {name}",
        f"Test accuracy against {name}, logarithmic. Marks: cells, the figure inside is the "
        f"{labels.format_axis_label(places.along)}; bars: {interval_text(part)}; points: runs; {seeds_text(part)}."
        f" Stairs: Pareto front of the means{band_text(part, cost)}.",
        f"Test accuracy of every cell against its {name}; the table of costs gives each.",
        lambda look: accuracy_against(table, cost, places=places, look=look),
    )


def band_text(part: StudyPart, cost: str) -> str:
    """What the band around the stairs is, and where speeds come from."""
    many = bool((part.cells["n"] >= MIN_SEEDS).all())
    band = ", in the band that holds 95 % of the fronts plausible over seeds" if many else ""
    return f"{band}; speed as these runs had it, beside whatever else the machine did" if cost in RUN_SPEEDS else band


def heat_plate(part: StudyPart) -> Plate:
    """Means of all cells."""
    table, places = part.table, part.layout
    along, series = labels.format_option(places.along), labels.format_option(places.series[0])
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
        f"{labels.format_term(str(row['term']))} {labels.format_percent(row['share'], digits=0)} %"
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


def published_plate(part: StudyPart) -> Plate:
    """Own cells beside published results."""
    table, places, found = part.table, part.layout, references(part.table)
    told = "; ".join(f"{letter}: {one.told}" for letter, one in zip(LETTERS, found, strict=False))
    return Plate(
        "published",
        "Beside published results",
        f"Own cells (filled, {seeds_text(part)}) and published results (hollow), which were reached with other recipes and "
        f"enter no figure of this report. {told}.",
        f"Published results by parameters: {told}.",
        lambda look: beside_published(table, found, places=places, look=look),
    )


def tolerance_of(table: pd.DataFrame, findings: Findings) -> float | None:
    """The mismatch that was allowed (a fraction), from the runs or, for older tables, from the sweep."""
    known = numbers(table, "match_tolerance") if "match_tolerance" in table else np.array([np.nan])
    given = findings.study.facts.match.get("tolerance")
    if not np.isnan(known).all():
        return float(np.nanmax(known))
    return float(given) if isinstance(given, int | float) else None


def budget_plates(part: StudyPart, findings: Findings) -> Iterator[Plate]:
    """How closely networks were matched, and where their MACs go."""
    table, places = part.table, part.layout
    if "match_residual" in table and not np.isnan(numbers(table, "match_residual")).all():
        tolerance = tolerance_of(part.table, findings)
        furthest = labels.format_percent(float(np.nanmax(np.abs(numbers(table, "match_residual")))), digits=2)
        yield Plate(
            "budget-check",
            "Who was matched how closely",
            f"Distance of the networks of {len(part.cells)} cells to their budget, at most {furthest} %."
            f"{f' Band: the tolerance of {labels.format_percent(tolerance)} %.' if tolerance else ''}",
            f"The networks lie within {furthest} % of their budget.",
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
