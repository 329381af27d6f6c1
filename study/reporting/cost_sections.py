"""The tables of accuracy per cost: who is on the front, curves over a cost, and what they reach where all cost the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd

from study.analysis import labels
from study.analysis.cell_grid import CellLevels, to_level
from study.analysis.cell_means import clip_intervals
from study.analysis.cost_columns import list_costs, to_column_units
from study.analysis.factor_layout import read_cells
from study.analysis.findings import StudyPart, Unavailable
from study.reporting.section import Section, cut_notes, factor_columns, with_limits
from study.reporting.text_tables import Column, Row, limits, percent, text_table


def cost_section(part: StudyPart, ending: str) -> Section:
    """Every cell's costs, and whether it is on the Pareto front of each."""
    reading = (
        "On the front: no cell that costs as much or less is more accurate, judged by the means; in brackets the share of "
        "plausible means (new seeds) under which the cell is on it."
    )
    fronts = {cost: found for cost in list_costs(part.table) if isinstance(found := part.front(cost), pd.DataFrame)}
    title, name = f"Accuracy per cost{ending}", f"cost{part.ending}"
    if not fronts:
        return Section(name, title, Unavailable("No run has both an accuracy and a cost."), reading)
    factors = list(part.levels)
    columns = [*factor_columns(factors), percent("test accuracy (%)", "mean")]
    for cost, found in fronts.items():
        columns += front_columns(cost, found, factors)
    return Section(name, title, text_table(part.cells[part.cells["n"] > 0], columns), reading)


def front_columns(cost: str, found: pd.DataFrame, factors: Sequence[str]) -> list[Column]:
    """A cost and the place on its front."""
    rows = dict(zip(read_cells(found, factors), found.to_dict("records"), strict=True))

    def of(row: Row) -> Row | None:
        return rows.get(tuple(to_level(row[name]) for name in factors))

    def price(row: Row) -> str:
        return labels.format_amount(float(to_column_units(own["cost"], cost))) if (own := of(row)) else "–"

    def place(row: Row) -> str:
        own = of(row)
        if own is None:
            return "–"
        sure = own["front_probability"]
        return ("yes" if own["on_front"] else "no") + ("" if pd.isna(sure) else f" ({labels.format_percent(sure, digits=0)} %)")

    return [Column(labels.format_axis_label(cost), price), Column("on the front", place)]


def curves_sections(part: StudyPart, ending: str) -> Iterator[Section]:
    """Accuracy over every cost that varies along the layout's axis: over its whole range, and at equal cost."""
    found = {cost: part.area(cost) for cost in list_costs(part.table)}
    known = [cost for cost, area in found.items() if not isinstance(area, Unavailable) and has_figures(area)]
    for cost in known:
        yield curves_section(part, cost, ending)
        yield budget_section(part, cost, ending)
    if not known:
        missing = next((area for area in found.values() if isinstance(area, Unavailable)), None)
        reason = missing or Unavailable("No curve of accuracy over a cost has been measured: none varies along one.")
        yield Section(f"curves{part.ending}", f"Accuracy over cost{ending}", reason, "")


def has_figures(area: pd.DataFrame) -> bool:
    """Whether some curve has a mean over the common range."""
    return not area.empty and bool(area["accuracy"].notna().any())


def curves_section(part: StudyPart, cost: str, ending: str) -> Section:
    """Accuracy over one cost as curves along the layout's axis: mean over the common range, and a power law."""
    name = labels.format_option(cost)
    title = f"Accuracy over {name}{ending}"
    reading = (
        f"Curves run along the {labels.format_option(part.layout.along)}. Mean: the area under accuracy over the logarithm "
        f"of the {name}, divided by the width of the range that all curves cover; its difference (points, paired by seed) is "
        "to the reference. Exponent: of error as a power of the cost, fitted from four sizes on; misfit: how far the worst "
        "size lies off that line."
    )
    found, fit = part.area(cost), part.power_law(cost)
    assert isinstance(found, pd.DataFrame)
    others = [factor for factor in part.levels if factor != part.layout.along]
    law = [] if isinstance(fit, Unavailable) else law_columns(fit, others)

    def covered(row: Row) -> str:
        ends = (labels.format_amount(float(to_column_units(row[end], cost))) for end in ("start", "end"))
        return " to ".join(ends)

    columns = [
        *factor_columns(others),
        Column(f"range ({labels.UNITS.get(cost, name)})", covered),
        percent("mean accuracy (%)", "accuracy"),
        limits(),
        percent("difference", "difference", digits=2, signed=True),
        limits(low="difference_low", high="difference_high", digits=2, signed=True),
        *law,
    ]
    shown = clip_intervals(found).assign(start=np.where(found["accuracy"].isna(), np.nan, found["start"]))
    notes = tuple(sorted({str(text).capitalize() + "." for text in found["note"] if text}))
    return Section(file_name("curves", cost, part), title, text_table(shown, columns), reading, (*cut_notes(found), *notes))


def budget_section(part: StudyPart, cost: str, ending: str) -> Section:
    """What each curve reaches where all cost the same, read between the cells that were measured."""
    name = labels.format_option(cost)
    title = f"Accuracy at equal {name}{ending}"
    reading = (
        f"Read off the lines between cells, linear in the logarithm of the {name}, at the ends and in the middle of the range "
        "that all curves cover: per cent with 95 % intervals over seeds; behind it, in points and paired by seed, the "
        "difference to the reference. That the true curve is straight between two cells is assumed and in no interval."
    )
    found = part.at_budget(cost)
    if found.empty:
        return Section(file_name("equal", cost, part), title, Unavailable("The curves have no cost in common."), reading)
    others = [factor for factor in part.levels if factor != part.layout.along]
    rows = {(*keys_of(row, others), row["budget"]): row for row in clip_intervals(found).to_dict("records")}

    def accuracy(row: Row, budget: float) -> str:
        own = rows[(*keys_of(row, others), budget)]
        return with_limits(own["accuracy"], own["low"], own["high"], digits=1, signed=False)

    def gap(row: Row, budget: float) -> str:
        own = rows[(*keys_of(row, others), budget)]
        if own["reference"]:
            return "reference"
        return with_limits(own["difference"], own["difference_low"], own["difference_high"], digits=2, signed=True)

    columns = factor_columns(others)
    for budget in dict.fromkeys(found["budget"]):
        columns += [
            Column(f"at {labels.format_amount(float(to_column_units(budget, cost)))}", partial(accuracy, budget=budget)),
            Column("difference", partial(gap, budget=budget)),
        ]
    shown = text_table(found.drop_duplicates(others), columns)
    return Section(file_name("equal", cost, part), title, shown, reading, cut_notes(found))


def file_name(kind: str, cost: str, part: StudyPart) -> str:
    """The name of a table on one cost."""
    return f"{kind}-{cost.replace('_', '-')}{part.ending}"


def keys_of(row: Row, factors: Sequence[str]) -> CellLevels:
    """A row's levels."""
    return tuple(to_level(row[name]) for name in factors)


def law_columns(fit: pd.DataFrame, factors: Sequence[str]) -> list[Column]:
    """The exponent of each curve with its interval and misfit."""
    rows = dict(zip(read_cells(fit, factors), fit.to_dict("records"), strict=True))

    def exponent(row: Row) -> str:
        own = rows[tuple(to_level(row[name]) for name in factors)]
        if pd.isna(own["exponent"]):
            return "–"
        spread = "" if pd.isna(own["low"]) else f" ({own['low']:.2f} to {own['high']:.2f})"
        return f"{own['exponent']:.2f}{spread}".replace("-", "−")

    def misfit(row: Row) -> str:
        value = rows[tuple(to_level(row[name]) for name in factors)]["misfit"]
        return f"{labels.format_percent(value, digits=0)} %" if not pd.isna(value) else "–"

    return [Column("exponent (95 % interval)", exponent), Column("misfit", misfit)]
