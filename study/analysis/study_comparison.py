"""The same question with different things held equal, side by side: parameters, MACs, or width and depth.

Equal parameters alone confound: at small patches a ViT then spends three times ConvMixer's MACs. So the answer is given
for each budget; where its sign depends on the budget, that is the answer. Other groups of studies are compared in the same
way.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from study.analysis.contrast_results import SIGNIFICANT
from study.analysis.factor_ranges import DesignRanges
from study.analysis.factor_ranking import format_bounds
from study.analysis.labels import format_interval, format_option, format_points, format_sides, join_words


def join_contrasts(contrasts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The contrasts of several studies in one table, with the column `study` in front.

    `contrasts` maps the name of each study, such as "at equal parameters", to its table from `estimate_contrasts`.
    Population of the intervals: as there, for each study on its own; two studies' intervals say nothing about their
    difference, since their networks differ in width.
    """
    joined = pd.concat([found.assign(study=name) for name, found in contrasts.items()], ignore_index=True)
    return joined[["study", *(name for name in joined.columns if name != "study")]]


def compare_signs(joined: pd.DataFrame) -> pd.DataFrame:
    """One row per contrast of `join_contrasts` that several studies have: `contrast`, `primary`, `sign_change`.

    `sign_change`: "significant" where two studies have significant differences of opposite signs, "possible" where one of the
    opposite signs is not significant, "none" where all signs agree, "not significant" where no study has a significant
    difference.
    """
    rows = [
        {"contrast": name, "primary": own["primary"].iloc[0], "sign_change": _classify_signs(own)}
        for name, own in joined.groupby("contrast", sort=False)
        if own["difference"].notna().sum() > 1
    ]
    signs = pd.DataFrame(rows, columns=["contrast", "primary", "sign_change"])
    return signs.sort_values("primary", ascending=False, kind="stable", ignore_index=True)


def _classify_signs(own: pd.DataFrame) -> str:
    if not own["verdict"].isin(SIGNIFICANT).any():
        return "not significant"
    if set(SIGNIFICANT) <= set(own["verdict"]):
        return "significant"
    return "possible" if (own["difference"] > 0).any() and (own["difference"] < 0).any() else "none"


def summarize_studies(
    joined: pd.DataFrame, ranges: Mapping[str, Sequence[DesignRanges]], larger: Mapping[str, str | None], *, held: str
) -> list[str]:
    """Sentences about several studies: how the signs of primary contrasts agree, the ranges, which factor matters more.

    `ranges` and `larger` map each study to its ranges and to the factor that matters more there, if any is said to. `held` says
    what the studies differ in: "what is held equal".
    """
    primary = joined[joined["primary"]]
    signs = compare_signs(primary)
    return [
        *_count_sign_changes(signs, held=held, seeds=primary["n"]),
        *_list_ranges(ranges),
        *compare_factors(larger, held=held),
        *(
            _describe_signs(primary[primary["contrast"] == name].to_dict("records"), change, held=held)
            for name, change in zip(signs["contrast"], signs["sign_change"], strict=True)
        ),
    ]


def _list_ranges(ranges: Mapping[str, Sequence[DesignRanges]]) -> list[str]:
    """The range of each factor of three levels or more in every study; none where a study has none or several of it."""
    found: dict[str, dict[str, str]] = {}
    for where, designs in ranges.items():
        for own in designs[0].ranges if len(designs) == 1 else ():
            if len(own.levels) > 2:
                found.setdefault(own.factor, {})[where] = format_bounds(own.bounds)
    return [
        f"The range of the {format_option(factor)} is {join_words(f'{size} {where}' for where, size in sizes.items())}."
        for factor, sizes in found.items()
        if len(sizes) == len(ranges)
    ]


def compare_factors(larger: Mapping[str, str | None], *, held: str) -> list[str]:
    """Which factor matters more in each study, as one sentence; none where no study has such an answer."""
    claimed = {factor for factor in larger.values() if factor}
    if not claimed:
        return []
    if len(claimed) == 1 and all(larger.values()):
        return [f"The {format_option(claimed.pop())} matters more than the other factor {join_words(larger)}."]
    each = join_words(
        f"{f'the {format_option(factor)}' if factor else 'not decided'} {where}" for where, factor in larger.items()
    )
    return [f"Which factor matters more{f' depends on {held}' if len(claimed) > 1 else ''}: {each}."]


def _count_sign_changes(signs: pd.DataFrame, *, held: str, seeds: pd.Series) -> list[str]:
    if signs.empty:
        return []
    n = f"n = {seeds.min()} seeds in each" if seeds.nunique() == 1 else f"n = {seeds.min()} to {seeds.max()} seeds"
    count = signs["sign_change"].value_counts()
    kinds = ("significant", "possible", "none", "not significant")
    changed, possible, kept, insignificant = (int(count.get(kind, 0)) for kind in kinds)
    rest = [
        *([f"{kept} {'has' if kept == 1 else 'have'} the same sign wherever significant"] if kept else []),
        *([f"{insignificant} {'is' if insignificant == 1 else 'are'} significant nowhere"] if insignificant else []),
    ]
    if not changed + possible:
        return [f"No contrast changes sign with {held}: of {len(signs)} primary contrasts, {join_words(rest)}; {n}."]
    head = f"The sign changes with {held} in {changed} of {len(signs)} primary contrasts"
    doubtful = [f"may change in {possible} more (one of the two signs is not significant)"] if possible else []
    return [f"{join_words([head, *doubtful])}{'; ' if rest else ''}{join_words(rest)}; {n}."]


def _describe_signs(rows: Sequence[Mapping[Hashable, Any]], sign_change: str, *, held: str) -> str:
    row, sizes = rows[0], join_words(map(_describe_difference, rows))
    where = f"{row['where'][0].upper()}{row['where'][1:]}, " if row["where"] else ""
    ends = {"significant": f": the sign changes with {held}", "possible": f": the sign may change with {held}"}
    return f"{where}{format_sides(row['upper'], row['lower'])} is {sizes}{ends.get(sign_change, '')}."


def _describe_difference(row: Mapping[Hashable, Any]) -> str:
    limits = format_interval(row["low"], row["high"], digits=2, signed=True)
    details = [*([] if limits == "–" else [limits]), *([] if row["verdict"] in SIGNIFICANT else ["not significant"])]
    size = format_points(row["difference"], signed=True)
    inside = f" ({'; '.join(details)})" if details else ""
    return f"{size}{inside} {row['study']}"
