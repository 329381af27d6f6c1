"""The costs that accuracies are compared by: parameters, MACs, and speeds where they are comparable.

Benchmarked speeds of all architectures are measured in one process. The runs' own throughput is comparable only where all
runs were trained on one kind of device, since the load of the node and the hour affect it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from study.analysis.cell_grid import FloatArray, read_numbers

SIZE_COLUMNS = ("params", "macs")
BENCHMARK_SPEEDS = ("benchmark_train_images_per_second", "inference_images_per_second")
RUN_SPEEDS = ("images_per_second",)
SPEED_COLUMNS = (*BENCHMARK_SPEEDS, *RUN_SPEEDS)
"""Columns of which more is better; their cost is seconds per image."""


def list_costs(table: pd.DataFrame) -> list[str]:
    """The columns of the table that its cells can be compared by, in the order of a report."""
    devices = table["device_name"].dropna().nunique() if "device_name" in table else 0
    speeds: Sequence[str] = RUN_SPEEDS if devices == 1 else ()
    if any(len(positive_values(table, name)) for name in BENCHMARK_SPEEDS):
        speeds = BENCHMARK_SPEEDS
    return [name for name in (*SIZE_COLUMNS, *speeds) if len(positive_values(table, name))]


def positive_values(table: pd.DataFrame, column: str) -> FloatArray:
    """The entries of a column that are known and positive; none where the table lacks the column."""
    values = read_numbers(table, column)
    return np.asarray(values[values > 0])


def add_cost(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The table with a float column `cost`, of which less is better: the column, or its reciprocal for a speed."""
    values = read_numbers(table, column)
    known = np.where(values > 0, values, np.nan)
    return table.assign(cost=1 / known if column in SPEED_COLUMNS else known)


def to_column_units(cost: FloatArray, column: str) -> FloatArray:
    """Values of `add_cost` in the units of the column they came from."""
    return 1 / cost if column in SPEED_COLUMNS else cost


def is_matched(costs: FloatArray) -> bool:
    """Whether the costs are a matched budget: equal within 10 %."""
    return len(costs) > 0 and bool(costs.max() <= 1.1 * costs.min())
