"""The same question with different things held equal, side by side: parameters, MACs, or width and depth.

Equal parameters alone confound: at small patches a ViT then spends three times ConvMixer's MACs. So the answer is given
for each budget; where its sign depends on the budget, that is the answer. Other groups of studies are compared in the same
way.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from study.analysis.answer import FactorComparison, format_points
from study.analysis.contrast_results import SIGNIFICANT
from study.analysis.labels import format_interval, join_words

CONTRAST = ["upper", "lower", "where"]
"""The columns that identify a contrast in all studies."""


def join_contrasts(contrasts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The contrasts of several studies in one table, with the column `study` in front.

    `contrasts` maps the name of each study, such as "at equal parameters", to its table from `estimate_contrasts`.
    Population of the intervals: as there, for each study on its own; two studies' intervals say nothing about their
    difference, since their networks differ in width.
    """
    joined = pd.concat([found.assign(study=name) for name, found in contrasts.items()], ignore_index=True)
    return joined[["study", *(name for name in joined.columns if name != "study")]]


def compare_signs(joined: pd.DataFrame) -> pd.DataFrame:
    """One row per contrast of `join_contrasts` that several studies have: `CONTRAST`, `family`, `sign_change`.

    `sign_change`: "significant" where two studies have significant differences of opposite signs, "possible" where one of the
    opposite signs is not significant, "none" where all signs agree, "not significant" where no study has a significant
    difference.
    """
    rows = [
        {**dict(zip(CONTRAST, key, strict=True)), "family": own["family"].iloc[0], "sign_change": _classify_signs(own)}
        for key, own in joined.groupby(CONTRAST, sort=False)
        if own["difference"].notna().sum() > 1
    ]
    return pd.DataFrame(rows, columns=[*CONTRAST, "family", "sign_change"])


def _classify_signs(own: pd.DataFrame) -> str:
    if not own["verdict"].isin(SIGNIFICANT).any():
        return "not significant"
    if set(SIGNIFICANT) <= set(own["verdict"]):
        return "significant"
    return "possible" if (own["difference"] > 0).any() and (own["difference"] < 0).any() else "none"


def summarize_studies(joined: pd.DataFrame, comparisons: Mapping[str, FactorComparison | None], *, held: str) -> list[str]:
    """Sentences about several studies: which factor explains more in each, then how the signs of the contrasts agree.

    Contrasts of the first family are described, and all others whose sign changes. `held` says what the studies differ in:
    "what is held equal".
    """
    signs = compare_signs(joined)
    first = signs["family"] == joined["family"].iloc[0]
    changed = [signs[~first & (signs["sign_change"] == kind)] for kind in ("significant", "possible")]
    return [
        *compare_factor_shares(comparisons, held=held, seeds=joined["n"]),
        *_count_sign_changes(signs, held=held),
        *(_describe_signs(row, joined, held=held) for rows in (signs[first], *changed) for row in rows.to_dict("records")),
    ]


def compare_factor_shares(comparisons: Mapping[str, FactorComparison | None], *, held: str, seeds: pd.Series) -> list[str]:
    """Which factor explains more of the variance in each study, as one sentence; none where a study has no such answer."""
    known = {where: comparison for where, comparison in comparisons.items() if comparison}
    if len(known) < len(comparisons):
        return []
    n = f"n = {seeds.min()} seeds in each" if seeds.nunique() == 1 else f"n = {seeds.min()} to {seeds.max()} seeds"
    decided = {comparison.more for comparison in known.values() if comparison.decided}
    if len(decided) == 1 and all(comparison.decided for comparison in known.values()):
        first = next(iter(known.values()))
        each = join_words(f"{where} ({comparison.describe_shares(named=False)})" for where, comparison in known.items())
        return [f"The {first.more} explains more of the variance than the {first.less} {each}; {n}."]
    each = join_words(
        f"{f'the {found.more}' if found.decided else 'inconclusive'} {where} ({found.describe_shares(named=True)})"
        for where, found in known.items()
    )
    claim = "Which factor explains more of the variance" + (f" depends on {held}" if len(decided) > 1 else "")
    return [f"{claim}: {each}; {n}."]


def _count_sign_changes(signs: pd.DataFrame, *, held: str) -> list[str]:
    if signs.empty:
        return []
    count = signs["sign_change"].value_counts()
    kinds = ("significant", "possible", "none", "not significant")
    changed, possible, kept, insignificant = (int(count.get(kind, 0)) for kind in kinds)
    rest = [
        *([f"{kept} {'has' if kept == 1 else 'have'} the same sign wherever significant"] if kept else []),
        *([f"{insignificant} {'is' if insignificant == 1 else 'are'} significant nowhere"] if insignificant else []),
    ]
    if not changed + possible:
        return [f"No contrast changes sign with {held}: of {len(signs)} planned contrasts, {join_words(rest)}."]
    head = f"The sign changes with {held} in {changed} of {len(signs)} planned contrasts"
    doubtful = [f"may change in {possible} more (one of the two signs is not significant)"] if possible else []
    return [f"{join_words([head, *doubtful])}{'; ' if rest else ''}{join_words(rest)}."]


def _describe_signs(row: Mapping[Hashable, Any], joined: pd.DataFrame, *, held: str) -> str:
    own = joined[(joined[CONTRAST] == [row[name] for name in CONTRAST]).all(axis=1)]
    sizes = join_words(_describe_difference(one) for one in own.to_dict("records"))
    where = f"{row['where'][0].upper()}{row['where'][1:]}, " if row["where"] else ""
    ends = {"significant": f": the sign changes with {held}", "possible": f": the sign may change with {held}"}
    return f"{where}{row['upper']} − {row['lower']} is {sizes}{ends.get(row['sign_change'], '')}."


def _describe_difference(row: Mapping[Hashable, Any]) -> str:
    limits = format_interval(row["low"], row["high"], digits=2, signed=True)
    details = [*([] if limits == "–" else [limits]), *([] if row["verdict"] in SIGNIFICANT else ["not significant"])]
    size = format_points(row["difference"], signed=True)
    inside = f" ({'; '.join(details)})" if details else ""
    return f"{size}{inside} {row['study']}"
