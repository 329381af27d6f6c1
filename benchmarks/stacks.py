"""How much faster several small runs train as one stack than one after the other, through the engine's own steps."""

from __future__ import annotations

from typing import Any

from benchmarks.scale import Asked
from benchmarks.subjects import SUBJECTS, run_of
from study.benchmarking.timing import time_architecture, time_stack
from study.records.benchmark_file import median

SIZES = (2, 4, 8)
BATCH_SIZE = 128  # of each run


def stacks(asked: Asked) -> list[dict[str, Any]]:
    """Gains by model and size: medians over rounds of size x (a step alone / a step of the stack), as written, not compiled."""
    scale, found = asked.scale, []
    for name in scale.stacked:
        run = run_of(SUBJECTS[name], batch_size=min(BATCH_SIZE, scale.batch_size), precision=scale.precision)
        gains: dict[int, list[float]] = {size: [] for size in SIZES}
        for _ in range(scale.rounds):
            alone = time_architecture(run, device=scale.choice).train_step_seconds
            for size, values in gains.items():
                values.append(size * alone / time_stack(run, size=size, device=scale.choice))
        row = {"model": SUBJECTS[name].name, "ms_a_step": alone * 1e3}
        found.append(row | {f"x_{size}_at_once": median(values) for size, values in gains.items()})
    return found
