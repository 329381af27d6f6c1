"""An ablation: a baseline and named changes of it, as one table and one sentence; each change is compared with the baseline.

All of these comparisons are one family. Where the ablation is crossed with other factors, they are averaged over these.
"""

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from study.analysis.cell_grid import read_numbers
from study.analysis.cost_columns import SIZE_COLUMNS, SPEED_COLUMNS, list_costs
from study.analysis.labels import format_interval, format_points, join_words
from study.analysis.study_results import StudyResults, Unavailable
from study.config.sweep import CHANGE

_NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def tabulate_ablation(study: StudyResults) -> pd.DataFrame:
    """One row per level of `change`, the baseline first, then in the order of the sweep.

    - `change`, `accuracy` (fraction): the mean over its cells, equally weighted.
    - `difference`, `low`, `high`, `verdict`, `n`: of the change minus the baseline, as from `estimate_contrasts` (simultaneous
      over all changes, averaged over other factors); missing for the baseline, and where a change has no contrast.
    - for each of `params`, `macs`, a throughput and `epochs` that the table has: `NAME_low`, `NAME_high` over its runs
      (both the mean, of a throughput).

    Population of the intervals: `study.population`.
    """
    contrasts = study.contrasts
    own = [] if isinstance(contrasts, Unavailable) else contrasts[contrasts["primary"]].to_dict("records")
    differences = {row["upper"]: row for row in own}
    names = list_ablation_costs(study.table)
    rows = []
    for level in study.levels[CHANGE]:
        cells, runs = (frame[(frame[CHANGE] == level).to_numpy(dtype=bool)] for frame in (study.cells, study.table))
        found: Mapping[Hashable, Any] = differences.get(level, {})
        row: dict[str, Any] = {CHANGE: level, "accuracy": cells["mean"].mean()}
        row |= {name: found.get(name) for name in ("difference", "low", "high", "verdict", "n")}
        for name in names:
            values = pd.Series(read_numbers(runs, name))
            ends = (values.mean(), values.mean()) if name in SPEED_COLUMNS else (values.min(), values.max())
            row |= {f"{name}_low": ends[0], f"{name}_high": ends[1]}
        rows.append(row)
    return pd.DataFrame(rows)


def list_ablation_costs(table: pd.DataFrame) -> list[str]:
    """The columns of sizes, the first comparable throughput, and the epochs, as far as the table has them."""
    costs = list_costs(table)
    speeds = [name for name in costs if name in SPEED_COLUMNS][:1]
    return [name for name in (*SIZE_COLUMNS, *speeds, "epochs") if name in (*costs, "epochs") and name in table]


def describe_changes(contrasts: pd.DataFrame) -> str:
    """The primary contrasts of an ablation in one sentence: which changes lower accuracy by how much, which are equivalent.

    "of four changes two lower accuracy: no residual by 1.90 points (0.80 to 3.00) and ...; one is equivalent within 0.50
    points: ReLU; one is inconclusive: no flip (−0.20 points, −0.90 to +0.50)".
    """
    rows = contrasts[contrasts["primary"]]
    where = f"{rows['where'].iloc[0]}, " if rows["where"].iloc[0] else ""
    return f"{where}of {_count(len(rows))} change{'s' * (len(rows) > 1)} {'; '.join(_group_changes(rows))}"


def _group_changes(rows: pd.DataFrame) -> Iterator[str]:
    for verdict, verbs in (("lower", ("lowers", "lower")), ("higher", ("raises", "raise"))):
        own = rows[rows["verdict"] == verdict].sort_values("difference", key=lambda size: -size.abs())
        if len(own):
            sizes = [
                f"{row['upper']} by {format_points(row['difference'])} ({_format_size(row['low'], row['high'])})"
                for row in own.to_dict("records")
            ]
            yield f"{_count(len(own))} {verbs[len(own) > 1]} accuracy: {join_words(sizes)}"
    equal = rows[rows["verdict"] == "equivalent"]
    if len(equal):
        margins = equal["margin"].round(9).unique()
        within = f"within {format_points(margins[0])}" if len(margins) == 1 else "within the margin"
        yield f"{_count(len(equal))} {_be(equal)} equivalent {within}: {join_words(equal['upper'])}"
    others = rows[~rows["verdict"].isin(["lower", "higher", "equivalent"])]
    for state in others["verdict"].unique():
        own = others[others["verdict"] == state]
        sizes = [
            f"{row['upper']} ({format_points(row['difference'], signed=True)}, "
            f"{format_interval(row['low'], row['high'], digits=2, signed=True)})"
            if np.isfinite(row["difference"])
            else f"{row['upper']} (not measured)"
            for row in own.to_dict("records")
        ]
        words = f"{_be(own)} {state}" if state != "too few seeds" else f"ha{'ve' if len(own) > 1 else 's'} {state}"
        yield f"{_count(len(own))} {words}: {join_words(sizes)}"


def _format_size(low: float, high: float) -> str:
    """The limits of a difference without its sign, the smaller one first."""
    first, last = sorted((abs(low), abs(high)))
    return format_interval(first, last, digits=2)


def _be(rows: pd.DataFrame) -> str:
    return "are" if len(rows) > 1 else "is"


def _count(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else str(number)
