"""Which figures a study has, in the order of the report: each with its file name, title, caption, and how it is drawn.

A figure is omitted where the study has no data for it.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from study.analysis import labels
from study.analysis.cell_grid import read_numbers
from study.analysis.contrast_results import SIGNIFICANT
from study.analysis.cost_columns import RUN_SPEEDS, is_matched, list_costs, positive_values
from study.analysis.factor_layout import FactorLayout
from study.analysis.findings import Findings, StudyPart
from study.analysis.study_results import Unavailable
from study.reporting.figures.accuracy_plots import plot_accuracy_by_level, plot_heat_map
from study.reporting.figures.budget_plots import MAC_COLUMNS, plot_budget_error, plot_macs_by_component
from study.reporting.figures.contrast_plots import plot_ablation, plot_contrasts
from study.reporting.figures.cost_plots import RESULT_LETTERS, plot_accuracy_by_cost, plot_published_results
from study.reporting.figures.excerpts import describe_points, excerpt_study
from study.reporting.figures.figure_spec import FigureSpec, describe_intervals, describe_means, describe_n, describe_range
from study.reporting.figures.training_catalog import list_training_figures, list_trial_figures
from study.reporting.published_results import find_published_results

_MAX_ROWS = 60
"""Of a figure that lists cells or contrasts."""

_PANELS = {"match_by": "way of matching", "study": "sweep", "data_set": "data set"}


def list_figures(findings: Findings) -> list[FigureSpec]:
    """Every figure that the study has data for."""
    if not findings.count("done"):
        return [_add_part_title(spec, part) for part in findings.parts for spec in list_trial_figures(part)]
    same_layout = len({part.layout for part in findings.parts}) == 1
    found = [_compare_parts(findings)] if len(findings.parts) > 1 and same_layout else []
    for part in findings.parts:
        accuracies = list(_list_accuracy_figures(part))
        own = (
            *_list_ablation_figures(part),
            *accuracies[:1],
            *_list_comparison_figures(part),
            *accuracies[1:],
            *list_training_figures(part, findings.study.curves),
            *_list_budget_figures(part, findings),
        )
        found += [_add_part_title(spec, part) for spec in own]
    return found


def _add_part_title(spec: FigureSpec, part: StudyPart) -> FigureSpec:
    if not part.title:
        return spec
    return replace(spec, name=f"{spec.name}{part.ending}", title=f"{spec.title}, {part.title}")


def _compare_parts(findings: Findings) -> FigureSpec:
    first = findings.parts[0].layout
    layout = FactorLayout(first.along, first.series, (*findings.splits, *first.panels))
    owns = [part.cells.assign(**{name: part.table[name].iloc[0] for name in findings.splits}) for part in findings.parts]
    seeds = "; ".join(f"{part.title}: {describe_n(part)}" for part in findings.parts)
    along, per = (
        labels.format_option(layout.along),
        labels.join_words(_PANELS.get(name, labels.format_option(name)) for name in layout.panels),
    )
    shown = excerpt_study(findings.table, layout.panels, layout.series)
    return FigureSpec(
        "side-by-side",
        "Side by side",
        f"Test accuracy by {along}, one panel for each {per}. Marks as in the figures below; {seeds}.{shown.note}",
        "; ".join(f"{part.title}: {describe_means(part)}" for part in findings.parts),
        partial(plot_accuracy_by_level, shown.table, pd.concat(owns, ignore_index=True), layout=layout),
    )


def _list_ablation_figures(part: StudyPart) -> Iterator[FigureSpec]:
    contrasts = part.contrasts
    if not part.is_ablation or isinstance(contrasts, Unavailable) or contrasts["difference"].isna().all():
        return
    own = contrasts[contrasts["primary"]]
    band = "; band: smallest effect of interest" if own["margin"].nunique() == 1 else ""
    where = f", {own['where'].iloc[0]}" if own["where"].iloc[0] else ""
    yield FigureSpec(
        "ablation",
        "Ablation",
        f"Each change minus the baseline in test accuracy{where}, sorted by size, with 95 % intervals over {part.population} "
        f"that hold for all changes at once. Filled: significantly different from the baseline{band}; "
        f"n = {describe_range(own['n'])} seeds.",
        "Intervals of the differences to the baseline; the table “Ablation” has the values.",
        partial(plot_ablation, contrasts),
    )


def _list_accuracy_figures(part: StudyPart) -> Iterator[FigureSpec]:
    if part.is_ablation and len(part.varied) == 1:
        return  # the differences of its figure and the accuracies of its table say it all
    table, layout, n, intervals = part.table, part.layout, describe_n(part), describe_intervals(part)
    along, series = labels.format_option(layout.along), labels.format_option(layout.series[0])
    diverged = int(part.cells["diverged"].sum())
    shown = excerpt_study(table, layout.panels, layout.series)
    points = describe_points(shown.table, layout.factors)
    crosses = f"; crosses: {diverged} diverged run{'s' if diverged > 1 else ''}, excluded from the means" if diverged else ""
    yield FigureSpec(
        f"accuracy-by-{layout.along.replace('_', '-')}",
        f"Test accuracy by {along}",
        f"Test accuracy by {along} and {series}. Large marks: mean over seeds; error bars: {intervals}; small points: "
        f"{points}{crosses}; {n}.{shown.note}",
        describe_means(part),
        partial(plot_accuracy_by_level, shown.table, part.cells, layout=layout, baseline=part.baseline),
    )
    for cost in list_costs(table):
        if is_matched(positive_values(table, cost)) or isinstance(front := part.front(cost), Unavailable):
            continue
        name = labels.format_option(cost)
        speed = ". Throughput as recorded during the runs, including the effect of other load on the machine"
        yield FigureSpec(
            f"accuracy-by-{cost.replace('_', '-')}",
            f"Test accuracy against {name}",
            f"Test accuracy against {name} (log scale). Marks: cells, labeled with the {along}; error bars: {intervals}; small "
            f"points: {points}; {n}. Step line: Pareto front of the means{speed if cost in RUN_SPEEDS else ''}.{shown.note}",
            f"Test accuracy of every cell against its {name}; the table “Accuracy and cost” has the values.",
            partial(plot_accuracy_by_cost, shown.table, front, cost, layout=layout),
        )
    mapped = excerpt_study(table, layout.panels, layout.series, most=_MAX_ROWS)
    yield FigureSpec(
        "heat-map",
        f"Mean test accuracy by {along} and {series}",
        f"Mean test accuracy in percent for every combination of {along} and {series}; –: no completed run; {n}.{mapped.note}",
        f"The means of the figure “Test accuracy by {along}” as a heat map.",
        partial(plot_heat_map, mapped.table, part.cells, layout=layout),
    )


def _list_comparison_figures(part: StudyPart) -> Iterator[FigureSpec]:
    contrasts = part.contrasts
    shown = part.is_ablation and len(part.varied) == 1  # all of them, in the figure of the ablation
    if not shown and not isinstance(contrasts, Unavailable) and contrasts["difference"].notna().any():
        counts = [
            f"{rows['verdict'].isin(SIGNIFICANT).sum()} of {len(rows)} {name}"
            for name, rows in (("primary", contrasts[contrasts["primary"]]), ("exploratory", contrasts[~contrasts["primary"]]))
            if len(rows)
        ]
        significant = labels.join_words(counts)
        band = "; band: smallest effect of interest" if contrasts["margin"].nunique() == 1 else ""
        most = "" if len(contrasts) <= _MAX_ROWS else f" Shown are {_MAX_ROWS} of {len(contrasts)}, primary ones first."
        first = contrasts.sort_values("primary", ascending=False, kind="stable").head(_MAX_ROWS)
        yield FigureSpec(
            "contrasts",
            "Planned contrasts",
            f"Differences in test accuracy with simultaneous 95 % intervals over {part.population}. Black: primary contrasts, "
            f"one family; gray: exploratory, each heading a family{band}. Filled: significantly different from zero "
            f"({significant}); n = {describe_range(contrasts['n'])} seeds.{most}",
            f"Intervals of the differences, significant in {significant}; the table “Planned contrasts” has the values.",
            partial(plot_contrasts, first),
        )
    front, fits = part.front("params"), excerpt_study(part.table, part.layout.panels, part.layout.series)
    if (published := find_published_results(part.table)) and isinstance(front, pd.DataFrame):
        listed = "; ".join(f"{letter}: {one.summary}" for letter, one in zip(RESULT_LETTERS, published, strict=False))
        yield FigureSpec(
            "published",
            "Comparison with published results",
            f"Cells of this study (filled, {describe_n(part)}) and published results (hollow), which were obtained with other "
            f"recipes and enter no number of this report. {listed}.{fits.note}",
            f"Published results by parameters: {listed}.",
            partial(plot_published_results, fits.table, front, published, layout=part.layout),
        )


def _list_budget_figures(part: StudyPart, findings: Findings) -> Iterator[FigureSpec]:
    table, layout = part.table, part.layout
    errors = read_numbers(table, "match_residual")
    if not np.isnan(errors).all():
        tolerance = _find_tolerance(table, findings)
        largest = labels.format_percent(float(np.nanmax(np.abs(errors))), digits=2)
        shown = excerpt_study(table, layout.panels, layout.series)
        yield FigureSpec(
            "budget-match-error",
            "Budget match error",
            f"Relative distance of the networks of {len(part.cells)} cells from their budget, at most {largest} %."
            f"{f' Band: tolerance of {labels.format_percent(tolerance)} %.' if tolerance else ''}{shown.note}",
            f"All networks are within {largest} % of their budget.",
            partial(plot_budget_error, shown.table, layout=layout, tolerance=tolerance),
        )
    if not any(np.isnan(read_numbers(table, name)).any() for name in MAC_COLUMNS):
        shown = excerpt_study(table, (), layout.factors, most=_MAX_ROWS, what="cells")
        yield FigureSpec(
            "macs-by-component",
            "MACs by component",
            "Share of the MACs of one forward pass in each component of the network, one network per cell; right: total MACs "
            f"per image.{shown.note}",
            "Shares of stem, token mixing, channel mixing and head in the MACs of each network.",
            partial(plot_macs_by_component, shown.table, layout=layout),
        )


def _find_tolerance(table: pd.DataFrame, findings: Findings) -> float | None:
    """The tolerance of the match (a fraction), from the runs or, for tables written before they had it, from the sweep."""
    known = read_numbers(table, "match_tolerance")
    given = findings.study.facts.match.get("tolerance")
    if not np.isnan(known).all():
        return float(np.nanmax(known))
    return float(given) if isinstance(given, int | float) else None
