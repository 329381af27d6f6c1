"""What an accuracy may cost: parameters, MACs, and time where it can be compared.

Speeds come from a benchmark, which measures all architectures in one process; training times and throughputs of the runs
themselves are compared only where all runs were trained on one kind of device, since the hour and the node enter them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from study.analysis.cell_grid import Floats

SIZES = ("params", "macs")
BENCHMARKED = ("benchmark_train_images_per_second", "inference_images_per_second")
TIMED = ("images_per_second",)
GAINS = (*BENCHMARKED, *TIMED)
"""Columns of which more is better; their price is seconds per image."""


def costs_of(table: pd.DataFrame) -> list[str]:
    """The costs that the table knows and that its runs can be compared by, in the order of a report."""
    return [name for name in (*SIZES, *speeds_of(table)) if len(positive(table, name))]


def speeds_of(table: pd.DataFrame) -> Sequence[str]:
    """The speeds that can be compared: benchmarked ones, or the runs' own where they share one kind of device."""
    if any(len(positive(table, name)) for name in BENCHMARKED):
        return BENCHMARKED
    devices = table["device_name"].dropna().nunique() if "device_name" in table else 0
    return TIMED if devices == 1 else ()


def positive(table: pd.DataFrame, cost: str) -> Floats:
    """The entries of a column that are known and above zero; none where there is no such column."""
    if cost not in table:
        return np.array([])
    values = pd.to_numeric(table[cost], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    return np.asarray(values[values > 0])


def with_price(table: pd.DataFrame, cost: str) -> pd.DataFrame:
    """The table with the column `price`, of which less is better, for whatever the cost's own direction."""
    values = pd.to_numeric(table[cost], errors="coerce").astype("Float64")
    known = values.where(values > 0)
    return table.assign(price=1 / known if cost in GAINS else known)


def from_price(price: Floats, cost: str) -> Floats:
    """The cost as its column has it."""
    return 1 / price if cost in GAINS else price


def is_equal(costs: Floats) -> bool:
    """Whether the costs are a matched budget: equal within 10 %."""
    return len(costs) > 0 and bool(costs.max() <= 1.1 * costs.min())
