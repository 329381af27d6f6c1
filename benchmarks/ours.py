"""This project's side: the training engine's own step on a batch that is on the device, and its own data path."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch

from benchmarks.subjects import RECIPE, facts_of
from study.benchmarking.timing import make_random_batch
from study.config.options import Variant
from study.config.run import Run
from study.data.splits import make_random_splits
from study.training.augmentation import Target
from study.training.batches import TrainingBatches
from study.training.device import DeviceChoice, autocast, execution_mode
from study.training.memory_layout import choose_memory_format, to_memory_format
from study.training.model_setup import prepare_model
from study.training.optimizer import set_learning_rate
from study.training.state import initial_state
from study.training.step import optimizer_step

INPUT_IMAGES = 4096


def our_step(run: Run, choice: DeviceChoice, *, variant: Variant | None = None) -> tuple[Callable[[], object], str]:
    """One step of the engine, in the default or another `variant`, and a description of it."""
    prepared, device = prepare_model(run, choice, variant=variant), choice.device
    state = initial_state(prepared.model, run, device=device, epoch_steps=1000)
    images = to_memory_format(make_random_batch(run).to(device), prepared.layout)
    target = Target((torch.arange(len(images)) % run.data.num_classes).to(device))
    casting = autocast(run.train.precision, device)

    def step() -> None:
        state.step %= len(state.losses)
        set_learning_rate(state.optimizer, 1e-3)
        with execution_mode(choice):
            optimizer_step(state, images, target, options=run.train, micro_batches=1, autocast=casting)

    return step, f"{prepared.variant.label}, kernels {prepared.kernels}"


def our_input(run: Run, choice: DeviceChoice) -> tuple[Callable[[], object], str]:
    """One batch from the data path: gathered, augmented by the 25-epoch recipe and normalized, as a mean over many."""
    splits = make_random_splits(facts_of(run), images=max(INPUT_IMAGES, run.train.batch_size))
    layout = choose_memory_format(prepare_model(run, choice).model)
    batches = TrainingBatches(run, splits, device=choice.device, layout=layout)
    stream = (batch for epoch in itertools.count() for batch in batches.epoch(epoch))
    return lambda: next(stream), f"flip, RandAugment {RECIPE.randaugment_n} x {RECIPE.randaugment_m}"
