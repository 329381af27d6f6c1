"""The interactive part of the page: runs and cells over their costs, and learning curves, as Vega-Lite charts by Altair.

Charts name their data sets ("runs", "cells", "curves"); the page's script supplies them, and the reader's selection as the
parameter `selected`. Colors are CSS variables of the page ("var(--mark-0)"), so that charts follow its light or dark scheme.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from study.analysis import labels
from study.analysis.cell_grid import read_cells, select_done, to_level
from study.analysis.cell_means import clip_intervals
from study.analysis.cost_columns import SIZE_COLUMNS, SPEED_COLUMNS, list_costs, to_column_units
from study.analysis.findings import Findings, StudyPart
from study.reporting.figures.excerpts import space_evenly
from study.reporting.figures.panels import Series, list_series
from study.reporting.figures.style import MARKS
from study.reporting.text_tables import index_rows

_ACCURACIES = ("test_accuracy", "val_accuracy")
_CURVES = ("val_accuracy", "train_loss", "val_loss", "train_accuracy", "lr")
MAX_SHOWN_RUNS = 500
"""Runs on the page, so that it stays below 5 MB and quick; of more, evenly spaced ones in the plan's order."""

_MAX_EPOCHS, _MAX_CURVE_POINTS = 250, 40_000
"""Epochs shown of one run, and of all runs together; longer curves are thinned evenly."""

_FORMATS = {
    **dict.fromkeys((*_ACCURACIES, "train_accuracy", "mean", "low", "high"), ".2f"),
    **dict.fromkeys((*SIZE_COLUMNS, *SPEED_COLUMNS), ".3s"),
    **dict.fromkeys(("train_loss", "val_loss", "lr"), ".3g"),
}
_RUN = {"id": "run", "cell": "cell", "seed": "seed"}
_IS_SELECTED = "indexof(selected, datum.id) >= 0"


def build_explorer(findings: Findings) -> dict[str, Any]:
    """Data and charts for the page's script, as JSON; {} where no run is done."""
    if not findings.count("done"):
        return {}
    costs = sorted(list_costs(findings.table), key=lambda name: name == "params")  # MACs first: parameters are often matched
    factors = tuple(dict.fromkeys(name for part in findings.parts for name in part.layout.series))
    series = list_series(findings.table, replace(findings.parts[0].layout, series=factors))
    runs = pd.concat([_list_runs(part, factors, costs) for part in findings.parts], ignore_index=True)
    runs = runs[runs["id"].isin(select_shown_runs(findings)["run_id"])]
    cells = pd.concat([_list_cells(part, factors, costs) for part in findings.parts], ignore_index=True)
    curves = _list_curves(findings, runs)
    measures = [name for name in _CURVES if any(name in curve for curve in curves)]
    return {
        "runs": _to_records(runs),
        "cells": _to_records(cells),
        "curves": curves,
        "costs": [{"title": labels.format_option(name), "chart": _plot_costs(name, series)} for name in costs],
        "measures": [{"title": labels.format_option(name), "chart": _plot_curves(name, series)} for name in measures],
    }


def select_shown_runs(findings: Findings) -> pd.DataFrame:
    """The rows of the run table that are on the page."""
    return findings.table.iloc[space_evenly(len(findings.table), MAX_SHOWN_RUNS)]


def _list_runs(part: StudyPart, factors: Sequence[str], costs: list[str]) -> pd.DataFrame:
    """One row for each run of the part that is done; accuracies in percent."""
    done = select_done(part.table)
    return pd.DataFrame(
        {
            "id": done["run_id"],
            "cell": [_name_cell(part, key) for key in read_cells(done, list(part.levels))],
            "series": [labels.format_cell(factors, key) for key in read_cells(done, factors)],
            "seed": done["seed"],
            **{name: 100 * done[name] for name in _ACCURACIES if name in done},
            **{name: done[name] for name in costs},
        }
    )


def _list_cells(part: StudyPart, factors: Sequence[str], costs: list[str]) -> pd.DataFrame:
    """One row for each cell of the part that has a run, at the median of its runs' costs; accuracies in percent."""
    names = list(part.levels)
    fronts = {name: found for name in costs if isinstance(found := part.front(name), pd.DataFrame)}
    finders = {name: index_rows(found, names) for name, found in fronts.items()}
    find_run, rows = index_rows(part.table, names), []
    for own in clip_intervals(part.cells[part.cells["n"] > 0]).to_dict("records"):
        level = labels.format_level(to_level(own[part.layout.along]))
        prices = {name: finders[name](own).get("cost", np.nan) if name in finders else np.nan for name in costs}
        rows.append(
            {
                "cell": _name_cell(part, tuple(to_level(own[name]) for name in names)),
                "series": labels.format_cell(factors, tuple(to_level(find_run(own)[name]) for name in factors)),
                "level": level if len(level) <= 2 else "",
                "n": own["n"],
                **{name: 100 * own[name] for name in ("mean", "low", "high")},
                **{name: float(to_column_units(np.array([price]), name)[0]) for name, price in prices.items()},
            }
        )
    return pd.DataFrame(rows)


def _name_cell(part: StudyPart, levels: tuple[Any, ...]) -> str:
    return ", ".join(filter(None, (labels.format_cell(list(part.levels), levels), part.title)))


def _list_curves(findings: Findings, runs: pd.DataFrame) -> list[dict[str, Any]]:
    """The learning curves of the runs: a row for each run, in which every measure is a list over epochs."""
    curves = findings.study.curves
    names = [name for name in ("epoch", *_CURVES) if name in curves and curves[name].notna().any()]
    scaled = curves.assign(**{name: 100 * curves[name] for name in names if name.endswith("accuracy")})
    own = runs[["id", "cell", "series", "seed"]].set_index("id", drop=False)
    rows, most = [], min(_MAX_EPOCHS, max(10, _MAX_CURVE_POINTS // max(1, len(runs))))
    for run, curve in scaled[scaled["run_id"].isin(own.index)].groupby("run_id", sort=True):
        thinned = curve.iloc[:: -(-len(curve) // most)]
        rows.append({**_to_records(own.loc[[run]])[0], **{name: _to_json(thinned[name]) for name in names}})
    return rows


def _to_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    columns = [_to_json(frame[name]) for name in frame]
    return [dict(zip(frame.columns, row, strict=True)) for row in zip(*columns, strict=True)]


def _to_json(column: pd.Series) -> list[Any]:
    """A column as JSON: numbers to six digits, null for what is missing or not finite."""
    if not pd.api.types.is_numeric_dtype(column):
        return column.astype(str).tolist()
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in column.to_numpy(dtype=float, na_value=np.nan)]


def _plot_costs(cost: str, series: list[Series]) -> dict[str, Any]:
    title = labels.format_axis_label(cost)
    x = alt.X(f"{cost}:Q", title=title, axis=alt.Axis(format="~s", tickCount=6))
    x = x.scale(type="log", nice=False, padding=24)
    low, mean, accuracy = (
        alt.Y(f"{name}:Q", title=labels.format_axis_label("test_accuracy")).scale(zero=False)
        for name in ("low", "mean", "test_accuracy")
    )
    color, shape = _encode_series(series)
    triangles = [one.title for one in series if one.mark.shape.startswith("triangle")]
    is_triangle = alt.FieldOneOfPredicate("series", oneOf=triangles)
    cells, runs = alt.Chart(alt.NamedData("cells")), alt.Chart(alt.NamedData("runs"))
    names = {"cell": "cell", "n": "n (seeds)", "mean": "mean test accuracy (%)", "low": "95 % interval from", "high": "to"}
    layers = alt.layer(
        cells.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1.5).encode(x, low, alt.Y2("high:Q"), color),
        cells.mark_point(filled=True, opacity=1, stroke="var(--surface)").encode(
            x,
            mean,
            color,
            shape,
            tooltip=_list_tooltips({**names, cost: title}),
            size=alt.when(is_triangle).then(alt.value(430)).otherwise(alt.value(230)),  # as much room inside
        ),
        cells.mark_text(fontSize=11, fontWeight="bold", color="var(--surface)", dy=1).encode(x, mean, text="level:N"),
        runs.mark_circle(xOffset=14, cursor="pointer", opacity=0.85, stroke="var(--ink)").encode(  # next to their cell's mark
            x,
            accuracy,
            color,
            tooltip=_list_tooltips({**_RUN, **{name: labels.format_axis_label(name) for name in (*_ACCURACIES, cost)}}),
            size=alt.when(_IS_SELECTED).then(alt.value(130)).otherwise(alt.value(34)),
            strokeWidth=alt.when(_IS_SELECTED).then(alt.value(2)).otherwise(alt.value(0)),
        ),
    )
    return _finish(layers, height=340)


def _plot_curves(measure: str, series: list[Series]) -> dict[str, Any]:
    title = labels.format_axis_label(measure)
    chart = (
        alt.Chart(alt.NamedData("curves"))
        .transform_filter(_IS_SELECTED)
        .transform_flatten(["epoch", measure])
        .mark_line(point=alt.OverlayMarkDef(size=22), strokeWidth=1.6)
        .encode(
            alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, format="d")),
            alt.Y(f"{measure}:Q", title=title).scale(zero=False),
            _encode_series(series)[0],
            detail="id:N",
            tooltip=_list_tooltips({**_RUN, "epoch": "epoch", measure: title}),
        )
    )
    return _finish(chart, height=260)


def _encode_series(series: list[Series]) -> tuple[alt.Color, alt.Shape]:
    titles = [one.title for one in series]
    legend = alt.Legend(title=None, orient="top")
    colors = [f"var(--mark-{MARKS.index(one.mark)})" for one in series]
    color = alt.Color("series:N", legend=legend).scale(domain=titles, range=colors)
    return color, alt.Shape("series:N", legend=legend).scale(domain=titles, range=[one.mark.shape for one in series])


def _list_tooltips(titles: dict[str, str]) -> list[alt.Tooltip]:
    """The lines of a tooltip: column and title; numbers in the column's format."""
    return [
        alt.Tooltip(name, title=title, type="quantitative", format=_FORMATS[name])
        if name in _FORMATS
        else alt.Tooltip(name, title=title, type="nominal")
        for name, title in titles.items()
    ]


def _finish(chart: Any, *, height: int) -> dict[str, Any]:
    ink, grid = "var(--ink)", "var(--grid)"
    axis = {"gridColor": grid, **dict.fromkeys(("labelColor", "titleColor", "domainColor", "tickColor"), ink)}
    found: dict[str, Any] = (
        chart.properties(width="container", height=height)
        .configure(background="transparent", font="system-ui, sans-serif", view=alt.ViewConfig(stroke=None))
        .configure_axis(titleFontWeight="normal", labelFontSize=12, titleFontSize=13, **axis)
        .configure_axisX(grid=False)
        .configure_legend(labelColor=ink, labelFontSize=12, columns=alt.ExprRef("width < 500 ? 2 : 0"))
        .to_dict()
    )
    return found
