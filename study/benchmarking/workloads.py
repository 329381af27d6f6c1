"""The workloads of a benchmark: architectures in variants, each timed once per round."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from study.benchmarking.timing import Laps, time_architecture, with_batch_size
from study.config.options import Variant
from study.planning.planned_run import PlannedRun
from study.records.benchmark_file import Speed, median
from study.training.device import DeviceChoice
from study.training.memory_fallback import release_memory

EAGER = tuple(Variant(memory_layout=layout) for layout in ("contiguous", "channels_last"))
COMPILED = tuple(variant.model_copy(update={"compiled": "default"}) for variant in EAGER)
GRAPHS = tuple(variant.model_copy(update={"compiled": "reduce-overhead"}) for variant in EAGER)
VARIANTS: dict[str, tuple[Variant, ...]] = {"cpu": (*EAGER, *COMPILED), "cuda": (*EAGER, *COMPILED, *GRAPHS)}


@dataclass
class Workload:
    """One architecture at one precision and batch size, in one variant, with the laps of the rounds so far."""

    planned: PlannedRun
    variant: Variant | None = None  # None: as it trains where no variants were measured
    laps: list[Laps] = field(default_factory=list)
    fault: str | None = None

    @property
    def label(self) -> str:
        return self.planned.label + (f" ({self.variant.label})" if self.variant else "")


def list_workloads(
    runs: Iterable[PlannedRun], batch_size: int | None, *, variants: Sequence[Variant | None] = (None,)
) -> Iterator[Workload]:
    """One workload for each architecture, precision and batch size among the runs, in each of the variants.

    `batch_size` overrides the runs' own.
    """
    seen = set()
    for planned in runs:
        run = with_batch_size(planned.run, batch_size or planned.run.train.batch_size)
        key = (planned.architecture, run.train.precision, run.train.batch_size)
        if key not in seen:
            seen.add(key)
            yield from (Workload(replace(planned, run=run), variant) for variant in variants)


def input_key(planned: PlannedRun) -> str:
    """Equal for runs whose images are fed in the same way."""
    run = planned.run
    return f"{run.augment.model_dump_json()} {run.data.channels} {run.data.image_size}"


def time_round(workload: Workload, device: DeviceChoice) -> None:
    """One round of one architecture; one that fails is reported at the end and not tried again."""
    if workload.fault:
        return
    try:
        if workload.variant is not None and workload.variant.compiled:
            torch.compiler.reset()  # torch keeps the compiled code of a few shapes only
        workload.laps.append(time_architecture(workload.planned.run, device=device, variant=workload.variant))
    except RuntimeError as error:  # out of memory, above all; or what torch can't compile
        workload.fault = f"{type(error).__name__}: {error}".splitlines()[0]
    if workload.fault:
        release_memory(device.device)


def summarize_laps(workload: Workload) -> Speed:
    laps, planned, run = workload.laps, workload.planned, workload.planned.run
    peaks = [lap.peak_memory_mib for lap in laps if lap.peak_memory_mib is not None]
    return Speed(
        label=planned.label,
        backbone=run.backbone,
        model=run.model.model_dump(mode="json"),
        precision=run.train.precision,
        batch_size=run.train.batch_size,
        memory_layout=laps[0].variant.memory_layout,
        compiled=laps[0].variant.compiled,
        train_step_seconds=tuple(lap.train_step_seconds for lap in laps),
        inference_step_seconds=tuple(lap.inference_step_seconds for lap in laps),
        inference_latency_seconds=tuple(lap.inference_latency_seconds for lap in laps),
        peak_memory_mib=median(peaks) if peaks else None,
    )
