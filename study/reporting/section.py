"""One table of a report with its heading and how to read it, and the columns that several tables share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from study.analysis import labels
from study.analysis.cell_grid import to_level
from study.analysis.cell_means import describe_clipping
from study.analysis.findings import Unavailable
from study.reporting.text_tables import Column, TextTable


@dataclass(frozen=True)
class Section:
    """One table with its heading. `content` says why, where there is none; `reading` explains the columns."""

    name: str  # for file names: "contrasts"
    title: str
    content: TextTable | Unavailable
    reading: str
    notes: tuple[str, ...] = ()


def factor_columns(names: Sequence[str]) -> list[Column]:
    """The columns that name a cell."""
    return [factor_column(name) for name in names]


def factor_column(name: str) -> Column:
    """The levels of one factor."""
    return Column(labels.format_option(name), lambda row: labels.format_level(to_level(row[name])), numeric=False)


def cut_notes(found: pd.DataFrame) -> tuple[str, ...]:
    """That intervals were cut where accuracies end, where that happened."""
    ends = describe_clipping(found)
    return (
        (f"Intervals that run past {ends} are cut there: no accuracy lies beyond. Nothing else is computed from the cut ones.",)
        if ends
        else ()
    )


def with_limits(value: float, low: float, high: float, *, digits: int, signed: bool) -> str:
    """A fraction in per cent with its interval in brackets, where it has one."""
    inside = "" if pd.isna(low) else f" ({labels.format_interval(low, high, digits=digits, signed=signed)})"
    return labels.format_percent(value, digits=digits, signed=signed) + inside
