"""How fast a run's architecture trains and classifies here, timed through the training engine's own step.

Images are random and on the device already, and the learning rate is 0: the arithmetic is that of a training, and the
weights stay where they are. Each figure is the mean over one lap, which repeats its work until LAP_SECONDS have passed,
after a warm-up; the device is waited for at the lap's ends only, as in a training. What augmentation costs is timed apart.
A workload is an architecture in one variant, timed once per round.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from study.config.options import Variant
from study.config.run import Run
from study.cpu_kernels.freed_memory import return_freed_memory
from study.data import describe_dataset
from study.data.splits import make_random_splits
from study.planning.planned_run import PlannedRun
from study.records.benchmark_file import Speed, median
from study.rng import stream
from study.training.augmentation import Target
from study.training.batches import TrainingBatches
from study.training.device import DeviceChoice, autocast, execution_mode, read_peak_mib, reset_peak_memory
from study.training.memory_fallback import is_out_of_memory, release_memory
from study.training.memory_layout import to_memory_format
from study.training.model_setup import PreparedModel, eager_mode, prepare_model
from study.training.optimizer import set_learning_rate
from study.training.state import TrainingState, initial_state
from study.training.step import optimizer_step

WARM_UP = 2  # calls before a lap: first calls choose kernels and allocate
LAP_SECONDS = 0.3
MOST_REPEATS = 200
INPUT_PIXELS = 2**19  # of the images that are augmented in a lap's call: 512 of 32 x 32

EAGER = tuple(Variant(memory_layout=layout) for layout in ("contiguous", "channels_last"))
COMPILED = tuple(variant.model_copy(update={"compiled": "default"}) for variant in EAGER)
GRAPHS = tuple(variant.model_copy(update={"compiled": "reduce-overhead"}) for variant in EAGER)
VARIANTS: dict[str, tuple[Variant, ...]] = {"cpu": (*EAGER, *COMPILED), "cuda": (*EAGER, *COMPILED, *GRAPHS)}


@dataclass(frozen=True)
class Laps:
    """One round's figures of one architecture; seconds are of one step, of a forward pass of a batch, and of one image."""

    train_step_seconds: float
    inference_step_seconds: float
    inference_latency_seconds: float
    peak_memory_mib: float | None
    variant: Variant


def with_batch_size(run: Run, batch_size: int) -> Run:
    """The run with batches of another size, in one piece where they can't be cut as before."""
    accumulate = run.train.accumulate if batch_size % run.train.accumulate == 0 else 1
    return replace(run, train=run.train.model_copy(update={"batch_size": batch_size, "accumulate": accumulate}))


def time_architecture(run: Run, *, device: DeviceChoice, variant: Variant | None = None) -> Laps:
    """One round with a model built for it, in `variant` or as the rule says, which is gone afterwards; the whole model trains.

    Raises what torch raises, out of memory included.
    """
    run = replace(run, train=run.train.model_copy(update={"start": None, "freeze": "none"}))
    release_memory(device.device)
    return_freed_memory()  # else a CPU's peak would be that of whatever came before
    was_reset = reset_peak_memory(device.device)
    try:
        with execution_mode(device):
            return _laps(run, prepare_model(run, device, variant=variant), device.device, was_reset=was_reset)
    finally:
        release_memory(device.device)


def _laps(run: Run, prepared: PreparedModel, where: torch.device, *, was_reset: bool) -> Laps:
    model, layout = prepared.model, prepared.layout
    state = initial_state(model, run, device=where, epoch_steps=WARM_UP + MOST_REPEATS)
    images = to_memory_format(make_random_batch(run).to(where), layout)
    train_step = time_lap(_training_step(state, run, images=images), where)
    peak = read_peak_mib(where, was_reset=was_reset)
    model.eval()
    casting = autocast(run.train.precision, where)
    with torch.inference_mode(), casting, eager_mode(prepared):
        inference = time_lap(lambda: model(images), where)
        single = images[:1].clone(memory_format=layout)
        latency = time_lap(lambda: model(single), where)
    return Laps(train_step, inference, latency, peak, prepared.variant)


def _training_step(state: TrainingState, run: Run, *, images: torch.Tensor) -> Callable[[], None]:
    set_learning_rate(state.optimizer, 0.0)
    target = Target(torch.arange(run.train.batch_size, device=images.device) % run.data.num_classes)
    casting = autocast(run.train.precision, images.device)

    def step() -> None:
        optimizer_step(state, images, target, options=run.train, micro_batches=run.train.accumulate, autocast=casting)

    return step


def make_random_batch(run: Run) -> torch.Tensor:
    """One batch `b c h w` of float32 values around 0."""
    shape = (run.train.batch_size, run.data.channels, run.data.image_size, run.data.image_size)
    return torch.from_numpy(stream("benchmark").random(shape, dtype="float32")) - 0.5


def time_input(run: Run, *, device: DeviceChoice) -> float:
    """Images per second that are fetched, augmented and normalized as for the run, in the contiguous layout."""
    images = max(run.train.batch_size, INPUT_PIXELS // run.data.image_size**2)
    splits = make_random_splits(describe_dataset(run.data), images=images)
    batches = TrainingBatches(run, splits, device=device.device, layout=torch.contiguous_format)
    with execution_mode(device):
        seconds = time_lap(lambda: sum(1 for _ in batches.epoch(0)), device.device)
    return batches.epoch_steps * run.train.batch_size / seconds


def time_lap(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that `work` takes, as a mean over one lap."""

    def synchronize() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def measure(repeats: int) -> float:
        synchronize()
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        synchronize()
        return time.perf_counter() - started

    for _ in range(WARM_UP):
        once = measure(1)
    repeats = min(max(math.ceil(LAP_SECONDS / once), 1), MOST_REPEATS)
    return measure(repeats) / repeats


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
    except (RuntimeError, MemoryError) as error:  # out of memory, above all; or what torch can't compile
        workload.fault = f"{type(error).__name__}: {error}".splitlines()[0]
        if isinstance(error, MemoryError) or is_out_of_memory(error):
            workload.fault = f"a batch of {workload.planned.run.train.batch_size:,} doesn't fit into memory"
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
