"""The same question with different things held equal, side by side: parameters, MACs, or nothing.

Equal parameters alone confound: at small patches a ViT then spends three times ConvMixer's MACs. So the answer is given
for each budget, and where its sign depends on the budget, that is the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from study.reporting.statistics.comparisons import MARGIN, contrasts
from study.reporting.statistics.contrasts import planned
from study.reporting.statistics.grid import MEASURE, Level, axes_of, read_grid
from study.reporting.wording import enumeration, percent

CLAIMS = ("higher", "lower")


def side_by_side(
    tables: Mapping[str, pd.DataFrame],
    factors: Sequence[str],
    *,
    measure: str = MEASURE,
    confidence: float = 0.95,
    margin: float = MARGIN,
) -> pd.DataFrame:
    """The contrasts of several run tables under each other, with the column `study` in front.

    `tables` maps a study's name, such as "equal parameters", to its table. Each study is compared over its own levels
    of the factors. Population of the intervals: as in `contrasts`, for each study on its own; two studies' intervals say
    nothing about their difference, since their networks differ in width.
    """
    frames = []
    for name, table in tables.items():
        levels: dict[str, tuple[Level, ...]] = axes_of(table, factors)
        kept = [factor for factor, values in levels.items() if len(values) > 1]
        plan = planned({factor: levels[factor] for factor in kept}, cells=read_grid(table, kept, measure=measure).cells)
        found = contrasts(table, plan, measure=measure, confidence=confidence, margin=margin)
        frames.append(found.assign(study=name))
    joined = pd.concat(frames, ignore_index=True)
    return joined[["study", *(name for name in joined.columns if name != "study")]]


def sign_changes(compared: pd.DataFrame) -> list[str]:
    """A plain sentence for each contrast of `side_by_side` whose sign depends on the study.

    Firm where two studies tell it from zero with opposite signs; otherwise the sentence says that the other sign isn't told
    from zero. Contrasts of which no study tells anything from zero make no sentence.
    """
    told = []
    for (upper, lower, where), rows in compared.groupby(["upper", "lower", "where"], sort=False):
        if not ((rows["difference"] > 0).any() and (rows["difference"] < 0).any() and rows["verdict"].isin(CLAIMS).any()):
            continue
        head = "depends on what is held equal" if set(CLAIMS) <= set(rows["verdict"]) else "may depend on what is held equal"
        parts = enumeration(figures(row["study"], row["difference"], row["verdict"]) for row in rows.to_dict("records"))
        told.append(f"The sign of {upper} − {lower}{f' {where}' if where else ''} {head}: {parts}.")
    return told


def figures(study: str, difference: float, verdict: str) -> str:
    """One study's difference in points, marked where it isn't told from zero."""
    doubt = "" if verdict in CLAIMS else " (not told from 0)"
    return f"{percent(difference, digits=2, signed=True)} points at {study}{doubt}"
