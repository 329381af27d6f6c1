"""What tuning chose in every cell, from which candidates, and how clearly: read from the trials as they were recorded.

A candidate is one combination of the tuned levels; its accuracy is the mean over the trials' seeds on the validation
split. The best of several is flattered by having been chosen, so these figures rank candidates and estimate nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from study.analysis.cell_grid import CellLevels, to_level
from study.records.selection import at_edge

VALIDATION_ACCURACY = "val_accuracy"


def summarize_candidates(trials: pd.DataFrame, tuned: Sequence[str]) -> pd.DataFrame:
    """One row per cell and combination of the tuned options: trials, diverged ones, mean accuracy, whether it was chosen.

    `accuracy` is a fraction, NaN where no trial came to one; the other columns are those of the candidate's first trial.
    """
    keys = read_keys(trials, ("cell", *tuned))
    rows = []
    for key in dict.fromkeys(keys):
        own = trials[[found == key for found in keys]]
        known = pd.to_numeric(own[VALIDATION_ACCURACY], errors="coerce").astype("Float64").dropna()
        status = own["status"].astype(str)
        first: dict[Hashable, Any] = own.iloc[0].to_dict()
        figures: dict[Hashable, Any] = {
            "accuracy": float(known.mean()) if len(known) else np.nan,
            "tried": len(own),
            "seeds": len(known),
            "diverged": int((status == "diverged").sum()),
            "chosen": bool(own["selected"].fillna(False).astype(bool).any()),
        }
        rows.append(first | figures)
    return pd.DataFrame(rows)


def read_keys(table: pd.DataFrame, columns: Sequence[str]) -> list[CellLevels]:
    """Each row's entries in the columns."""
    return [tuple(to_level(row[name]) for name in columns) for row in table.to_dict("records")]


def summarize_choices(trials: pd.DataFrame, tuned: Sequence[str], factors: Sequence[str]) -> pd.DataFrame:
    """One row per cell whose choice has been made: its levels, the chosen ones, and how it compares with the others.

    Population: none; a statement about these trials. `gap` is the chosen candidate's accuracy less the runner-up's (a
    fraction; NaN where that has none, negative where the runner-up was passed over for its diverged trials), `tied` counts
    other candidates of the same accuracy, `edge` names the tuned options whose chosen level is the least or greatest tried.
    """
    found = summarize_candidates(trials, tuned)
    rows = [
        {**{name: best[name] for name in (*factors, *tuned)}, **_compare_choice(best, others, tuned=tuned)}
        for _, own in found.groupby("cell", sort=False)
        for best in own[own["chosen"]].to_dict("records")[:1]
        for others in [own[~own["chosen"]]]
    ]
    return pd.DataFrame(rows, columns=[*factors, *tuned, "accuracy", "gap", "edge", "tied", "candidates", "diverged", "tried"])


def _compare_choice(best: Mapping[Any, Any], others: pd.DataFrame, *, tuned: Sequence[str]) -> dict[str, object]:
    """How the chosen candidate compares with those that weren't."""
    ranked = others.sort_values(["diverged", "accuracy"], ascending=[True, False], kind="stable", na_position="last")
    second = float(ranked["accuracy"].iloc[0]) if len(ranked) else np.nan
    alike = (others["accuracy"] == best["accuracy"]) & (others["diverged"] == best["diverged"])
    edge = [name for name in tuned if at_edge(to_level(best[name]), [to_level(best[name]), *map(to_level, others[name])])]
    return {
        "accuracy": best["accuracy"],
        "gap": best["accuracy"] - second,
        "edge": tuple(edge),
        "tied": int(alike.sum()),
        "candidates": 1 + len(others),
        "diverged": best["diverged"] + int(others["diverged"].sum()),
        "tried": best["tried"] + int(others["tried"].sum()),
    }


def select_best_candidates(trials: pd.DataFrame, tuned: Sequence[str], *, over: str) -> pd.DataFrame:
    """The trials at each level of `over`, all other tuned options at what suits that level best.

    So that a curve over one option is not bent by averages over the others: per cell and level the candidate with the
    fewest diverged trials and then the highest accuracy is kept, with all of its trials.
    """
    if set(tuned) == {over}:
        return trials
    found = summarize_candidates(trials, tuned).sort_values(["diverged", "accuracy"], ascending=[True, False], kind="stable")
    kept: dict[CellLevels, CellLevels] = {}
    for level, candidate in zip(read_keys(found, ("cell", over)), read_keys(found, tuned), strict=True):
        kept.setdefault(level, candidate)
    pairs = zip(read_keys(trials, ("cell", over)), read_keys(trials, tuned), strict=True)
    return trials[[kept[level] == candidate for level, candidate in pairs]]
