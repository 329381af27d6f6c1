"""The sweep's question answered in plain sentences, each number with its uncertainty and n.

What is said depends on what the runs can bear. Cells that don't clear the baseline give "undertrained: no answer";
fewer than three seeds give differences without a claim; an unfinished sweep says so first. "Attention" is a word for
metaformer sweeps alone, in which the token mixer is the only thing that differs; between whole architectures the
word is "backbone".
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from study.reporting.statistics.cells import cells
from study.reporting.statistics.comparisons import MARGIN, contrasts
from study.reporting.statistics.contrasts import planned
from study.reporting.statistics.decomposition import decomposition, share_gap
from study.reporting.statistics.grid import MEASURE, Level, read_grid
from study.reporting.statistics.intervals import FEWEST_SEEDS

Row = Mapping[Hashable, Any]

CONTROLS: Mapping[str, tuple[Level, ...]] = {"token_mixer": ("identity", "random")}
"""Levels that are in a study to be poor: they needn't clear the baseline."""


@dataclass(frozen=True)
class Answer:
    """The answer and how far it goes; the first sentence can stand alone."""

    state: Literal["answered", "provisional", "too few seeds", "undertrained", "no runs"]
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        """All sentences as one paragraph."""
        return " ".join(self.sentences)


def answer(
    table: pd.DataFrame,
    levels: Mapping[str, Sequence[Level]],
    *,
    baseline: float | None = None,
    measure: str = MEASURE,
    confidence: float = 0.95,
    margin: float = MARGIN,
) -> Answer:
    """What the table says about the factors in `levels` (the sweep's axes; the first is the patch size).

    `baseline`: the accuracy (fraction) that every cell has to clear, such as logistic regression on pixels. Population:
    new seeds on this data, judged by this test set, at these levels.
    """
    factors = [factor for factor, values in levels.items() if len(set(values)) > 1]
    found = cells(table, factors, measure=measure, confidence=confidence)
    if not found["n"].sum():
        return Answer("no runs", (f"No answer: none of the {found['planned'].sum()} runs is done.",))
    short = below_baseline(found, factors, baseline=baseline)
    if short:
        return Answer("undertrained", undertrained(short, baseline or 0.0, measure=measure))
    kept = read_grid(table, factors, measure=measure).cells
    plan = planned({factor: levels[factor] for factor in factors}, cells=kept)
    compared = contrasts(table, plan, measure=measure, confidence=confidence, margin=margin)
    lead = compared[compared["family"] == compared["family"].iloc[0]]
    sentences = [difference_sentence(row, measure=measure) for row in lead.to_dict("records")]
    if lead["n"].max() < FEWEST_SEEDS:
        first = f"No answer: {found['n'].max()} seeds show no spread, so nothing can be said about other seeds."
        return Answer("too few seeds", (*unfinished(found), first, *sentences))
    if len(factors) > 1:
        head = share_sentence(table, factors, measure=measure, confidence=confidence)
        sentences = [head, *sentences, *turning(compared, factors)]
    open_runs = int(found["missing"].sum() + found["failed"].sum())
    sentences = [*unfinished(found), *sentences, *divergence(found), population(table, factors, found=found)]
    return Answer("provisional" if open_runs else "answered", tuple(sentences))


def below_baseline(found: pd.DataFrame, factors: Sequence[str], *, baseline: float | None) -> list[str]:
    """Cells, controls apart, whose accuracy doesn't lie above the baseline: interval, or mean where there is none."""
    if baseline is None:
        return []
    control = np.zeros(len(found), dtype=bool)
    for factor in factors:
        control |= found[factor].isin(CONTROLS.get(factor, ())).to_numpy(dtype=bool)
    lower = found["low"].fillna(found["mean"])
    short = found[(lower <= baseline).to_numpy(dtype=bool) & ~control]
    return [f"{cell_label(row, factors)} ({percent(row['mean'])})" for row in short.to_dict("records")]


def undertrained(short: Sequence[str], baseline: float, *, measure: str) -> tuple[str, ...]:
    """The sentences of a study whose cells don't clear the baseline."""
    many = f"{len(short)} cell{'s do' if len(short) > 1 else ' does'} not clear"
    return (
        f"Undertrained: no answer. {many} the baseline of {percent(baseline)} {words(measure)}: {'; '.join(short)}.",
        "Networks that a linear model on pixels equals show how far training went, not which part carries accuracy.",
    )


def share_sentence(table: pd.DataFrame, factors: Sequence[str], *, measure: str, confidence: float) -> str:
    """Which of the first two factors carries more of the variation, or that this can't be told."""
    found = decomposition(table, factors, measure=measure, confidence=confidence)
    rows = {row["term"]: row for row in found.to_dict("records")}
    one, two = sorted(factors[:2], key=lambda factor: -rows[factor]["share"])
    _, low, _ = share_gap(table, factors, first=one, second=two, measure=measure, confidence=confidence)
    what = f"of the variation in {words(measure)}"
    told = f"The {words(one)} carries more than the {words(two)}" if low > 0 else "Which carries more can't be told"
    told = f"{told}: {words(one)} {share(rows[one])}, {words(two)} {share(rows[two])} {what}"
    rest = [f"{words(term)} {percent(row['share'], digits=0)}" for term, row in rows.items() if term not in (one, two)]
    where = [f"{words(factor)} {rows[factor]['levels']}" for factor in factors]
    size = f"{found['n'].iloc[0]} seeds, {found['runs'].iloc[0]} runs"
    left_out = [note for note in [str(found["note"].iloc[0])] if note]
    return f"{told} ({', '.join(rest)}; {'; '.join([*where, size, *left_out])})."


def difference_sentence(row: Row, *, measure: str) -> str:
    """One contrast in words: what may be claimed, the difference in points, its interval, n."""
    name = f"{row['contrast']} ({row['family'].split(', ')[-1]})" if ", mean over" in row["family"] else row["contrast"]
    if np.isnan(row["difference"]):
        return f"{name}: no seed has all the runs that it needs."
    if np.isnan(row["low"]):
        return f"{name}: {points(row['difference'])} points of {words(measure)} ({row['note']})."
    limits = f"[{points(row['low'])}, {points(row['high'])}]"
    figures = f"{points(row['difference'])} points {limits}, n = {row['n']} seeds, Holm {p_text(row['p_holm'])}"
    claims = {
        "higher": "higher",
        "lower": "lower",
        "no difference": "no difference worth naming",
        "undecided": f"not told apart, though {abs(100 * row['detectable']):.1f} points would have been seen",
        "undecided: diverged runs": "not decided, since the diverged runs could turn the sign",
    }
    return f"{name}: {claims[row['verdict']]} ({figures})."


def turning(compared: pd.DataFrame, factors: Sequence[str]) -> list[str]:
    """A sentence where a difference is told from zero with one sign at some levels and with the other at others."""
    family = f"{factors[1]} at each {factors[0]}"
    simple = compared[compared["family"] == family]
    pair = simple["contrast"].str.rsplit(f", {factors[0]} ", n=1).str[0]
    told = []
    for name, rows in simple.groupby(pair, sort=False):
        if {"higher", "lower"} <= set(rows["verdict"]):
            at = rows["contrast"].str.rsplit(" ", n=1).str[-1]
            parts = [f"{points(size)} at {level}" for size, level in zip(rows["difference"], at, strict=True)]
            told.append(f"The sign of {name} turns with the {words(factors[0])}: {', '.join(parts)} (points).")
    return told


def unfinished(found: pd.DataFrame) -> list[str]:
    """How many of how many runs are shown, where some are still to come."""
    totals = found[["planned", "done", "diverged", "failed", "missing"]].sum()
    if not totals["failed"] + totals["missing"]:
        return []
    shown = totals["done"] + totals["diverged"]
    holes = f"{totals['failed']} failed, {totals['missing']} missing"
    return [f"Provisional: {shown} of {totals['planned']} runs ({holes})."]


def divergence(found: pd.DataFrame) -> list[str]:
    """What diverged runs could have changed in the means."""
    hit = found[found["diverged"] > 0]
    if hit.empty:
        return []
    reach = (hit["best"] - hit["worst"]).max()
    number = int(hit["diverged"].sum())
    return [
        f"{number} run{'s' * (number > 1)} diverged and {'are' if number > 1 else 'is'} left out of the means, "
        f"which {'they' if number > 1 else 'it'} could move by up to {100 * reach:.1f} points."
    ]


def population(table: pd.DataFrame, factors: Sequence[str], *, found: pd.DataFrame) -> str:
    """Whom the intervals speak about, and what kind of rows were compared."""
    names = ", ".join(sorted({str(name) for name in table["data_name"].dropna()})) if "data_name" in table else ""
    error = found["binomial_error"].max()
    images = f"; another test set of this size adds {100 * error:.1f} points of standard error" if error > 0 else ""
    kind = (
        "Only the token mixer and the named factors differ between the rows"
        if only_metaformer(table) and "token_mixer" in factors
        else "Whole backbones are compared, so no single part of them is credited"
        if "backbone" in factors
        else "Only the named factors differ between the rows"
    )
    return f"{kind}; intervals speak of new seeds on {names or 'this data'} and this test set{images}."


def only_metaformer(table: pd.DataFrame) -> bool:
    """Whether every row has the one body in which the token mixer is all that differs."""
    return bool((table["backbone"] == "metaformer").all())


def cell_label(row: Row, factors: Sequence[str]) -> str:
    """The row's cell in words."""
    return ", ".join(f"{words(factor)} {row[factor]}" for factor in factors)


def words(name: str) -> str:
    """A column's name as it reads in a sentence."""
    return name.replace("_", " ")


def percent(fraction: float, *, digits: int = 1) -> str:
    """A fraction as percent."""
    return f"{100 * fraction:.{digits}f} %"


def share(row: Row) -> str:
    """A share with its limits, in percent."""
    limits = "" if np.isnan(row["low"]) else f" [{100 * row['low']:.0f}, {100 * row['high']:.0f}]"
    return f"{percent(row['share'], digits=0)}{limits}"


def points(difference: float) -> str:
    """A difference of accuracies in percentage points, with its sign, finer where it is small."""
    value = 100 * difference
    return f"{value:+.2f}" if abs(value) < 1 else f"{value:+.1f}"


def p_text(p: float) -> str:
    """A p as it is printed."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
