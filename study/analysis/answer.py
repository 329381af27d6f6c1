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

from study.analysis.cell_grid import TEST_ACCURACY, Level, read_grid
from study.analysis.cell_means import clip_intervals, describe_cell, summarize_cells
from study.analysis.contrast_results import EQUIVALENCE_MARGIN, estimate_contrasts
from study.analysis.intervals import MIN_SEEDS
from study.analysis.labels import format_interval, format_option, format_percent, format_term, join_words
from study.analysis.planned_contrasts import plan_contrasts
from study.analysis.variance_shares import compare_shares, decompose_variance
from study.errors import UserError

_Row = Mapping[Hashable, Any]

CONTROLS: Mapping[str, tuple[Level, ...]] = {"token_mixer": ("identity", "random")}
"""Levels that are in a study to be poor: they needn't clear the baseline."""


@dataclass(frozen=True)
class FactorComparison:
    """Which of two factors carries more of the variation, or that this can't be told (`decided` is False)."""

    more: str  # factors, in words
    less: str
    shares: tuple[float, float]  # of more and less
    decided: bool

    @property
    def shares_text(self) -> str:
        """Both shares: "38 % of the variation against 10 %"."""
        first, second = (format_percent(share, digits=0) for share in self.shares)
        return f"{first} % of the variation against {second} %"

    @property
    def named_shares_text(self) -> str:
        """Both shares by name: "backbone 38 % of the variation, patch size 10 %"."""
        first, second = (format_percent(share, digits=0) for share in self.shares)
        return f"{self.more} {first} % of the variation, {self.less} {second} %"


@dataclass(frozen=True)
class Answer:
    """The answer and how far it goes; the first sentence can stand alone, with what the contrasts came to behind it."""

    state: Literal["answered", "provisional", "too few seeds", "too few cells", "undertrained", "no runs"]
    sentences: tuple[str, ...]
    factor_comparison: FactorComparison | None = None

    @property
    def text(self) -> str:
        """All sentences as one paragraph."""
        return " ".join(self.sentences)


def answer_question(table: pd.DataFrame, levels: Mapping[str, Sequence[Level]], *, baseline: float | None = None) -> Answer:
    """What the table says about the factors in `levels`: the sweep's axes, patch size first, none fixed by the others.

    `baseline`: the accuracy (fraction) that every cell has to clear, such as logistic regression on pixels. Population:
    new seeds on this data, judged by this test set, at these levels.
    """
    factors = [factor for factor, values in levels.items() if len(set(values)) > 1]
    if not factors:
        return single_cell(summarize_cells(table, list(levels)))
    found = summarize_cells(table, factors)
    if not found["n"].sum():
        return Answer("no runs", (f"No answer: none of the {found['planned'].sum()} runs is done.",))
    short = below_baseline(found, factors, baseline=baseline)
    if short:
        return Answer("undertrained", (*unfinished(found), *undertrained(short, baseline or 0.0)))
    kept = read_grid(table, factors).cells
    plan = plan_contrasts({factor: levels[factor] for factor in factors}, cells=kept)
    if not plan:
        return Answer("too few cells", (*unfinished(found), "No answer: no two cells differ in one factor alone."))
    compared = estimate_contrasts(table, plan)
    lead = compared[compared["family"] == compared["family"].iloc[0]]
    sentences = [difference_sentence(row) for row in lead.to_dict("records")]
    if lead["n"].max() < MIN_SEEDS:
        return Answer("too few seeds", (*unfinished(found), few_seeds(int(lead["n"].max())), *sentences))
    weighing = None
    if len(factors) > 1:
        weighing, head = shares_of(table, factors)
        sentences = [*head, *sentences, *turning(compared, factors)]
    sentences[0] = f"{sentences[0]} {_count_verdicts(compared)}"
    remarks = [
        *divergence(found),
        *cleared(without_controls(found, factors), baseline),
        population(table, factors, found=found),
    ]
    told = unfinished(found)
    return Answer("provisional" if told else "answered", (*told, *sentences, *remarks), weighing)


def _count_verdicts(compared: pd.DataFrame) -> str:
    """What all planned contrasts came to, so that no headline hides how much is undecided."""
    told = int(compared["verdict"].isin(["higher", "lower"]).sum())
    equal = int((compared["verdict"] == "no difference").sum())
    within = f", {equal} {'lies' if equal == 1 else 'lie'} within {format_points(EQUIVALENCE_MARGIN)} of zero" if equal else ""
    rest = len(compared) - told - equal
    return f"Of {len(compared)} planned contrasts {told} {'is' if told == 1 else 'are'} told from zero{within}, {rest} " + (
        "is undecided." if rest == 1 else "are undecided."
    )


def below_baseline(found: pd.DataFrame, factors: Sequence[str], *, baseline: float | None) -> list[str]:
    """Cells, controls apart, whose mean accuracy doesn't lie above the baseline."""
    if baseline is None:
        return []
    own = without_controls(found, factors)
    short = own[(own["mean"] <= baseline).to_numpy(dtype=bool)].to_dict("records")
    return [f"{describe_cell(factors, tuple(row[f] for f in factors))} ({format_percent(row['mean'])} %)" for row in short]


def without_controls(found: pd.DataFrame, factors: Sequence[str]) -> pd.DataFrame:
    """The cells that are in the study to be good."""
    control = np.zeros(len(found), dtype=bool)
    for factor in factors:
        control |= found[factor].isin(CONTROLS.get(factor, ())).to_numpy(dtype=bool)
    return found[~control]


def undertrained(short: Sequence[str], baseline: float) -> tuple[str, str]:
    """The sentences of a study whose cells don't clear the baseline."""
    many = f"{len(short)} cell{'s do' if len(short) > 1 else ' does'} not clear"
    return (
        f"Undertrained: no answer. {many} the baseline of {format_percent(baseline)} % {format_option(TEST_ACCURACY)}: "
        f"{'; '.join(short)}.",
        "Networks that a linear model on pixels equals show how far training went, not which part carries accuracy.",
    )


def single_cell(found: pd.DataFrame) -> Answer:
    """What a study of one cell says: its accuracy, and that there was nothing to compare."""
    row = clip_intervals(found).iloc[0]
    if not row["n"]:
        return Answer("no runs", (f"No answer: none of the {row['planned']} runs is done.",))
    limits = f", 95 % interval {format_interval(row['low'], row['high'])}" if row["low"] == row["low"] else ""
    seeds = f"n = {row['n']} seed{'s' if row['n'] > 1 else ''}"
    mean = f"{format_option(TEST_ACCURACY)} {format_percent(row['mean'])} % ({seeds}{limits})"
    told = f"Nothing is varied, so nothing is compared: {mean}."
    standing = unfinished(found)
    return Answer("provisional" if standing else "answered", (*standing, told))


def few_seeds(most: int) -> str:
    """Why nothing is claimed: so few seeds have both runs of a comparison."""
    if not most:
        return f"No answer: no seed has both runs of any comparison; {MIN_SEEDS} such seeds are the fewest."
    many = f"{most} seed{'s show' if most > 1 else ' shows'}"
    return f"No answer: {many} no spread, so nothing can be said about other seeds; {MIN_SEEDS} are the fewest."


def shares_of(table: pd.DataFrame, factors: Sequence[str]) -> tuple[FactorComparison | None, list[str]]:
    """Which of the first two factors carries more of the variation, and the sentence that says so."""
    try:
        found = decompose_variance(table, factors)
    except UserError as error:
        return None, [f"No shares of the variation: the study's {error.problems[0]}."]
    rows = {row["term"]: row for row in found.to_dict("records")}
    single = [name for name in rows if name in factors]
    if len(single) < 2:
        return None, []
    one, two = sorted(single[:2], key=lambda factor: -rows[factor]["share"])
    _, low, _ = compare_shares(table, factors, first=one, second=two)
    weighing = FactorComparison(
        format_option(one), format_option(two), (rows[one]["share"], rows[two]["share"]), decided=low > 0
    )
    told = (
        f"The {format_option(one)} carries more than the {format_option(two)}"
        if low > 0
        else "Which carries more can't be told"
    )
    both = f"{format_option(one)} {_format_share(rows[one])}, {format_option(two)} {_format_share(rows[two])}"
    rest = [f"{format_term(name)} {format_percent(rows[name]['share'], digits=0)} %" for name in rows if name not in (one, two)]
    where = [f"{format_option(factor)} {rows[factor]['levels']}" for factor in single]
    size = f"{found['n'].iloc[0]} seeds, {found['runs'].iloc[0]} runs"
    remarks = [part for part in (", ".join(rest), *where, size, str(found["note"].iloc[0])) if part]
    return weighing, [f"{told}: {both} of the variation in {format_option(TEST_ACCURACY)} ({'; '.join(remarks)})."]


def difference_sentence(row: _Row) -> str:
    """One contrast in words: what may be claimed, the difference in points, its interval, n."""
    where = f"{row['where'][0].upper()}{row['where'][1:]}, " if row["where"] else ""
    upper, lower, size = row["upper"], row["lower"], format_points(row["difference"], signed=True)
    if np.isnan(row["difference"]):
        return f"{where}{upper} − {lower}: no seed has all the runs that it needs."
    if np.isnan(row["low"]):
        return f"{where}{upper} − {lower}: {size} of {format_option(TEST_ACCURACY)} ({row['note']})."
    limits = format_interval(row["low"], row["high"], digits=2, signed=True)
    figures = f"{size}, {limits}; n = {row['n']} seeds, Holm {format_p(row['p_holm'])}"
    seen = f"{format_points(row['detectable'])} would have been seen in four of five such studies"
    claims = {
        "higher": f"{upper} is {format_points(row['difference'])} above {lower} ({figures}).",
        "lower": f"{upper} is {format_points(row['difference'])} below {lower} ({figures}).",
        "no difference": f"{upper} and {lower} differ by less than {format_points(EQUIVALENCE_MARGIN)}, if at all ({figures}).",
        "undecided": f"{upper} and {lower} can't be told apart ({figures}); {seen}.",
        "undecided: diverged runs": f"the diverged runs could turn the sign of {upper} − {lower} ({figures}).",
    }
    told = claims[row["verdict"]]
    return f"{where}{told}" if where else f"{told[0].upper()}{told[1:]}"


def turning(compared: pd.DataFrame, factors: Sequence[str]) -> list[str]:
    """A sentence where a difference is told from zero with one sign at some levels and with the other at others."""
    simple = compared[compared["family"] == f"{format_option(factors[1])} at each {format_option(factors[0])}"]
    told = []
    for (upper, lower), rows in simple.groupby(["upper", "lower"], sort=False):
        if {"higher", "lower"} <= set(rows["verdict"]):
            pairs = zip(rows["difference"], rows["where"], strict=True)
            parts = [f"{format_points(size, signed=True)} {where}" for size, where in pairs]
            told.append(f"The sign of {upper} − {lower} turns with the {format_option(factors[0])}: {join_words(parts)}.")
    return told


def unfinished(found: pd.DataFrame) -> list[str]:
    """How many of how many runs are shown, where some are still to come."""
    totals = found[["planned", "done", "diverged", "failed", "missing"]].sum()
    if not totals["failed"] + totals["missing"]:
        return []
    shown = f"{totals['done'] + totals['diverged']} of {totals['planned']} runs"
    return [f"Provisional: {shown} ({totals['failed']} failed, {totals['missing']} missing)."]


def divergence(found: pd.DataFrame) -> list[str]:
    """What diverged runs could have changed in the means."""
    hit = found[found["diverged"] > 0]
    if hit.empty:
        return []
    number = int(hit["diverged"].sum())
    are, they = ("runs diverged and are", "they") if number > 1 else ("run diverged and is", "it")
    reach = format_points((hit["best"] - hit["worst"]).max())
    return [f"{number} {are} left out of the means, which {they} could move by up to {reach}."]


def cleared(own: pd.DataFrame, baseline: float | None) -> list[str]:
    """That the cells lie above the baseline, where one was given."""
    if baseline is None:
        return []
    lowest = format_percent(own["mean"].min())
    return [f"Every cell that is no control clears the baseline of {format_percent(baseline)} % (lowest mean {lowest} %)."]


def population(table: pd.DataFrame, factors: Sequence[str], *, found: pd.DataFrame) -> str:
    """Whom the intervals speak about, and what kind of rows were compared."""
    names = sorted(set(table["data_name"].dropna().replace("folder", "this image folder"))) if "data_name" in table else []
    error = found["binomial_error"].max()
    images = f"; another test set of this size adds {format_points(error)} of standard error to each cell" if error > 0 else ""
    kind = "Only the named factors differ between the rows"
    if "backbone" in factors or ("token_mixer" in factors and not only_metaformer(table)):
        kind = "Whole backbones are compared, so no single part of them is credited"
    data = join_words(names) or "this data"
    return f"{kind}; intervals speak of new seeds on {data} and this test set{images}."


def only_metaformer(table: pd.DataFrame) -> bool:
    """Whether every row has the one body in which the token mixer is all that differs."""
    return bool((table["backbone"] == "metaformer").all())


def _format_share(row: _Row) -> str:
    """A share with its limits, in percent."""
    limits = (
        "" if np.isnan(row["low"]) else f" [{format_percent(row['low'], digits=0)}, {format_percent(row['high'], digits=0)}]"
    )
    return f"{format_percent(row['share'], digits=0)} %{limits}"


def format_points(difference: float, *, signed: bool = False) -> str:
    """A difference of accuracies in percentage points."""
    return f"{format_percent(difference if signed else abs(difference), digits=2, signed=signed)} points"


def format_p(p: float) -> str:
    """A p as it is printed."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
