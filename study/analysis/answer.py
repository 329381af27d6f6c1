"""The answer to the sweep's question in plain sentences, each number with its uncertainty and n.

What is claimed depends on what the runs support. Cells that do not exceed the baseline give "undertrained: no answer"; fewer
than three seeds give differences without a claim; an unfinished sweep is reported as such first. Only metaformer sweeps, in
which nothing but the token mixer differs, compare "attention"; whole architectures are compared as "backbone".
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from study.analysis.cell_grid import TEST_ACCURACY, Level, read_cells
from study.analysis.cell_means import clip_intervals
from study.analysis.contrast_results import SIGNIFICANT
from study.analysis.intervals import MIN_SEEDS
from study.analysis.labels import format_cell, format_interval, format_option, format_percent, format_term, join_words
from study.analysis.study_results import StudyResults, Unavailable
from study.analysis.variance_shares import compare_shares

_Row = Mapping[Hashable, Any]

CONTROLS: Mapping[str, tuple[Level, ...]] = {"token_mixer": ("identity", "random")}
"""Levels that are in a study to be poor: they need not exceed the baseline."""

_ACCURACY = format_option(TEST_ACCURACY)


@dataclass(frozen=True)
class FactorComparison:
    """Which of two factors explains more of the variance; inconclusive where `decided` is False."""

    more: str  # factors, in words
    less: str
    shares: tuple[float, float]  # of more and less; fractions
    decided: bool

    def describe_shares(self, *, named: bool) -> str:
        """Both shares, such as "backbone 38 %, patch size 10 %"; without the names where `named` is False."""
        pairs = zip((self.more, self.less), self.shares, strict=True)
        return ", ".join(f"{f'{name} ' if named else ''}{format_percent(share, digits=0)} %" for name, share in pairs)


@dataclass(frozen=True)
class Answer:
    """The answer and how far it goes; the first sentence can stand alone and ends in a count of the contrasts' verdicts."""

    state: Literal["answered", "provisional", "too few seeds", "too few cells", "undertrained", "no runs"]
    sentences: tuple[str, ...]
    factor_comparison: FactorComparison | None = None

    @property
    def text(self) -> str:
        """All sentences as one paragraph."""
        return " ".join(self.sentences)


def answer_question(study: StudyResults, *, baseline: float | None = None) -> Answer:
    """The answer that the study's runs give about its factors; every cell but controls has to exceed the `baseline` (fraction).

    Population: new training seeds on this data, evaluated on this test set, at these levels.
    """
    cells, factors = study.cells, study.varied
    if not cells["n"].sum():
        return Answer("no runs", (f"No answer: none of the {cells['planned'].sum()} runs is done.",))
    progress = _describe_progress(cells)
    if not factors:
        return Answer("provisional" if progress else "answered", (*progress, _describe_single_cell(cells)))
    tested = cells[~cells[factors].isin(dict(CONTROLS)).any(axis=1)]
    if baseline is not None and len(low := tested[tested["mean"] <= baseline]):
        return Answer("undertrained", (*progress, *_explain_undertrained(low, factors, baseline)))
    contrasts = study.contrasts
    if isinstance(contrasts, Unavailable):
        return Answer("too few cells", (*progress, f"No answer: {contrasts.reason[0].lower()}{contrasts.reason[1:]}"))
    first = contrasts[contrasts["family"] == contrasts["family"].iloc[0]]
    sentences = [_describe_contrast(row) for row in first.to_dict("records")]
    if first["n"].max() < MIN_SEEDS:
        return Answer("too few seeds", (*progress, _explain_few_seeds(int(first["n"].max())), *sentences))
    comparison = None
    if len(factors) > 1:
        comparison, shares = _compare_factors(study)
        sentences = [*shares, *sentences, *_describe_sign_changes(contrasts, factors)]
    sentences[0] = f"{sentences[0]} {_count_verdicts(contrasts)}"
    sentences += _describe_divergence(cells)
    if baseline is not None:
        lowest = f"{format_percent(tested['mean'].min())} %"
        sentences.append(
            f"All non-control cells exceed the linear baseline of {format_percent(baseline)} % (lowest mean {lowest})."
        )
    sentences.append(_describe_population(study.table, factors, cells=cells))
    return Answer("provisional" if progress else "answered", (*progress, *sentences), comparison)


def _count_verdicts(contrasts: pd.DataFrame) -> str:
    """The verdicts of all planned contrasts, so that a headline shows how many are inconclusive."""
    significant = int(contrasts["verdict"].isin(SIGNIFICANT).sum())
    equivalent = int((contrasts["verdict"] == "equivalent").sum())
    counts = [(significant, "significantly different from zero (adjusted)")]
    if equivalent:
        counts.append((equivalent, "equivalent within the margin"))
    counts.append((len(contrasts) - significant - equivalent, "inconclusive"))
    parts = [f"{count} {'is' if count == 1 else 'are'} {what}" for count, what in counts]
    return f"Of {len(contrasts)} planned contrasts, {join_words(parts)}."


def _explain_undertrained(low: pd.DataFrame, factors: Sequence[str], baseline: float) -> tuple[str, str]:
    count = f"{len(low)} cell{'s do' if len(low) > 1 else ' does'} not exceed"
    cells = zip(read_cells(low, factors), low["mean"], strict=True)
    named = "; ".join(f"{format_cell(factors, cell)} ({format_percent(mean)} %)" for cell, mean in cells)
    return (
        f"Undertrained: no answer. {count} the linear baseline of {format_percent(baseline)} % {_ACCURACY}: {named}.",
        "Accuracies at or below a linear model on pixels show how far training went, not what the factors contribute.",
    )


def _describe_single_cell(cells: pd.DataFrame) -> str:
    row = clip_intervals(cells).iloc[0]
    limits = "" if np.isnan(row["low"]) else f", 95 % interval {format_interval(row['low'], row['high'])}"
    seeds = f"n = {row['n']} seed{'s' if row['n'] > 1 else ''}"
    mean = f"{_ACCURACY} {format_percent(row['mean'])} % ({seeds}{limits})"
    return f"No factor varies, so there is no comparison: {mean}."


def _explain_few_seeds(most: int) -> str:
    if not most:
        return f"No answer: no seed has both runs of any contrast; at least {MIN_SEEDS} such seeds are needed."
    return f"No answer: {most} seed{'s' if most > 1 else ''}, and at least {MIN_SEEDS} are needed to estimate the spread."


def _compare_factors(study: StudyResults) -> tuple[FactorComparison | None, list[str]]:
    """Which of the first two factors explains more of the variance, and the sentence about it."""
    found = study.decomposition
    if isinstance(found, Unavailable):
        return None, [f"No shares of the variance: {found.reason[0].lower()}{found.reason[1:]}"]
    rows = {row["term"]: row for row in found.to_dict("records")}
    single = [name for name in rows if name in study.varied]
    if len(single) < 2:
        return None, []
    one, two = sorted(single[:2], key=lambda factor: -rows[factor]["share"])
    _, low, _ = compare_shares(study.table, study.varied, first=one, second=two)
    more, less = format_option(one), format_option(two)
    comparison = FactorComparison(more, less, (rows[one]["share"], rows[two]["share"]), decided=low > 0)
    claim = f"The {more} explains more of the variance than the {less}"
    if not comparison.decided:
        claim = f"It is inconclusive whether the {more} or the {less} explains more of the variance"
    others = [
        f"{format_term(name)} {format_percent(rows[name]['share'], digits=0)} %" for name in rows if name not in (one, two)
    ]
    levels = [f"{format_option(factor)} {rows[factor]['levels']}" for factor in single]
    size = f"{found['n'].iloc[0]} seeds, {found['runs'].iloc[0]} runs"
    details = "; ".join(part for part in (", ".join(others), *levels, size, found["note"].iloc[0]) if part)
    both = f"{more} {_format_share(rows[one])}, {less} {_format_share(rows[two])}"
    return comparison, [f"{claim}: {both} of the variance in {_ACCURACY} ({details})."]


def _describe_contrast(row: _Row) -> str:
    """One contrast in words: what may be claimed, the difference in points, its interval, n."""
    where = f"{row['where'][0].upper()}{row['where'][1:]}, " if row["where"] else ""
    upper, lower, size = row["upper"], row["lower"], format_points(row["difference"], signed=True)
    if np.isnan(row["difference"]):
        return f"{where}{upper} − {lower}: no seed has all the runs that it needs."
    if np.isnan(row["low"]):
        return f"{where}{upper} − {lower}: {size} of {_ACCURACY} ({row['note']})."
    limits = format_interval(row["low"], row["high"], digits=2, signed=True)
    p = "p < 0.001" if row["p_adjusted"] < 0.001 else f"p = {row['p_adjusted']:.3f}"
    numbers = f"{size}, {limits}; n = {row['n']} seeds, adjusted {p}"
    distance, margin = format_points(row["difference"]), format_points(row["margin"])
    claims = {
        "higher": f"{upper} is {distance} higher than {lower} ({numbers}).",
        "lower": f"{upper} is {distance} lower than {lower} ({numbers}).",
        "equivalent": f"{upper} and {lower} are equivalent within {margin} ({numbers}).",
        "inconclusive": f"the comparison of {upper} with {lower} is inconclusive ({numbers}).",
        "inconclusive: diverged runs": f"the comparison of {upper} with {lower} is inconclusive, because the diverged runs "
        f"could change its sign ({numbers}).",
    }
    claim = claims[row["verdict"]]
    return f"{where}{claim}" if where else f"{claim[0].upper()}{claim[1:]}"


def _describe_sign_changes(contrasts: pd.DataFrame, factors: Sequence[str]) -> list[str]:
    """A sentence for each difference that is significant with one sign at some levels and with the other at others."""
    simple = contrasts[contrasts["family"] == f"{format_option(factors[1])} at each {format_option(factors[0])}"]
    sentences = []
    for (upper, lower), rows in simple.groupby(["upper", "lower"], sort=False):
        if set(SIGNIFICANT) <= set(rows["verdict"]):
            pairs = zip(rows["difference"], rows["where"], strict=True)
            sizes = join_words(f"{format_points(size, signed=True)} {where}" for size, where in pairs)
            sentences.append(f"The sign of {upper} − {lower} changes with the {format_option(factors[0])}: {sizes}.")
    return sentences


def _describe_progress(cells: pd.DataFrame) -> list[str]:
    totals = cells[["planned", "done", "diverged", "failed", "missing"]].sum()
    if not totals["failed"] + totals["missing"]:
        return []
    shown = f"{totals['done'] + totals['diverged']} of {totals['planned']} runs"
    return [f"Provisional: {shown} ({totals['failed']} failed, {totals['missing']} missing)."]


def _describe_divergence(cells: pd.DataFrame) -> list[str]:
    diverged = cells[cells["diverged"] > 0]
    if diverged.empty:
        return []
    number = int(diverged["diverged"].sum())
    are, they = ("runs diverged and are", "they") if number > 1 else ("run diverged and is", "it")
    reach = format_points((diverged["best"] - diverged["worst"]).max())
    return [f"{number} {are} excluded from the means, which {they} could change by up to {reach}."]


def _describe_population(table: pd.DataFrame, factors: Sequence[str], *, cells: pd.DataFrame) -> str:
    """The population of the intervals, and whether parts or whole backbones were compared."""
    names = sorted(set(table["data_name"].dropna().replace("folder", "this image folder"))) if "data_name" in table else []
    images = "these test images" if cells["images"].isna().all() else "new test images"
    metaformer_only = bool((table["backbone"] == "metaformer").all())
    kind = "Only the named factors differ between the rows"
    if "backbone" in factors or ("token_mixer" in factors and not metaformer_only):
        kind = "Whole backbones are compared, so no effect is attributed to a single part of them"
    return f"{kind}; intervals refer to new training seeds on {join_words(names) or 'this data'} and {images}."


def _format_share(row: _Row) -> str:
    low, high = (format_percent(row[name], digits=0) for name in ("low", "high"))
    limits = "" if np.isnan(row["low"]) else f" [{low}, {high}]"
    return f"{format_percent(row['share'], digits=0)} %{limits}"


def format_points(difference: float, *, signed: bool = False) -> str:
    """A difference of accuracies (fraction) in percentage points."""
    return f"{format_percent(difference if signed else abs(difference), digits=2, signed=signed)} points"
