"""What an accuracy may cost: parameters, MACs, and time where it can be compared.

Speeds come from a benchmark, which measures all architectures in one process; training times and throughputs of the runs
themselves are compared only where all runs were trained on one kind of device, since the hour and the node enter them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from study.analysis.cell_grid import FloatArray

SIZE_COLUMNS = ("params", "macs")
BENCHMARK_SPEEDS = ("benchmark_train_images_per_second", "inference_images_per_second")
RUN_SPEEDS = ("images_per_second",)
SPEED_COLUMNS = (*BENCHMARK_SPEEDS, *RUN_SPEEDS)
"""Columns of which more is better; their price is seconds per image."""


def list_costs(table: pd.DataFrame) -> list[str]:
    """The costs that the table knows and that its runs can be compared by, in the order of a report."""
    return [name for name in (*SIZE_COLUMNS, *speeds_of(table)) if len(positive_values(table, name))]


def speeds_of(table: pd.DataFrame) -> Sequence[str]:
    """The speeds that can be compared: benchmarked ones, or the runs' own where they share one kind of device."""
    if any(len(positive_values(table, name)) for name in BENCHMARK_SPEEDS):
        return BENCHMARK_SPEEDS
    devices = table["device_name"].dropna().nunique() if "device_name" in table else 0
    return RUN_SPEEDS if devices == 1 else ()


def positive_values(table: pd.DataFrame, cost: str) -> FloatArray:
    """The entries of a column that are known and above zero; none where there is no such column."""
    if cost not in table:
        return np.array([])
    values = pd.to_numeric(table[cost], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    return np.asarray(values[values > 0])


def add_cost(table: pd.DataFrame, cost: str) -> pd.DataFrame:
    """The table with the column `price`, of which less is better, for whatever the cost's own direction."""
    values = pd.to_numeric(table[cost], errors="coerce").astype("Float64")
    known = values.where(values > 0)
    return table.assign(price=1 / known if cost in SPEED_COLUMNS else known)


def to_column_units(price: FloatArray, cost: str) -> FloatArray:
    """The cost as its column has it."""
    return 1 / price if cost in SPEED_COLUMNS else price


def is_matched(costs: FloatArray) -> bool:
    """Whether the costs are a matched budget: equal within 10 %."""
    return len(costs) > 0 and bool(costs.max() <= 1.1 * costs.min())
