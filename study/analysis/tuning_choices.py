"""The tuned options selected for every cell, from the recorded trials: the candidates, and how clear the choice was.

A candidate is one combination of tuned levels; its accuracy is the mean over the trials' seeds on the validation split. The
best of several is biased upward, so these accuracies rank candidates and are no estimates.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from study.analysis.cell_grid import CellLevels, read_cells, read_numbers, to_level
from study.records.selection import is_at_boundary

VALIDATION_ACCURACY = "val_accuracy"


def summarize_candidates(trials: pd.DataFrame, tuned: Sequence[str]) -> pd.DataFrame:
    """One row per cell and combination of the tuned options.

    Reads from the table of trials: `cell`, the tuned options, `val_accuracy`, `status`, `selected`. `accuracy`: mean
    validation accuracy over seeds (fraction), NaN where no trial has one; `tried`, `diverged`: numbers of trials; `seeds`:
    those with an accuracy; `chosen`. The other columns are those of the candidate's first trial.
    """
    keys = read_cells(trials, ("cell", *tuned))
    rows = []
    for key in dict.fromkeys(keys):
        own = trials[[found == key for found in keys]]
        accuracy = pd.Series(read_numbers(own, VALIDATION_ACCURACY)).dropna()
        candidate: dict[Hashable, Any] = {
            "accuracy": float(accuracy.mean()),
            "tried": len(own),
            "seeds": len(accuracy),
            "diverged": int((own["status"] == "diverged").sum()),
            "chosen": bool(own["selected"].fillna(False).astype(bool).any()),
        }
        rows.append({**own.iloc[0].to_dict(), **candidate})
    return pd.DataFrame(rows)


def summarize_choices(trials: pd.DataFrame, tuned: Sequence[str], factors: Sequence[str]) -> pd.DataFrame:
    """One row per cell whose options have been selected. Population: none; a description of these trials.

    - the cell's levels of the `factors`, and the selected levels of the `tuned` options.
    - `accuracy`: of the selected candidate; `gap`: its accuracy minus that of the second-best candidate (fraction; NaN where
      that has none, negative where the other candidate had more diverged trials).
    - `tied`: number of other candidates of the same accuracy; `edge`: the tuned options of which the selected level is the
      lowest or highest tried; `candidates`; `tried`, `diverged`: numbers of trials of all candidates.
    """
    found = summarize_candidates(trials, tuned)
    rows = [
        {**{name: best[name] for name in (*factors, *tuned)}, **_compare_choice(best, own[~own["chosen"]], tuned=tuned)}
        for _, own in found.groupby("cell", sort=False)
        for best in own[own["chosen"]].to_dict("records")[:1]
    ]
    return pd.DataFrame(rows, columns=[*factors, *tuned, "accuracy", "gap", "edge", "tied", "candidates", "diverged", "tried"])


def _compare_choice(best: Mapping[Hashable, Any], others: pd.DataFrame, *, tuned: Sequence[str]) -> dict[str, object]:
    ranked = others.sort_values(["diverged", "accuracy"], ascending=[True, False], kind="stable", na_position="last")
    second = float(ranked["accuracy"].iloc[0]) if len(ranked) else float("nan")
    tied = (others["accuracy"] == best["accuracy"]) & (others["diverged"] == best["diverged"])
    edge = [
        name for name in tuned if is_at_boundary(to_level(best[name]), [to_level(best[name]), *map(to_level, others[name])])
    ]
    return {
        "accuracy": best["accuracy"],
        "gap": best["accuracy"] - second,
        "edge": tuple(edge),
        "tied": int(tied.sum()),
        "candidates": 1 + len(others),
        "diverged": best["diverged"] + int(others["diverged"].sum()),
        "tried": best["tried"] + int(others["tried"].sum()),
    }


def select_best_candidates(trials: pd.DataFrame, tuned: Sequence[str], *, over: str) -> pd.DataFrame:
    """The trials of the best candidate at each level of the tuned option `over`, in each cell.

    Best: the fewest diverged trials, then the highest accuracy; all trials of that candidate are kept. A curve over one
    option thus shows every level at its best values of the other options instead of an average over them.
    """
    if set(tuned) == {over}:
        return trials
    found = summarize_candidates(trials, tuned).sort_values(["diverged", "accuracy"], ascending=[True, False], kind="stable")
    best: dict[CellLevels, CellLevels] = {}
    for level, candidate in zip(read_cells(found, ("cell", over)), read_cells(found, tuned), strict=True):
        best.setdefault(level, candidate)
    pairs = zip(read_cells(trials, ("cell", over)), read_cells(trials, tuned), strict=True)
    return trials[[best[level] == candidate for level, candidate in pairs]]
