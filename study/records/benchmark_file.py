"""The speed of a sweep's architectures on one device, as `study.benchmark` measured it.

    runs/<sweep>/benchmarks/<time in UTC>-<device>.json      immutable

Every figure is a list with one entry per round. The run table shows their median and spread, which is the interquartile range
as a fraction of the median.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field, JsonValue

from study.config.documents import Positive, read_document
from study.config.formats import FORMAT, drop_added
from study.config.options import AugmentOptions, Compiled, Layout, Options, Variant
from study.records.record import RunOptions

Rounds = tuple[Annotated[float, Field(gt=0)], ...]


class Speed(Options):
    """One architecture at one precision and batch size, timed with random images that are already on the device.

    A training step is forward, backward and update; an inference is a forward pass in evaluation mode. `peak_memory_mib` is
    that of training: the allocator's peak on a GPU, the process's resident peak on a CPU, torch included.
    """

    label: str
    backbone: str
    model: dict[str, JsonValue]
    precision: str
    batch_size: int = Field(ge=1)
    memory_layout: Layout
    compiled: Compiled | None = None
    train_step_seconds: Rounds = Field(min_length=1)
    inference_step_seconds: Rounds = Field(min_length=1)  # of `batch_size` images
    inference_latency_seconds: Rounds = Field(min_length=1)  # of one image
    peak_memory_mib: Positive | None

    @property
    def variant(self) -> Variant:
        return Variant(memory_layout=self.memory_layout, compiled=self.compiled)

    @property
    def train_images_per_second(self) -> float:
        return self.batch_size / median(self.train_step_seconds)

    @property
    def inference_images_per_second(self) -> float:
        return self.batch_size / median(self.inference_step_seconds)

    @property
    def seconds_per_1000_images(self) -> float:
        """The unit in which budgets of training seconds are given."""
        return 1000 / self.train_images_per_second


class InputSpeed(Options):
    """How fast images of one shape are fetched, augmented and normalized on the device, without a model."""

    augment: dict[str, Any]
    channels: int
    image_size: int
    images_per_second: Rounds = Field(min_length=1)


class Benchmark(Options):
    """The measurements of one call of `study.benchmark`, on one device."""

    model_config = ConfigDict(extra="ignore")  # version 0.1 also timed several runs trained at once
    sweep: str
    began: str  # UTC
    rounds: int
    device: str
    device_name: str
    fingerprint: dict[str, JsonValue]  # threads, versions, determinism
    provenance: dict[str, JsonValue]  # commit
    architectures: tuple[Speed, ...]
    inputs: tuple[InputSpeed, ...]
    left_out: tuple[str, ...] = ()  # architectures that could not be measured, each with the reason
    format: int = FORMAT

    def speed(self, run: RunOptions) -> Speed | None:
        """The speed of a run's architecture at its precision, in the fastest variant; None if it was not measured.

        It is the speed at the run's batch size, or at the only one that was measured.
        """
        return select_speed(self._measured(run), run.train.batch_size)

    def best_variant(self, run: RunOptions) -> Variant | None:
        """The variant with the fastest training step for a run's architecture; None if fewer than two were measured."""
        speed = self.speed(run)
        several = len({speed.variant for speed in self._measured(run)}) > 1
        return speed.variant if speed is not None and several else None

    def _measured(self, run: RunOptions) -> list[Speed]:
        wanted = run.backbone, drop_added(run.model), run.train.precision
        return [each for each in self.architectures if (each.backbone, drop_added(each.model), each.precision) == wanted]

    def run_seconds(self, run: RunOptions) -> float | None:
        """Device-seconds of a run's training, with augmentation, validation and test; None if not measured.

        Reading data, start-up, checkpoints and recovery are not included.
        """
        data, train = run.data, run.train
        speed = self.speed(run)
        wanted = vars(run.augment), data.channels, data.image_size
        known = ((vars(AugmentOptions.model_construct(**each.augment)), each) for each in self.inputs)  # with later options
        sources = [each for augment, each in known if (augment, each.channels, each.image_size) == wanted]
        if speed is None or not sources:
            return None
        refit = train.fit_on == "train+val"
        trained = train.epochs * (data.train_images + (data.val_images if refit else 0))
        tested = data.test_images if train.read_test else 0
        evaluated = tested + (0 if refit else train.epochs * data.val_images)
        training = trained / speed.train_images_per_second + trained / median(sources[-1].images_per_second)
        return training + evaluated / speed.inference_images_per_second


def select_speed(measured: Sequence[Speed], batch_size: int) -> Speed | None:
    """The fastest of one architecture's speeds at this batch size, or at the only one that was measured."""
    sizes = {speed.batch_size for speed in measured}
    size = batch_size if batch_size in sizes or len(sizes) != 1 else next(iter(sizes))
    own = [speed for speed in measured if speed.batch_size == size]
    return max(own, key=lambda speed: speed.train_images_per_second) if own else None


def architecture_key(backbone: str, model: Mapping[str, Any]) -> str:
    """A key that is equal for equal architectures."""
    return json.dumps([backbone, dict(model)], sort_keys=True)


def median(rounds: Sequence[float]) -> float:
    return float(np.median(rounds))


def spread(rounds: Sequence[float]) -> float:
    """The interquartile range as a fraction of the median."""
    low, high = np.quantile(rounds, [0.25, 0.75])
    return float(high - low) / median(rounds)


def read_benchmark(path: Path) -> Benchmark:
    """The benchmark in a file. Raises UserError if it can't be read or is something else."""
    return read_document(path, Benchmark, hint="`python -m study.benchmark SWEEP` writes one")


def newest_benchmark(folder: Path) -> Benchmark | None:
    """The newest file of a sweep's `benchmarks/`, or None."""
    paths = sorted(folder.glob("*.json"))  # names begin with their time
    return read_benchmark(paths[-1]) if paths else None


_COLUMNS: Mapping[str, Callable[[Benchmark, Speed], float | int | str | None]] = {
    "train_step_seconds": lambda _, speed: median(speed.train_step_seconds),
    "benchmark_train_images_per_second": lambda _, speed: speed.train_images_per_second,
    "benchmark_train_spread": lambda _, speed: spread(speed.train_step_seconds),
    "inference_images_per_second": lambda _, speed: speed.inference_images_per_second,
    "inference_spread": lambda _, speed: spread(speed.inference_step_seconds),
    "inference_latency_seconds": lambda _, speed: median(speed.inference_latency_seconds),
    "benchmark_peak_memory_mib": lambda _, speed: speed.peak_memory_mib,
    "benchmark_batch_size": lambda _, speed: speed.batch_size,
    "benchmark_device": lambda benchmark, _: benchmark.device_name,
    "benchmark_variant": lambda _, speed: speed.variant.label,
}
BENCHMARK_COLUMNS = tuple(_COLUMNS)
"""Columns of the run table."""


def benchmark_columns(benchmark: Benchmark | None, run: RunOptions | None) -> dict[str, float | int | str | None]:
    """The columns of a planned run, all None if its architecture was not measured."""
    speed = benchmark.speed(run) if benchmark and run else None
    if benchmark is None or speed is None:
        return dict.fromkeys(BENCHMARK_COLUMNS)
    return {name: read(benchmark, speed) for name, read in _COLUMNS.items()}
