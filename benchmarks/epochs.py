"""Whole epochs in the training engine against peer (a), and the cost of a run before its first step.

Ours is the engine itself: an epoch's time is the difference between trainings of three epochs and of one, so that one-time
costs are left out. Peer (a) with its loader is timed over a part of an epoch, after its first batch, and extrapolated.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_size import Request
from benchmarks.peers import plain_step, usual_epoch, usual_loader
from benchmarks.subjects import SUBJECTS, facts_of, run_of, timm_model
from benchmarks.turns import synchronize
from study.config.options import DataOptions, ResolvedData
from study.config.run import Run
from study.data import prepare_dataset
from study.data.splits import Splits, load_splits, make_random_splits
from study.training.checkpoint import Checkpoints
from study.training.device import DeviceChoice
from study.training.engine import train
from study.training.outcome import Outcome

LOADER_WORKERS = 2
LONG, SHORT = 3, 1  # epochs


def epochs(request: Request) -> list[dict[str, Any]]:
    """Seconds per epoch of ours, of the usual loop, and of the usual loop with its data already on the device."""
    scale, found = request.scale, []
    for name in scale.epochs_of:
        run, splits = run_and_images(request, name)
        ours = our_epoch(run, splits, scale.choice)
        row: dict[str, Any] = {"model": SUBJECTS[name].name, "images": len(splits.train), "ours_s": ours}
        resident = peer_epoch(request, name, resident_batches(splits, scale.batch_size, scale.device), images=len(splits.train))
        row |= {"usual_loop_on_device_s": resident, "x_on_device": resident / ours}
        if name.startswith(("convmixer", "toy")):  # the loader's time is the same for all models
            loader = usual_loader(splits.train, batch_size=scale.batch_size, workers=LOADER_WORKERS)
            part = itertools.islice(loader, max(2, scale.loader_images // scale.batch_size))
            usual = peer_epoch(request, name, part, images=len(splits.train))
            row |= {"usual_loop_s": usual, "x_usual": usual / ours}
        found.append(row)
    return found


def our_epoch(run: Run, splits: Splits, choice: DeviceChoice) -> float:
    """Seconds of one epoch, by the engine's own measurement of training time."""
    seconds = {}
    for count in (LONG, SHORT):
        train_options = run.train.model_copy(update={"epochs": count})
        outcome = train_once(dataclasses.replace(run, train=train_options), splits, choice, stop=lambda: False)
        assert isinstance(outcome, Outcome) and outcome.train_seconds is not None
        seconds[count] = outcome.train_seconds
    return (seconds[LONG] - seconds[SHORT]) / (LONG - SHORT)


def peer_epoch(request: Request, name: str, batches: Iterable[tuple[Tensor, Tensor]], *, images: int) -> float:
    """Seconds of the usual loop for `images` images, extrapolated from `batches` after the first."""
    scale = request.scale
    step = plain_step(timm_model(SUBJECTS[name]).to(scale.device), device=scale.device, precision=scale.precision)
    waiting, seen = iter(batches), 0

    def counted() -> Iterator[tuple[Tensor, Tensor]]:
        nonlocal seen
        for batch in waiting:
            seen += len(batch[1])
            yield batch

    usual_epoch(step, [next(waiting)], device=scale.device)
    started = time.perf_counter()
    usual_epoch(step, counted(), device=scale.device)
    return (time.perf_counter() - started) * images / seen


def resident_batches(splits: Splits, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """One shuffled epoch of normalized images that are already on the device, without augmentation."""
    mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (splits.info.mean, splits.info.std))
    images = splits.train.images.to(device).float().div_(255).sub_(mean).div_(std)
    labels = splits.train.labels.to(device)
    order = torch.randperm(len(labels), device=device)
    for ids in torch.split(order, batch_size)[: len(labels) // batch_size]:
        yield images[ids], labels[ids]


def fixed_costs(request: Request) -> list[dict[str, Any]]:
    """Seconds from the start of a training to the end of its first step, for the first run of a process and later ones."""
    found = []
    for name in request.scale.epochs_of:
        run, splits = run_and_images(request, name)
        seconds = [until_first_step(run, splits, request.scale.choice) for _ in range(3)]
        runs = dict(zip(("first_run_s", "second_run_s", "third_run_s"), seconds, strict=True))
        found.append({"model": SUBJECTS[name].name, **runs})
    return found


def until_first_step(run: Run, splits: Splits, choice: DeviceChoice) -> float:
    """Seconds until the device has finished the first step of a training."""
    started, done = time.perf_counter(), []

    def stop() -> bool:
        synchronize()
        done.append(time.perf_counter())
        return True

    train_once(run, splits, choice, stop=stop)
    return done[0] - started


def train_once(run: Run, splits: Splits, choice: DeviceChoice, *, stop: Callable[[], bool]) -> object:
    """Train with checkpoints in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), run.run_id, "benchmark")
        return train(run, splits, device=choice, checkpoints=checkpoints, stop=stop, report=lambda *_: None)


def run_and_images(request: Request, name: str) -> tuple[Run, Splits]:
    """A run and its images: real ones if a folder is given, else random ones of CIFAR-10's shape."""
    scale = request.scale
    run = run_of(SUBJECTS[name], batch_size=scale.batch_size, precision=scale.precision, images=scale.images, epochs=SHORT)
    if request.images is None:
        return run, make_random_splits(facts_of(run), images=scale.images)
    cache = tempfile.gettempdir()
    options = DataOptions(name="folder", root=str(request.images), cache=cache, image_size=SUBJECTS[name].image_size)
    facts = prepare_dataset(options, workers=8, report=lambda *_: None)
    sizes = {field: getattr(facts, field) for field in ("digest", "image_size", "num_classes", "channels")}
    counts = {field: getattr(facts, field) for field in ("train_images", "val_images", "test_images")}
    data = ResolvedData.model_validate({**options.model_dump(), **sizes, **counts})
    return dataclasses.replace(run, data=data), load_splits(data, facts)
