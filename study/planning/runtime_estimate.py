"""How long planned runs will take, from benchmarked speeds; their relative size where nothing was measured."""

from collections.abc import Sequence

from study.planning.planned_run import PlannedRun
from study.records.benchmark_file import Benchmark
from study.records.record import RunOptions

OVERHEAD_MACS = 2_000_000  # per trained image; small models are bound by launching operators, not by arithmetic


def estimate_seconds(runs: Sequence[PlannedRun], benchmark: Benchmark) -> dict[str, float]:
    """The device-seconds by run id that the benchmark predicts, of the runs whose architecture was measured.

    Pending runs count with their candidate's levels. Those of a frozen body were not measured.
    """
    measured = [planned for planned in runs if planned.run.train.freeze == "none"]
    found = {planned.run_id: benchmark.run_seconds(RunOptions.from_json(planned.run.to_json())) for planned in measured}
    return {run_id: seconds for run_id, seconds in found.items() if seconds is not None}


def describe_runtime(runs: Sequence[PlannedRun], benchmark: Benchmark) -> str | None:
    """One sentence for the plan; None if nothing of it was measured."""
    seconds = estimate_seconds(runs, benchmark)
    if not seconds:
        return None
    hours = sum(seconds.values()) / 3600
    size = f"{hours:,.1f}" if hours >= 10 else f"{hours:.2g}"
    architectures = len({planned.architecture for planned in runs})
    measured = len({planned.architecture for planned in runs if planned.run_id in seconds})
    count = f"{measured} of {architectures} architectures ({len(seconds):,} of {len(runs):,} runs)"
    if len(seconds) == len(runs):
        count = f"all {measured} architectures"
    device = benchmark.device_name
    return f"about {size} device-hours on {device} for {count} (benchmarked steps, augmentation, evaluation)"


def estimate_costs(runs: Sequence[PlannedRun], benchmark: Benchmark | None) -> dict[str, float]:
    """Training costs by run id, in one unit: seconds if every run's architecture was measured, else MACs.

    MACs are those of all training passes, with a constant per image, however small the model is.
    """
    if benchmark and len(seconds := estimate_seconds(runs, benchmark)) == len(runs):
        return seconds
    return {planned.run_id: float(planned.image_passes) * (planned.training_macs + OVERHEAD_MACS) for planned in runs}
