"""What was expected before the runs, beside what was found: as expected, against expectation, or undecided."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from study.analysis.cell_grid import CellLevels
from study.analysis.declared_contrasts import find_contrast
from study.analysis.labels import format_cell, format_interval, format_percent, format_points
from study.analysis.study_results import StudyResults
from study.config.comparison import describe_expectation
from study.errors import Problem, UserError

_SIGNS = {"higher": "positive", "lower": "negative", "equivalent": "equivalent"}


def check_expectations(study: StudyResults, entries: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per expectation (levels by column): `expected`, `found` (in words) and `result`.

    A sign is "as expected" where the contrast's verdict says so, "against expectation" where it says otherwise, else
    "undecided". An accuracy is "reproduced within" the tolerance where its whole 95 % interval is, "not reproduced" where the
    interval is outside, else undecided. Raises UserError for a contrast or a cell that there isn't.
    """
    places = find_expected(study, entries)
    rows = [
        (_check_sign if "contrast" in own else _check_accuracy)(study, place, own)
        for place, own in zip(places, entries, strict=True)
    ]
    return pd.DataFrame(rows, columns=["expected", "found", "result"])


def find_expected(study: StudyResults, entries: Sequence[Mapping[str, Any]]) -> list[int]:
    """The index of each expectation's contrast or cell. Raises UserError for one that there isn't."""
    return [
        find_contrast(own["contrast"], study.planned, key=f"expected.{n}.contrast")
        if "contrast" in own
        else _find_cell(study, n, own["cell"])
        for n, own in enumerate(entries)
    ]


def _check_sign(study: StudyResults, place: int, entry: Mapping[str, Any]) -> tuple[str, str, str]:
    contrasts = study.contrasts
    assert isinstance(contrasts, pd.DataFrame), "a contrast is planned"
    row = contrasts.iloc[place]
    text = describe_expectation({**entry, "contrast": study.planned[place].name})
    if np.isnan(row["low"]):
        return text, "no interval", "undecided"
    found = (
        f"{format_points(row['difference'], signed=True)} ({format_interval(row['low'], row['high'], digits=2, signed=True)})"
    )
    sign = _SIGNS.get(row["verdict"])
    result = "undecided" if sign is None else "as expected" if sign == entry["sign"] else "against expectation"
    if sign != "equivalent" and entry["sign"] == "equivalent":
        inside = max(-row["low"], row["high"]) <= row["margin"]
        outside = max(row["low"], -row["high"]) > row["margin"]
        result = "as expected" if inside else "against expectation" if outside and sign else "undecided"
    return text, f"{found}, {row['verdict']}", result


def _check_accuracy(study: StudyResults, place: int, entry: Mapping[str, Any]) -> tuple[str, str, str]:
    row = study.cells.iloc[place]
    low, high, tolerance = row["low"], row["high"], entry["tolerance"]
    text = describe_expectation(entry)
    if np.isnan(low):
        return text, "no interval", "undecided"
    found = f"{format_percent(row['mean'], digits=2)} % ({format_interval(low, high, digits=2)})"
    within = f"within {format_points(tolerance)}"
    if entry["accuracy"] - tolerance <= low and high <= entry["accuracy"] + tolerance:
        return text, found, f"reproduced {within}"
    if high < entry["accuracy"] - tolerance or low > entry["accuracy"] + tolerance:
        side = "below" if high < entry["accuracy"] else "above"
        return (
            text,
            found,
            f"against expectation: not reproduced {within}, {side} by {format_points(row['mean'] - entry['accuracy'])}",
        )
    return text, found, "undecided"


def _find_cell(study: StudyResults, n: int, wanted: Mapping[str, Any]) -> int:
    grid = study.grid
    known = {factor: grid.factors.index(factor) for factor in wanted if factor in grid.factors}
    found = [
        place
        for place, cell in enumerate(grid.cells)
        if len(known) == len(wanted) and all(cell[known[factor]] == level for factor, level in wanted.items())
    ]
    if len(found) != 1:
        rule = f"names {len(found) or 'no'} cell{'s' * (len(found) != 1)}, and has to name one, by levels of its factors"
        cells = [format_cell(grid.factors, cell) for cell in _choose_cells(grid.cells, found)]
        raise UserError(Problem(rule, key=f"expected.{n}.cell", value=dict(wanted) or None, choices=cells))
    return found[0]


def _choose_cells(cells: Sequence[CellLevels], found: Sequence[int]) -> Iterator[CellLevels]:
    yield from (cells[place] for place in found or range(len(cells)))


def describe_results(checked: pd.DataFrame) -> list[str]:
    """One sentence with all results; none where nothing was expected."""
    parts = [f"{row['expected']}: {row['result']}" for row in checked.to_dict("records")]
    return [f"Expected and found: {'; '.join(parts)}."] if parts else []
