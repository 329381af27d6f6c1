"""The part of a page that answers to its reader: runs and cells over their costs, and learning curves, as Vega-Lite.

Data and specifications are made here as plain JSON; the page's script chooses among them and follows the reader's
selection. Colours are written as the page's variables ("var(--mark-0)") and resolved when drawn.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pandas as pd

from study.analysis import labels
from study.analysis.cell_grid import CellLevels, to_level
from study.analysis.cell_means import clip_intervals
from study.analysis.cost_columns import SIZE_COLUMNS, SPEED_COLUMNS, list_costs
from study.analysis.factor_layout import group_rows, read_cells
from study.analysis.findings import Findings, StudyPart
from study.reporting.figures.panels import Series, series_of
from study.reporting.figures.style import MARKS
from study.reporting.text_tables import Row

Json = dict[str, Any]

MEASURES = ("test_accuracy", "val_accuracy")
CURVES = ("val_accuracy", "train_loss", "val_loss", "train_accuracy", "lr")
BESIDE = 14
"""Pixels that runs stand to the right of their cell's mark, so that neither hides the other."""

LONGEST_CURVE = 250
"""Epochs shown of one run; longer curves are thinned evenly."""


def explorer(findings: Findings) -> Json:
    """Everything the page's script works on; {} where no run is done."""
    if not findings.count("done"):
        return {}
    costs = sorted(list_costs(findings.table), key=lambda name: name == "params")  # MACs first: parameters are often matched
    curves = curves_of(findings)
    shown = [name for name in CURVES if any(name in curve for curve in curves.values())]
    series = page_series(findings)
    return {
        "runs": [run for part in findings.parts for run in runs_of(part, series, costs)],
        "cells": [cell for part in findings.parts for cell in cells_of(part, series, costs)],
        "curves": curves,
        "costs": [{"name": name, "title": labels.format_option(name), "spec": scatter(name, series)} for name in costs],
        "measures": [{"name": name, "title": labels.format_option(name), "spec": lines(name, series)} for name in shown],
    }


def page_series(findings: Findings) -> list[Series]:
    """The series of all parts, told apart by the factors that any of them tells its series apart by."""
    factors = tuple(dict.fromkeys(name for part in findings.parts for name in part.layout.series))
    return series_of(findings.table, replace(findings.parts[0].layout, series=factors))


def done_runs(part: StudyPart) -> pd.DataFrame:
    """The part's runs that have an accuracy."""
    return part.table[(part.table["status"] == "done").to_numpy(dtype=bool)]


def numeric(table: pd.DataFrame, column: str) -> pd.Series[float]:
    """A column as floats, NaN where it is missing."""
    return pd.to_numeric(table[column], errors="coerce").astype("Float64").astype(float)


def runs_of(part: StudyPart, series: list[Series], costs: list[str]) -> list[Json]:
    """One point for each run of the part that is done."""
    done = done_runs(part)
    titles = {one.levels: one.title for one in series}
    owners = [titles[key] for key in read_cells(done, series[0].factors)]
    points = []
    for row, owner, cell in zip(done.to_dict("records"), owners, read_cells(done, list(part.levels)), strict=True):
        point = {
            "id": str(row["run_id"]),
            "cell": label(part, cell),
            "series": owner,
            "seed": to_level(row["seed"]),
            **{name: percent(row.get(name)) for name in MEASURES},
            **{name: rounded(row[name]) for name in costs},
        }
        points.append(point)
    return points


def cells_of(part: StudyPart, series: list[Series], costs: list[str]) -> list[Json]:
    """One mark for each measured cell of the part, at the geometric mean of its runs' costs."""
    found = dict(zip(read_cells(part.cells, list(part.levels)), clip_intervals(part.cells).to_dict("records"), strict=True))
    done = done_runs(part)
    return [
        cell_mark(part, found[group.levels], done[group.rows], series=series, costs=costs)
        for group in group_rows(done, list(part.levels))
    ]


def cell_mark(part: StudyPart, row: Row, runs: pd.DataFrame, *, series: list[Series], costs: list[str]) -> Json:
    """A cell's mark: its row of the table of cells, and what its runs cost."""
    (key,) = set(read_cells(runs, series[0].factors))
    owner = next(one for one in series if one.levels == key)
    level = labels.format_level(to_level(row[part.layout.along]))
    return {
        "cell": label(part, tuple(to_level(row[name]) for name in part.levels)),
        "series": owner.title,
        "level": level if len(level) <= 2 else "",
        "pointed": owner.mark.shape.startswith("triangle"),
        "n": int(row["n"]),
        **{name: percent(row[name]) for name in ("mean", "low", "high")},
        **{name: geometric_mean(numeric(runs, name)) for name in costs},
    }


def label(part: StudyPart, cell: CellLevels) -> str:
    """A cell in words, with its part where there are several."""
    told = [labels.format_setting(name, level) for name, level in zip(part.levels, cell, strict=True) if level is not None]
    return ", ".join([*told, *([part.title] if part.title else [])])


def geometric_mean(values: pd.Series[float]) -> float | None:
    """exp of the mean logarithm of the positive values; None of nothing."""
    known = [math.log(value) for value in values if value > 0]
    return rounded(math.exp(sum(known) / len(known))) if known else None


def percent(fraction: object) -> float | None:
    """A fraction in per cent, None where it is missing."""
    value = rounded(fraction, digits=6)
    return None if value is None else round(100 * value, 4)


def rounded(value: object, *, digits: int = 5) -> float | None:
    """A number to so many significant digits, None for what is missing or no finite number."""
    known = to_level(value)
    if not isinstance(known, int | float) or not math.isfinite(known):
        return None
    return float(f"{known:.{digits}g}")


def curves_of(findings: Findings) -> dict[str, dict[str, list[float | None]]]:
    """The learning curves of the runs of the table, by run, as columns."""
    curves = findings.study.curves
    known = set(findings.table["run_id"])
    names = [name for name in ("epoch", *CURVES) if name in curves and curves[name].notna().any()]
    found = {}
    for run, rows in curves[curves["run_id"].isin(known)].groupby("run_id", sort=True):
        step = -(-len(rows) // LONGEST_CURVE)
        kept = rows.iloc[:: step or 1]
        found[str(run)] = {name: [shown_value(name, value) for value in kept[name]] for name in names}
    return found


def shown_value(name: str, value: object) -> float | None:
    """A curve's value as it is drawn: accuracies in per cent."""
    return percent(value) if name.endswith("accuracy") else rounded(value)


def colour_scale(series: list[Series]) -> Json:
    """The mark's colour of each series, as variables of the page."""
    return {"domain": [one.title for one in series], "range": [f"var(--mark-{MARKS.index(one.mark)})" for one in series]}


def shape_scale(series: list[Series]) -> Json:
    """The mark's shape of each series."""
    return {"domain": [one.title for one in series], "range": [one.mark.shape for one in series]}


def scatter(cost: str, series: list[Series]) -> Json:
    """Accuracy over a cost: runs as small points that tell who they are, cells as marks with their intervals."""
    across = {
        "field": cost,
        "type": "quantitative",
        "title": labels.format_axis_label(cost),
        "axis": {"format": "~s", "tickCount": 6},
    }
    across["scale"] = {"type": "log", "nice": False, "padding": 24}
    up = {"type": "quantitative", "scale": {"zero": False}, "title": labels.format_axis_label("test_accuracy")}
    colour = {"field": "series", "type": "nominal", "scale": colour_scale(series), "legend": {"title": None, "orient": "top"}}
    shape = {"field": "series", "type": "nominal", "scale": shape_scale(series), "legend": {"title": None, "orient": "top"}}
    run_tip = tooltip(
        {
            "id": "run",
            "cell": "cell",
            "seed": "seed",
            "test_accuracy": "test accuracy (%)",
            "val_accuracy": "validation accuracy (%)",
            cost: labels.format_axis_label(cost),
        }
    )
    cell_tip = tooltip(
        {
            "cell": "cell",
            "n": "n (seeds)",
            "mean": "mean test accuracy (%)",
            "low": "95 % interval from",
            "high": "to",
            cost: labels.format_axis_label(cost),
        }
    )
    return {
        "width": "container",
        "height": 340,
        "layer": [
            {
                "data": {"name": "cells"},
                "transform": [{"filter": "isValid(datum.low)"}],
                "mark": {"type": "rule", "strokeWidth": 1.5},
                "encoding": {"x": across, "y": {**up, "field": "low"}, "y2": {"field": "high"}, "color": colour},
            },
            {
                "data": {"name": "cells"},
                "mark": {"type": "point", "filled": True, "opacity": 1, "stroke": "var(--surface)"},
                "encoding": {
                    "x": across,
                    "y": {**up, "field": "mean"},
                    "color": colour,
                    "shape": shape,
                    "size": {"condition": {"test": "datum.pointed", "value": 430}, "value": 230},  # as much room inside
                    "tooltip": cell_tip,
                },
            },
            {
                "data": {"name": "cells"},
                "mark": {"type": "text", "fontSize": 11, "fontWeight": "bold", "color": "var(--surface)", "dy": 1},
                "encoding": {"x": across, "y": {**up, "field": "mean"}, "text": {"field": "level"}},
            },
            {
                "data": {"name": "runs"},
                "mark": {"type": "circle", "xOffset": BESIDE, "cursor": "pointer", "opacity": 0.85, "stroke": "var(--ink)"},
                "encoding": {
                    "x": across,
                    "y": {**up, "field": "test_accuracy"},
                    "color": colour,
                    "size": {"condition": {"test": "datum.chosen", "value": 130}, "value": 34},
                    "strokeWidth": {"condition": {"test": "datum.chosen", "value": 2}, "value": 0},
                    "tooltip": run_tip,
                },
            },
        ],
    }


def lines(measure: str, series: list[Series]) -> Json:
    """The chosen runs' curves of one measure over epochs, coloured as their series."""
    up = {"field": measure, "type": "quantitative", "scale": {"zero": False}, "title": labels.format_axis_label(measure)}
    colour = {"field": "series", "type": "nominal", "scale": colour_scale(series), "legend": {"title": None, "orient": "top"}}
    return {
        "width": "container",
        "height": 260,
        "data": {"name": "chosen"},
        "mark": {"type": "line", "point": {"size": 22}, "strokeWidth": 1.6},
        "encoding": {
            "x": {"field": "epoch", "type": "quantitative", "title": "epoch", "axis": {"tickMinStep": 1, "format": "d"}},
            "y": up,
            "color": colour,
            "detail": {"field": "id"},
            "tooltip": tooltip(
                {"id": "run", "cell": "cell", "seed": "seed", "epoch": "epoch", measure: labels.format_axis_label(measure)}
            ),
        },
    }


def tooltip(fields: dict[str, str]) -> list[Json]:
    """What stands beside the pointer, in this order; accuracies to two digits, costs with a multiple of a thousand."""
    accuracies = dict.fromkeys((*MEASURES, "mean", "low", "high"), ".2f")
    formats = {
        **accuracies,
        **dict.fromkeys((*SIZE_COLUMNS, *SPEED_COLUMNS), ".3s"),
        **dict.fromkeys(("train_loss", "val_loss", "lr"), ".3g"),
    }
    return [
        {"field": name, "title": title, "type": "quantitative", "format": formats[name]}
        if name in formats
        else {"field": name, "title": title, "type": "nominal"}
        for name, title in fields.items()
    ]
