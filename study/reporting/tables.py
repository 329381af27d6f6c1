"""Tables of a report as text: what stands in each column is decided once, then printed as Markdown or LaTeX (booktabs).

Fractions become per cent here. A missing figure is a dash, never 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from study.reporting import wording
from study.reporting.findings import Part
from study.reporting.layout import keys
from study.reporting.statistics.grid import Cell, plain

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "–": "--", "×": r"$\times$", "±": r"$\pm$",
    "<": "$<$", ">": "$>$",
}  # fmt: skip


@dataclass(frozen=True)
class TextTable:
    """A table of texts; `numeric` tells which columns are set flush right."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]

    def markdown(self) -> str:
        """The table for Markdown."""
        rule = ["---:" if number else ":---" for number in self.numeric]
        lines = [self.headings, rule, *self.rows]
        return "\n".join("| " + " | ".join(map(markdown_text, line)) + " |" for line in lines)

    def latex(self, *, caption: str, label: str) -> str:
        """The table for a paper, in a float, ruled by booktabs."""
        columns = "".join("r" if number else "l" for number in self.numeric)
        body = [" & ".join(map(latex_text, row)) + r" \\" for row in self.rows]
        lines = [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_text(caption)}}}",
            rf"\label{{{label}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(map(latex_text, self.headings)) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"


def markdown_text(text: str) -> str:
    """A text that Markdown leaves as it is, in a cell of a table or a paragraph."""
    flat = re.sub(r"\s+", " ", text)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", flat).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def latex_text(text: str) -> str:
    """A text that LaTeX prints as it is."""
    return "".join(LATEX.get(letter, letter) for letter in text)


def cells_table(part: Part) -> TextTable:
    """Accuracy of every cell with its spread, interval and n, and what its runs cost."""
    factors = list(part.levels)
    diverged = part.cells["diverged"].sum() > 0
    headings = [*map(wording.option, factors), "test accuracy (%)", "95 % interval", "sd", "n", "test set error",
                *(["diverged"] if diverged else []), "parameters", "MACs"]  # fmt: skip
    rows = []
    for row in part.cells.to_dict("records"):
        cost = cost_of(part.table, factors, cell=tuple(plain(row[name]) for name in factors))
        rows.append((
            *(wording.level(plain(row[name])) for name in factors),
            wording.percent(row["mean"]), wording.interval(row["low"], row["high"]), wording.percent(row["sd"], digits=2),
            f"{row['n']} of {row['planned']}", wording.percent(row["binomial_error"], digits=2),
            *([str(row["diverged"])] if diverged else []), *cost,
        ))  # fmt: skip
    return TextTable(tuple(headings), tuple(rows), (*(False for _ in factors), *(True for _ in headings[len(factors) :])))


def cost_of(table: pd.DataFrame, factors: Sequence[str], *, cell: Cell) -> tuple[str, ...]:
    """Parameters and MACs of a cell's network."""
    own = table[[key == cell for key in keys(table, factors)]]
    known = [pd.to_numeric(own[name], errors="coerce").dropna() for name in ("params", "macs")]
    return tuple(wording.amount(float(values.iloc[0])) if len(values) else "–" for values in known)


def contrasts_table(contrasts: pd.DataFrame) -> TextTable:
    """Every planned contrast: difference, interval, corrected p, pairing, what could have been seen, and the verdict."""
    headings = ("family", "contrast", "difference (points)", "95 % interval", "n", "p (Holm)", "correlation",
                "detectable", "better in", "verdict")  # fmt: skip
    rows = [
        (
            str(row["family"]), str(row["contrast"]), wording.percent(row["difference"], digits=2, signed=True),
            wording.interval(row["low"], row["high"], digits=2, signed=True), str(row["n"]), p_text(row["p_holm"]),
            number(row["correlation"]), wording.percent(row["detectable"], digits=2), share_text(row["improvement"]),
            str(row["verdict"]),
        )
        for row in contrasts.to_dict("records")
    ]  # fmt: skip
    return TextTable(headings, tuple(rows), (False, False, *(True for _ in range(7)), False))


def decomposition_table(decomposition: pd.DataFrame) -> TextTable:
    """The share of each term with its interval and the levels that it speaks about."""
    rows = [
        (
            wording.term(str(row["term"])), wording.percent(row["share"]), wording.interval(row["low"], row["high"]),
            str(row["levels"]).replace(" x ", " × "),
        )
        for row in decomposition.to_dict("records")
    ]  # fmt: skip
    return TextTable(("part", "share (%)", "95 % interval", "levels"), tuple(rows), (False, True, True, False))


def number(value: float) -> str:
    """A plain number to two digits."""
    return "–" if pd.isna(value) else f"{value:.2f}".replace("-", "−")


def share_text(value: float) -> str:
    """A share of seeds in per cent."""
    return "–" if pd.isna(value) else f"{wording.percent(value, digits=0)} %"


def p_text(p: float) -> str:
    """A p as it is printed."""
    return "–" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def runs_summary(table: pd.DataFrame, statuses: Sequence[str]) -> str:
    """How many runs ended how: "57 done, 2 diverged"."""
    counts = {status: int((table["status"] == status).sum()) for status in statuses}
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)
