"""Tables of a report as text: the text of each entry is decided once, then printed as Markdown, LaTeX or HTML.

Fractions become percentages here. A missing number is a dash, never 0.
"""

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from study.analysis import labels
from study.analysis.cell_grid import read_cells, to_level
from study.analysis.cell_means import describe_clipping
from study.analysis.study_results import Unavailable

TableRow = Mapping[Hashable, Any]

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "–": "--",
        "×": r"$\times$",
        "−": "$-$",
        **{letter: f"${letter}$" for letter in "<>"},
        **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    }
)


@dataclass(frozen=True)
class TextTable:
    """A table of texts; `numeric` says which columns are aligned right. Headings may repeat."""

    frame: pd.DataFrame
    numeric: tuple[bool, ...]

    def to_markdown(self) -> str:
        """The table in GitHub's Markdown."""
        escaped = self.frame.map(escape_markdown).set_axis(list(map(escape_markdown, self.frame.columns)), axis="columns")
        sides = ["right" if number else "left" for number in self.numeric]
        return escaped.to_markdown(index=False, disable_numparse=True, colalign=sides)

    def to_latex(self, *, caption: str, label: str) -> str:
        """The table for a paper, in a float, with the rules of the package booktabs."""
        escaped = self.frame.map(_escape_latex).set_axis(list(map(_escape_latex, self.frame.columns)), axis="columns")
        return escaped.style.hide(axis="index").to_latex(
            hrules=True,
            position_float="centering",
            caption=_escape_latex(caption),
            label=label,
            column_format="".join("r" if number else "l" for number in self.numeric),
        )


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, and the text of a row's entry."""

    heading: str
    text: Callable[[TableRow], str]
    numeric: bool = True


@dataclass(frozen=True)
class ReportSection:
    """One table with its heading. `content` gives the reason where there is none; `reading` explains the columns."""

    name: str  # for file names: "contrasts"
    title: str
    content: TextTable | Unavailable
    reading: str
    notes: tuple[str, ...] = ()


def build_table(frame: pd.DataFrame, columns: Sequence[Column]) -> TextTable:
    """The frame's rows in the given columns."""
    rows = [[column.text(row) for column in columns] for row in frame.to_dict("records")]
    texts = pd.DataFrame(rows, columns=[column.heading for column in columns], dtype=object)
    return TextTable(texts, tuple(column.numeric for column in columns))


def factor_columns(names: Sequence[str]) -> list[Column]:
    """The columns that name a cell: the level of each factor."""

    def format_level(name: str, row: TableRow) -> str:
        return labels.format_level(to_level(row[name]))

    return [Column(labels.format_option(name), partial(format_level, name), numeric=False) for name in names]


def text_column(heading: str, name: str, *, numeric: bool = False) -> Column:
    """A column of the frame's entries as they are."""
    return Column(heading, lambda row: str(row[name]), numeric=numeric)


def percent_column(heading: str, name: str, *, digits: int = 1, signed: bool = False) -> Column:
    """A column of fractions in percent."""
    return Column(heading, lambda row: labels.format_percent(row[name], digits=digits, signed=signed))


def interval_column(
    heading: str = "95 % interval", *, low: str = "low", high: str = "high", digits: int = 1, signed: bool = False
) -> Column:
    """A column of intervals of fractions, in percent."""
    return Column(heading, lambda row: labels.format_interval(row[low], row[high], digits=digits, signed=signed))


def format_estimate(value: float, low: float, high: float, *, digits: int, signed: bool = False) -> str:
    """A fraction in percent with its interval, if it has one, in parentheses."""
    interval = "" if pd.isna(low) else f" ({labels.format_interval(low, high, digits=digits, signed=signed)})"
    return labels.format_percent(value, digits=digits, signed=signed) + interval


def format_p_value(p: float) -> str:
    """A p value to three digits."""
    return "–" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def escape_markdown(text: str) -> str:
    """A text that Markdown leaves unchanged, in a cell of a table or a paragraph."""
    escaped = re.sub(r"([\\`*_\[\]|])", r"\\\1", re.sub(r"\s+", " ", text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _escape_latex(text: str) -> str:
    return text.translate(_LATEX)


def index_rows(frame: pd.DataFrame, factors: Sequence[str]) -> Callable[[TableRow], TableRow]:
    """A function that finds the frame's row with the same levels of the factors as another table's row; {} if none has."""
    found = dict(zip(read_cells(frame, factors), frame.to_dict("records"), strict=True))
    return lambda row: found.get(tuple(to_level(row[name]) for name in factors), {})


def list_notes(frame: pd.DataFrame) -> tuple[str, ...]:
    """The remarks on single rows of a table of accuracies, and on intervals that were clipped."""
    ends = describe_clipping(frame)
    clipped = [f"Intervals are clipped at {ends}, the end of the scale, for display only."] if ends else []
    return (*clipped, *list_reasons(frame))


def list_reasons(frame: pd.DataFrame) -> tuple[str, ...]:
    """The remarks on single rows of a table."""
    return tuple(sorted({f"{text[0].upper()}{text[1:]}." for text in frame["note"] if text}))
