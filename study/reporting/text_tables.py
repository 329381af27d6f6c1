"""Tables of a report as text: what stands in each column is decided once, then printed as Markdown, LaTeX or HTML.

Fractions become per cent here. A missing figure is a dash, never 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from study.analysis import labels

Row = Mapping[Hashable, Any]

LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "–": "--",
    "×": r"$\times$",
    "±": r"$\pm$",
    "<": "$<$",
    ">": "$>$",
}


@dataclass(frozen=True)
class TextTable:
    """A table of texts; `numeric` tells which columns are set flush right."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]

    def markdown(self) -> str:
        """The table for Markdown."""
        rule = ["---:" if number else ":---" for number in self.numeric]
        lines = [list(map(markdown_text, line)) for line in (self.headings, *self.rows)]
        return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])

    def latex(self, *, caption: str, label: str) -> str:
        """The table for a paper, in a float, ruled by booktabs."""
        body = [" & ".join(map(latex_text, row)) + r" \\" for row in self.rows]
        lines = [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_text(caption)}}}",
            rf"\label{{{label}}}",
            rf"\begin{{tabular}}{{{''.join('r' if number else 'l' for number in self.numeric)}}}",
            r"\toprule",
            " & ".join(map(latex_text, self.headings)) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, and the text of a row's entry."""

    heading: str
    text: Callable[[Row], str]
    numeric: bool = True


def text_table(frame: pd.DataFrame, columns: Sequence[Column]) -> TextTable:
    """The frame's rows in the given columns."""
    rows = tuple(tuple(column.text(row) for column in columns) for row in frame.to_dict("records"))
    return TextTable(tuple(column.heading for column in columns), rows, tuple(column.numeric for column in columns))


def words(heading: str, name: str) -> Column:
    """A column of words as they stand in the frame."""
    return Column(heading, lambda row: str(row[name]), numeric=False)


def count(heading: str, name: str) -> Column:
    """A column of whole numbers."""
    return Column(heading, lambda row: f"{row[name]}")


def percent(heading: str, name: str, *, digits: int = 1, signed: bool = False) -> Column:
    """A column of fractions in per cent."""
    return Column(heading, lambda row: labels.format_percent(row[name], digits=digits, signed=signed))


def limits(
    heading: str = "95 % interval", *, low: str = "low", high: str = "high", digits: int = 1, signed: bool = False
) -> Column:
    """A column of intervals of fractions, in per cent."""
    return Column(heading, lambda row: labels.format_interval(row[low], row[high], digits=digits, signed=signed))


def number(heading: str, name: str) -> Column:
    """A column of plain numbers to two digits."""
    return Column(heading, lambda row: "–" if pd.isna(row[name]) else f"{round(row[name], 2) + 0.0:.2f}".replace("-", "−"))


def p_value(heading: str, name: str) -> Column:
    """A column of p values."""
    return Column(heading, lambda row: p_text(row[name]))


def p_text(p: float) -> str:
    """A p as it is printed."""
    return "–" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def markdown_text(text: str) -> str:
    """A text that Markdown leaves as it is, in a cell of a table or a paragraph."""
    flat = re.sub(r"\s+", " ", text)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", flat).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def latex_text(text: str) -> str:
    """A text that LaTeX prints as it is."""
    return "".join(LATEX.get(letter, letter) for letter in text)
