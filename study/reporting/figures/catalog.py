"""Which figures a study has, in the order of the report: each with its file name, title, caption, and how it is drawn.

A figure is omitted where the study has no data for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from study.analysis import labels
from study.analysis.contrast_results import SIGNIFICANT
from study.analysis.cost_columns import RUN_SPEEDS, is_matched, list_costs, positive_values
from study.analysis.factor_layout import FactorLayout
from study.analysis.findings import Findings, StudyPart
from study.analysis.intervals import MIN_SEEDS
from study.analysis.study_results import Unavailable
from study.reporting.figures.accuracy_plots import plot_accuracy_by_level, plot_heat_map
from study.reporting.figures.budget_plots import MAC_COLUMNS, plot_budget_error, plot_macs_by_component
from study.reporting.figures.contrast_plots import plot_contrasts, plot_variance_shares
from study.reporting.figures.cost_plots import RESULT_LETTERS, plot_accuracy_by_cost, plot_published_results
from study.reporting.figures.figure_spec import FigureSpec, describe_intervals, describe_means, describe_n, describe_range
from study.reporting.figures.panels import read_floats
from study.reporting.figures.training_catalog import list_training_figures, list_trial_figures
from study.reporting.published_results import find_published_results


def list_figures(findings: Findings) -> list[FigureSpec]:
    """Every figure that the study has data for."""
    if not findings.count("done"):
        return [_add_part_title(spec, part) for part in findings.parts for spec in list_trial_figures(part)]
    same_layout = len({part.layout for part in findings.parts}) == 1
    found = [_compare_parts(findings)] if len(findings.parts) > 1 and same_layout else []
    for part in findings.parts:
        found += [_add_part_title(spec, part) for spec in _list_part_figures(part, findings)]
    return found


def _add_part_title(spec: FigureSpec, part: StudyPart) -> FigureSpec:
    """The figure with its part's title, where the study has several."""
    if not part.title:
        return spec
    return replace(spec, name=f"{spec.name}{part.ending}", title=f"{spec.title}, {part.title}")


def _compare_parts(findings: Findings) -> FigureSpec:
    """All parts in one figure, a panel each."""
    first = findings.parts[0].layout
    layout = FactorLayout(first.along, first.series, (*findings.splits, *first.panels))
    seeds = "; ".join(f"{part.title}: {describe_n(part)}" for part in findings.parts)
    return FigureSpec(
        "side-by-side",
        "Side by side",
        f"Test accuracy by {labels.format_option(layout.along)}, one panel per study. Marks as in the figures below; {seeds}.",
        "; ".join(f"{part.title}: {describe_means(part)}" for part in findings.parts),
        lambda style: plot_accuracy_by_level(findings.table, layout=layout, style=style),
    )


def _list_part_figures(part: StudyPart, findings: Findings) -> Iterator[FigureSpec]:
    """The figures of one part: accuracy, costs, comparison, training, budget."""
    yield _specify_levels(part)
    for cost in list_costs(part.table):
        if not is_matched(positive_values(part.table, cost)):
            yield _specify_cost(part, cost)
    yield _specify_heat_map(part)
    if not isinstance(part.contrasts, Unavailable) and part.contrasts["difference"].notna().any():
        yield _specify_contrasts(part.contrasts)
    if not isinstance(part.decomposition, Unavailable):
        yield _specify_variance_shares(part.decomposition)
    if find_published_results(part.table) and "params" in part.table:
        yield _specify_published_results(part)
    yield from list_training_figures(part, findings.study.curves)
    yield from _list_budget_figures(part, findings)


def _specify_levels(part: StudyPart) -> FigureSpec:
    """Accuracy over the levels along the axis."""
    layout = part.layout
    along, series = labels.format_option(layout.along), labels.format_option(layout.series[0])
    diverged = int(part.cells["diverged"].sum())
    crosses = f"; crosses: {diverged} diverged run{'s' if diverged > 1 else ''}, excluded from the means" if diverged else ""
    return FigureSpec(
        f"accuracy-by-{layout.along.replace('_', '-')}",
        f"Test accuracy by {along}",
        f"Test accuracy by {along} and {series}. Large marks: mean over seeds; error bars: {describe_intervals(part)}; "
        f"small points: individual runs{crosses}; {describe_n(part)}.",
        describe_means(part),
        lambda style: plot_accuracy_by_level(part.table, layout=layout, baseline=part.baseline, style=style),
    )


def _specify_cost(part: StudyPart, cost: str) -> FigureSpec:
    """Accuracy against one cost."""
    name = labels.format_option(cost)
    front = "Step line: Pareto front of the means"
    if (part.cells["n"] >= MIN_SEEDS).all():
        front += "; band: 95 % of the fronts that are plausible over seeds"
    if cost in RUN_SPEEDS:
        front += ". Throughput as recorded during the runs, including the effect of other load on the machine"
    return FigureSpec(
        f"accuracy-by-{cost.replace('_', '-')}",
        f"Test accuracy against {name}",
        f"Test accuracy against {name} (log scale). Marks: cells, labeled with the "
        f"{labels.format_axis_label(part.layout.along)}; error bars: {describe_intervals(part)}; small points: individual "
        f"runs; {describe_n(part)}. {front}.",
        f"Test accuracy of every cell against its {name}; the table “Accuracy and cost” has the values.",
        lambda style: plot_accuracy_by_cost(part.table, cost, layout=part.layout, style=style),
    )


def _specify_heat_map(part: StudyPart) -> FigureSpec:
    """Means of all cells."""
    along, series = labels.format_option(part.layout.along), labels.format_option(part.layout.series[0])
    return FigureSpec(
        "heat-map",
        f"Mean test accuracy by {along} and {series}",
        f"Mean test accuracy in percent for every combination of {along} and {series}; –: no completed run; "
        f"{describe_n(part)}.",
        f"The means of the figure “Test accuracy by {along}” as a heat map.",
        lambda style: plot_heat_map(part.table, layout=part.layout, style=style),
    )


def _specify_contrasts(contrasts: pd.DataFrame) -> FigureSpec:
    """The planned contrasts."""
    significant = contrasts["verdict"].isin(SIGNIFICANT).sum()
    return FigureSpec(
        "contrasts",
        "Planned contrasts",
        "Differences in test accuracy, paired by seed, with 95 % t intervals. Filled: significantly different from zero after "
        f"Holm correction within the family ({significant} of {len(contrasts)}); n = {describe_range(contrasts['n'])} pairs "
        "each.",
        f"Intervals of {len(contrasts)} differences, {significant} of them significant after correction; the table “Planned "
        "contrasts” has the values.",
        lambda style: plot_contrasts(contrasts, style=style),
    )


def _specify_variance_shares(decomposition: pd.DataFrame) -> FigureSpec:
    """The shares of variation."""
    first = decomposition.iloc[0]
    shares = [
        f"{labels.format_term(str(row['term']))} {labels.format_percent(row['share'], digits=0)} %"
        for row in decomposition.to_dict("records")
    ]
    return FigureSpec(
        "decomposition",
        "Sources of variation",
        "Share of the variation in test accuracy that each term explains (the shares sum to 100 %), with 95 % intervals, at "
        f"the levels studied; n = {first['n']} seeds, {first['runs']} runs.",
        ", ".join(shares),
        lambda style: plot_variance_shares(decomposition, style=style),
    )


def _specify_published_results(part: StudyPart) -> FigureSpec:
    """The study's cells and published results."""
    found = find_published_results(part.table)
    listed = "; ".join(f"{letter}: {result.summary}" for letter, result in zip(RESULT_LETTERS, found, strict=False))
    return FigureSpec(
        "published",
        "Comparison with published results",
        f"Cells of this study (filled, {describe_n(part)}) and published results (hollow), which were obtained with other "
        f"recipes and enter no number of this report. {listed}.",
        f"Published results by parameters: {listed}.",
        lambda style: plot_published_results(part.table, found, layout=part.layout, style=style),
    )


def _list_budget_figures(part: StudyPart, findings: Findings) -> Iterator[FigureSpec]:
    """How closely networks were matched, and where they spend their MACs."""
    table, layout = part.table, part.layout
    errors = read_floats(table, "match_residual") if "match_residual" in table else np.array([np.nan])
    if not np.isnan(errors).all():
        tolerance = _find_tolerance(table, findings)
        largest = labels.format_percent(float(np.nanmax(np.abs(errors))), digits=2)
        yield FigureSpec(
            "budget-match-error",
            "Budget match error",
            f"Relative distance of the networks of {len(part.cells)} cells from their budget, at most {largest} %."
            f"{f' Band: tolerance of {labels.format_percent(tolerance)} %.' if tolerance else ''}",
            f"All networks are within {largest} % of their budget.",
            lambda style: plot_budget_error(table, layout=layout, tolerance=tolerance, style=style),
        )
    if all(name in table and not np.isnan(read_floats(table, name)).any() for name in MAC_COLUMNS):
        yield FigureSpec(
            "macs-by-component",
            "MACs by component",
            "Share of the MACs of one forward pass in each component of the network, one network per cell; right: total MACs "
            "per image.",
            "Shares of stem, token mixing, channel mixing and head in the MACs of each network.",
            lambda style: plot_macs_by_component(table, layout=layout, style=style),
        )


def _find_tolerance(table: pd.DataFrame, findings: Findings) -> float | None:
    """The tolerance of the match (a fraction), from the runs or, for tables written before they had it, from the sweep."""
    known = table["match_tolerance"].dropna() if "match_tolerance" in table else pd.Series(dtype=float)
    given = findings.study.facts.match.get("tolerance")
    if len(known):
        return float(known.max())
    return float(given) if isinstance(given, int | float) else None
