"""The same question with different things held equal, side by side: parameters, MACs, or width and depth.

Equal parameters alone confound: at small patches a ViT then spends three times ConvMixer's MACs. So the answer is given
for each budget, and where its sign depends on the budget, that is the answer. Studies of other kinds are put side by side
in the same way.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from study.analysis.answer import FactorComparison
from study.analysis.cell_grid import Level, collect_levels, read_grid
from study.analysis.contrast_results import estimate_contrasts
from study.analysis.labels import format_interval, format_percent, join_words
from study.analysis.planned_contrasts import plan_contrasts

CLAIMS = ("higher", "lower")
CONTRAST = ["upper", "lower", "where"]
"""What is the same contrast in all studies."""


def compare_studies(tables: Mapping[str, pd.DataFrame], factors: Sequence[str]) -> pd.DataFrame:
    """The contrasts of several run tables under each other, with the column `study` in front.

    `tables` maps what is particular to a study, such as "at equal parameters", to its table. Each study is compared over
    its own levels of the factors. Population of the intervals: as in `contrasts`, for each study on its own; two studies'
    intervals say nothing about their difference, since their networks differ in width.
    """
    frames = []
    for name, table in tables.items():
        levels: dict[str, tuple[Level, ...]] = collect_levels(table, factors)
        kept = [factor for factor, values in levels.items() if len(values) > 1]
        plan = plan_contrasts({factor: levels[factor] for factor in kept}, cells=read_grid(table, kept).cells)
        frames.append(estimate_contrasts(table, plan).assign(study=name))
    joined = pd.concat(frames, ignore_index=True)
    return joined[["study", *(name for name in joined.columns if name != "study")]]


def compare_signs(compared: pd.DataFrame) -> pd.DataFrame:
    """One row per contrast of `side_by_side` that several studies have: what became of its sign.

    `turns`: "firm" where two studies tell it from zero with opposite signs, "perhaps" where the other sign isn't told from
    zero, "no" where all signs agree, "untold" where no study tells it from zero.
    """
    rows = []
    for key, own in compared.groupby(CONTRAST, sort=False):
        if own["difference"].notna().sum() > 1:
            rows.append(
                {**dict(zip(CONTRAST, key, strict=True)), "family": own["family"].iloc[0], "turns": _classify_signs(own)}
            )
    return pd.DataFrame(rows, columns=[*CONTRAST, "family", "turns"])


def _classify_signs(own: pd.DataFrame) -> str:
    """What became of one contrast's sign over the studies."""
    if not own["verdict"].isin(CLAIMS).any():
        return "untold"
    if set(CLAIMS) <= set(own["verdict"]):
        return "firm"
    return "perhaps" if (own["difference"] > 0).any() and (own["difference"] < 0).any() else "no"


def summarize_studies(compared: pd.DataFrame, weighings: Mapping[str, FactorComparison | None], *, held: str) -> list[str]:
    """The answers of several studies in relation: who carries more in each, then how the contrasts' signs agree.

    Named are the contrasts of the first family, and all others whose sign differs. `held` says what the studies differ in:
    "what is held equal".
    """
    found = compare_signs(compared)
    lead = found["family"] == compared["family"].iloc[0]
    turned = [found[~lead & (found["turns"] == kind)] for kind in ("firm", "perhaps")]
    return [
        *compare_factor_shares(weighings, held=held, seeds=compared["n"]),
        *_count_signs(found, held=held),
        *(sentence(row, compared, held=held) for rows in (found[lead], *turned) for row in rows.to_dict("records")),
    ]


def compare_factor_shares(weighings: Mapping[str, FactorComparison | None], *, held: str, seeds: pd.Series) -> list[str]:
    """Which factor carries more in each study, as one sentence with n; none where a study has no such answer."""
    known = {where: weighing for where, weighing in weighings.items() if weighing}
    if len(known) < len(weighings):
        return []
    n = f"n = {seeds.min()} seeds in each" if seeds.nunique() == 1 else f"n = {seeds.min()} to {seeds.max()} seeds"
    decided = {weighing.more for weighing in known.values() if weighing.decided}
    if len(decided) == 1 and all(weighing.decided for weighing in known.values()):
        first = next(iter(known.values()))
        each = join_words(f"{where} ({weighing.shares_text})" for where, weighing in known.items())
        return [f"The {first.more} carries more than the {first.less} {each}; {n}."]
    told = join_words(
        f"{f'the {weighing.more}' if weighing.decided else 'undecided'} {where} ({weighing.named_shares_text})"
        for where, weighing in known.items()
    )
    head = f"Which factor carries more depends on {held}" if len(decided) > 1 else "Which factor carries more"
    return [f"{head}: {told}; {n}."]


def _count_signs(found: pd.DataFrame, *, held: str) -> list[str]:
    """How many contrasts keep their sign."""
    if found.empty:
        return []
    count = found["turns"].value_counts()
    firm, maybe, kept, untold = (int(count.get(kind, 0)) for kind in ("firm", "perhaps", "no", "untold"))
    rest = [
        *([f"{kept} {'has' if kept == 1 else 'have'} one sign wherever told from zero"] if kept else []),
        *([f"{untold} {'is' if untold == 1 else 'are'} told from zero nowhere"] if untold else []),
    ]
    if not firm + maybe:
        return [f"No sign turns with {held}: of {len(found)} planned contrasts {join_words(rest)}."]
    head = f"The sign turns with {held} in {firm} of {len(found)} planned contrasts"
    doubtful = [f"may turn in {maybe} more (one of the two signs isn't told from zero)"] if maybe else []
    return [f"{join_words([head, *doubtful])}{'; ' if rest else ''}{join_words(rest)}."]


def sentence(row: Mapping[Hashable, Any], compared: pd.DataFrame, *, held: str) -> str:
    """One contrast with its difference in every study, marked where it isn't told from zero."""
    own = compared[(compared[CONTRAST] == [row[name] for name in CONTRAST]).all(axis=1)]
    parts = join_words(figures(one) for one in own.to_dict("records"))
    where = f"{row['where'][0].upper()}{row['where'][1:]}, " if row["where"] else ""
    turned = {"firm": f": the sign turns with {held}", "perhaps": f": the sign may turn with {held}"}.get(row["turns"], "")
    return f"{where}{row['upper']} − {row['lower']} is {parts}{turned}."


def figures(row: Mapping[Hashable, Any]) -> str:
    """One study's difference in points, with its interval."""
    inside = "" if row["low"] != row["low"] else f"{format_interval(row['low'], row['high'], digits=2, signed=True)}"
    remarks = [*([inside] if inside else []), *([] if row["verdict"] in CLAIMS else ["not told from zero"])]
    told = f" ({'; '.join(remarks)})" if remarks else ""
    return f"{format_percent(row['difference'], digits=2, signed=True)} points{told} {row['study']}"
