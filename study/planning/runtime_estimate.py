"""How long planned runs will take, from benchmarked speeds; their relative size where nothing was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from study.planning.planned_run import PlannedRun
from study.records.benchmark_file import Benchmark
from study.records.record import RunOptions

OVERHEAD_MACS = 2_000_000  # per trained image; small models are bound by launching operators, not by arithmetic


@dataclass(frozen=True)
class RuntimeEstimate:
    """Device-seconds by run id, of the runs whose architecture was measured on `device`."""

    device: str
    seconds: Mapping[str, float]
    runs: int
    architectures: int
    measured: int  # architectures

    @property
    def complete(self) -> bool:
        return len(self.seconds) == self.runs

    def describe(self) -> str:
        """One sentence for the plan."""
        hours = sum(self.seconds.values()) / 3600
        size = f"{hours:,.1f}" if hours >= 10 else f"{hours:.2g}"
        count = (
            f"all {self.measured} architectures"
            if self.complete
            else f"{self.measured} of {self.architectures} architectures ({len(self.seconds):,} of {self.runs:,} runs)"
        )
        return f"about {size} device-hours on {self.device} for {count} (benchmarked steps, augmentation, evaluation)"


def estimate_runtime(runs: Sequence[PlannedRun], benchmark: Benchmark) -> RuntimeEstimate:
    """The device-seconds that the benchmark predicts for these runs; pending ones count with their candidate's levels."""
    found = {planned.run_id: benchmark.run_seconds(RunOptions.from_json(planned.run.to_json())) for planned in runs}
    seconds = {run_id: value for run_id, value in found.items() if value is not None}
    return RuntimeEstimate(
        device=benchmark.device_name,
        seconds=seconds,
        runs=len(runs),
        architectures=len({planned.architecture for planned in runs}),
        measured=len({planned.architecture for planned in runs if planned.run_id in seconds}),
    )


def estimate_costs(runs: Sequence[PlannedRun], benchmark: Benchmark | None) -> dict[str, float]:
    """Training costs by run id, in one unit: seconds if every run's architecture was measured, else MACs.

    MACs are those of all training passes, with a constant per image, however small the model is.
    """
    if benchmark and (estimate := estimate_runtime(runs, benchmark)).complete:
        return dict(estimate.seconds)
    return {planned.run_id: float(planned.image_passes) * (planned.cost.training_macs + OVERHEAD_MACS) for planned in runs}
