"""What a benchmark times: architectures in variants and as stacks, one turn of each per round, and what their turns told."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from pydantic import JsonValue
from rich.console import Console

from study.backbones import build_spec
from study.benchmarking.timing import Laps, time_architecture, time_stack, with_batch_size
from study.config.variant import Variant
from study.launcher.stacks import kinds
from study.planning.planned_run import PlannedRun
from study.records.benchmark_file import InputSpeed, Speed, StackSpeed, median
from study.training.device import DeviceChoice
from study.training.memory_fallback import release
from study.training.stacking import Unstackable, check

EAGER = tuple(Variant(memory_layout=layout) for layout in ("contiguous", "channels_last"))
COMPILED = tuple(variant.model_copy(update={"compiled": "default"}) for variant in EAGER)
GRAPHS = tuple(variant.model_copy(update={"compiled": "reduce-overhead"}) for variant in EAGER)
VARIANTS: dict[str, tuple[Variant, ...]] = {"cpu": (*EAGER, *COMPILED), "cuda": (*EAGER, *COMPILED, *GRAPHS)}
STACK_SIZES = (2, 4, 8)


@dataclass
class Subject:
    """One architecture at one precision and batch size, in one variant, with what the rounds so far told of it."""

    planned: PlannedRun
    variant: Variant | None = None  # None: as it trains where no variants were measured
    laps: list[Laps] = field(default_factory=list)
    fault: str | None = None

    @property
    def label(self) -> str:
        return self.planned.label + (f" ({self.variant.label})" if self.variant else "")


@dataclass
class StackSubject:
    """One architecture as a stack of so many runs."""

    planned: PlannedRun
    size: int
    seconds: list[float] = field(default_factory=list)
    fault: str | None = None

    @property
    def label(self) -> str:
        return f"{self.planned.label} ({self.size} at once)"


def distinct(
    runs: Iterable[PlannedRun], batch_size: int | None, *, variants: Sequence[Variant | None] = (None,)
) -> Iterator[Subject]:
    """One subject for each architecture, precision and batch size among the runs, in each of the variants.

    `batch_size` goes before the runs' own.
    """
    seen = set()
    for planned in runs:
        run = with_batch_size(planned.run, batch_size or planned.run.train.batch_size)
        key = (planned.architecture, run.train.precision, run.train.batch_size)
        if key not in seen:
            seen.add(key)
            yield from (Subject(replace(planned, run=run), variant) for variant in variants)


def stackable(runs: Sequence[PlannedRun], batch_size: int | None, *, console: Console) -> Iterator[StackSubject]:
    """The sizes in which the runs of each architecture could be stacked; those that can't be are told."""
    seen: set[Hashable] = set()
    for group in sorted(kinds(runs), key=len, reverse=True):
        run = with_batch_size(group[0].run, batch_size or group[0].run.train.batch_size)
        key = (group[0].architecture, run.train.precision, run.train.batch_size)
        if key not in seen:
            seen.add(key)
            try:
                check(build_spec(run.model, seed=run.seed))
            except Unstackable as error:
                console.print(f"{group[0].label} can't be stacked: {error}", highlight=False)
                continue
            yield from (StackSubject(replace(group[0], run=run), size) for size in stack_sizes(len(group)))


def stack_sizes(count: int) -> list[int]:
    """Sizes to try for so many runs: powers of two, and that of equal stacks as large as allowed."""
    fewest = -(-count // max(STACK_SIZES))
    return sorted({*(size for size in STACK_SIZES if size <= count), -(-count // fewest)} - {1})


def input_of(planned: PlannedRun) -> str:
    """Equal for runs whose images are fed in the same way."""
    run = planned.run
    return f"{run.augment.model_dump_json()} {run.data.channels} {run.data.image_size}"


def take_turn(subject: Subject | StackSubject, device: DeviceChoice) -> None:
    """One round of one architecture; one that can't be run is told at the end and not tried again."""
    if subject.fault:
        return
    try:
        if isinstance(subject, StackSubject):
            subject.seconds.append(time_stack(subject.planned.run, size=subject.size, device=device))
            return
        if subject.variant is not None and subject.variant.compiled:
            torch.compiler.reset()  # torch keeps the compiled code of a few shapes only
        subject.laps.append(time_architecture(subject.planned.run, device=device, variant=subject.variant))
    except RuntimeError as error:  # out of memory, above all; or what torch can't compile
        subject.fault = f"{type(error).__name__}: {error}".splitlines()[0]
    if subject.fault:
        release(device.device)


def speed_of(subject: Subject) -> Speed:
    laps = subject.laps
    peaks = [lap.peak_memory_mib for lap in laps if lap.peak_memory_mib is not None]
    return Speed(
        **architecture_of(subject.planned),
        memory_layout=laps[0].variant.memory_layout,
        compiled=laps[0].variant.compiled,
        train_step_seconds=tuple(lap.train_step_seconds for lap in laps),
        inference_step_seconds=tuple(lap.inference_step_seconds for lap in laps),
        inference_latency_seconds=tuple(lap.inference_latency_seconds for lap in laps),
        peak_memory_mib=median(peaks) if peaks else None,
    )


def stack_speed_of(subject: StackSubject) -> StackSpeed:
    return StackSpeed(**architecture_of(subject.planned), size=subject.size, train_step_seconds=tuple(subject.seconds))


def architecture_of(planned: PlannedRun) -> dict[str, Any]:
    """What was timed, as the benchmark's file names it."""
    run = planned.run
    return {
        "label": planned.label,
        "backbone": run.backbone,
        "model": run.model.model_dump(mode="json"),
        "precision": run.train.precision,
        "batch_size": run.train.batch_size,
    }


def input_speed(planned: PlannedRun, rounds: Sequence[float]) -> InputSpeed:
    augment: dict[str, JsonValue] = planned.run.augment.model_dump(mode="json")
    data = planned.run.data
    return InputSpeed(augment=augment, channels=data.channels, image_size=data.image_size, images_per_second=tuple(rounds))
