"""The tables of accuracy and cost: the Pareto front, curves over a cost, and accuracy at equal cost."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from study.analysis import labels
from study.analysis.cell_means import clip_intervals
from study.analysis.cost_columns import list_costs, to_column_units
from study.analysis.cost_curves import MIN_SIZES
from study.analysis.findings import StudyPart
from study.analysis.study_results import Unavailable
from study.reporting.text_tables import (
    Column,
    ReportSection,
    TableRow,
    build_table,
    factor_columns,
    format_estimate,
    index_rows,
    interval_column,
    list_notes,
    percent_column,
)


def build_costs(part: StudyPart) -> ReportSection:
    """Every cell's costs, and whether it is on the Pareto front of each."""
    reading = (
        "On the front: no cell of equal or lower cost has a higher mean accuracy; in parentheses, from five seeds on, the "
        "share of plausible means for which the cell is on the front."
    )
    fronts = {cost: found for cost in list_costs(part.table) if isinstance(found := part.front(cost), pd.DataFrame)}
    if not fronts:
        return ReportSection("cost", "Accuracy and cost", Unavailable("No run has both an accuracy and a cost."), reading)
    factors = list(part.levels)
    columns = [*factor_columns(factors), percent_column("test accuracy (%)", "mean")]
    for cost, found in fronts.items():
        columns += _list_front_columns(cost, found, factors)
    return ReportSection("cost", "Accuracy and cost", build_table(part.cells[part.cells["n"] > 0], columns), reading)


def _list_front_columns(cost: str, found: pd.DataFrame, factors: list[str]) -> list[Column]:
    find = index_rows(found, factors)

    def format_cost(row: TableRow) -> str:
        return _format_cost(own["cost"], cost) if (own := find(row)) else "–"

    def format_front(row: TableRow) -> str:
        if not (own := find(row)):
            return "–"
        share = own["front_probability"]
        return ("yes" if own["on_front"] else "no") + (
            "" if pd.isna(share) else f" ({labels.format_percent(share, digits=0)} %)"
        )

    return [Column(labels.format_axis_label(cost), format_cost), Column("on the front", format_front)]


def _format_cost(price: float, cost: str) -> str:
    """A price (less is better) as an amount in the units of the cost's column."""
    return labels.format_amount(float(to_column_units(np.array([price]), cost)[0]))


def build_cost_curves(part: StudyPart) -> Iterator[ReportSection]:
    """Accuracy over every cost that varies along the layout's axis: over its whole range, and at equal cost."""
    areas = {cost: part.area(cost) for cost in list_costs(part.table)}
    reason = Unavailable("No curve of accuracy over a cost was measured: no cost varies along one.")
    known = False
    for cost, area in areas.items():
        if isinstance(area, Unavailable):
            reason = area
        elif not area.empty and area["accuracy"].notna().any():
            known = True
            yield _build_curve_means(part, cost, area)
            yield _build_equal_costs(part, cost)
    if not known:
        yield ReportSection("curves", "Accuracy over cost", reason, "")


def _build_curve_means(part: StudyPart, cost: str, area: pd.DataFrame) -> ReportSection:
    name = labels.format_option(cost)
    reading = (
        f"One curve per row, along the {labels.format_option(part.layout.along)}. Mean: area under accuracy over the logarithm "
        f"of the {name}, divided by the width of the range that all curves cover; difference: to the reference, in percentage "
        "points, paired by seed."
    )
    others = [factor for factor in part.levels if factor != part.layout.along]

    def format_range(row: TableRow) -> str:
        return "–" if pd.isna(row["accuracy"]) else f"{_format_cost(row['start'], cost)} to {_format_cost(row['end'], cost)}"

    columns = [
        *factor_columns(others),
        Column(f"range ({labels.UNITS.get(cost, name)})", format_range),
        percent_column("mean accuracy (%)", "accuracy"),
        interval_column(),
        percent_column("difference", "difference", digits=2, signed=True),
        interval_column(low="difference_low", high="difference_high", digits=2, signed=True),
    ]
    if len(part.levels[part.layout.along]) >= MIN_SIZES:
        columns += _list_power_law_columns(part.power_law(cost), others)
        reading += (
            " Exponent: of the error as a power of the cost, fitted to four sizes or more; misfit: the largest deviation of a "
            "size from the fit."
        )
    content = build_table(clip_intervals(area), columns)
    return ReportSection(_name_file("curves", cost), f"Accuracy over {name}", content, reading, list_notes(area))


def _list_power_law_columns(fit: pd.DataFrame, factors: list[str]) -> list[Column]:
    find = index_rows(fit, factors)

    def format_exponent(row: TableRow) -> str:
        own = find(row)
        if pd.isna(own["exponent"]):
            return "–"
        interval = "" if pd.isna(own["low"]) else f" ({own['low']:.2f} to {own['high']:.2f})"
        return f"{own['exponent']:.2f}{interval}".replace("-", "−")

    def format_misfit(row: TableRow) -> str:
        misfit = find(row)["misfit"]
        return "–" if pd.isna(misfit) else f"{labels.format_percent(misfit, digits=0)} %"

    return [Column("exponent (95 % interval)", format_exponent), Column("misfit", format_misfit)]


def _build_equal_costs(part: StudyPart, cost: str) -> ReportSection:
    name = labels.format_option(cost)
    reading = (
        f"Interpolated between cells, linearly in the logarithm of the {name}, at both ends and in the middle of the range "
        "that all curves cover: percent with 95 % intervals, and the difference to the reference in percentage "
        "points, paired by seed. The intervals do not cover the error of the interpolation."
    )
    section = (_name_file("equal", cost), f"Accuracy at equal {name}")
    found = part.at_budget(cost)
    if found.empty:
        return ReportSection(*section, Unavailable("The curves have no range of costs in common."), reading)
    others = [factor for factor in part.levels if factor != part.layout.along]
    columns = factor_columns(others)
    clipped = clip_intervals(found)
    for budget in clipped["budget"].unique():
        columns += _list_budget_columns(_format_cost(float(budget), cost), clipped[clipped["budget"] == budget], others)
    return ReportSection(*section, build_table(found.drop_duplicates(others), columns), reading, list_notes(found))


def _list_budget_columns(budget: str, rows: pd.DataFrame, factors: list[str]) -> list[Column]:
    find = index_rows(rows, factors)

    def format_accuracy(row: TableRow) -> str:
        own = find(row)
        return format_estimate(own["accuracy"], own["low"], own["high"], digits=1)

    def format_difference(row: TableRow) -> str:
        own = find(row)
        if own["reference"]:
            return "reference"
        return format_estimate(own["difference"], own["difference_low"], own["difference_high"], digits=2, signed=True)

    return [Column(f"at {budget}", format_accuracy), Column("difference", format_difference)]


def _name_file(kind: str, cost: str) -> str:
    return f"{kind}-{cost.replace('_', '-')}"
