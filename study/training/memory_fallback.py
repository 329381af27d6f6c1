"""What to do when a batch doesn't fit into memory: find, by trying, a part of it that does.

Gradients of equal micro-batches add up to the batch's own, so a model without BatchNorm trains on as configured, within
rounding, and its record says so. With BatchNorm micro-batches would be another model: then the run fails, and names the
batch size that would have fitted.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import torch

from study.backbones import build_backbone
from study.config.run import Run
from study.training.augmentation import Target
from study.training.device import autocast
from study.training.memory_layout import choose_memory_format
from study.training.optimizer import set_learning_rate
from study.training.state import initial_state
from study.training.step import optimizer_step, sees_whole_batch


class OutOfMemory(Exception):
    """A run that needs more memory than there is; its message says which batch size would fit."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory; on a CPU it says so only in words."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def find_micro_batches(run: Run, *, device: torch.device) -> int:
    """The number of equal micro-batches that a batch of `run` must be cut into to fit; raises OutOfMemory where no number
    will do or where the model has BatchNorm."""
    for size in smaller_parts(run.train.batch_size, run.train.batch_size // run.train.accumulate):
        if fits(run, size, device=device):
            return accepted(run, size)
    raise OutOfMemory(f"a batch of {run.train.batch_size} doesn't fit into memory, and not even one image does")


def smaller_parts(batch_size: int, part: int) -> Iterator[int]:
    """Divisors of the batch's size, each the largest that is at most half the one before, from half of `part` down."""
    while part > 1:
        part = next(size for size in range(part // 2, 0, -1) if batch_size % size == 0)
        yield part


def accepted(run: Run, size: int) -> int:
    """The number of micro-batches of `size` images, unless BatchNorm forbids them."""
    if sees_whole_batch(build_backbone(run.model, seed=run.seed)):
        told = f"a batch of {run.train.batch_size} doesn't fit into memory; train.batch_size={size} would"
        raise OutOfMemory(f"{told} (BatchNorm sees the whole batch, so it can't be cut into micro-batches)")
    return run.train.batch_size // size


def fits(run: Run, size: int, *, device: torch.device) -> bool:
    """Whether a step on `size` images fits, tried on black ones with a model of its own."""
    try:
        trial_step(run, size, device=device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        release(device)
    return True


def trial_step(run: Run, size: int, *, device: torch.device) -> None:
    """One step as the run would take it, on `size` images."""
    model = build_backbone(run.model, seed=run.seed)
    layout = choose_memory_format(model)
    model.to(device=device).to(memory_format=layout)  # type: ignore[call-overload]
    state = initial_state(model, run, device=device, epoch_steps=1)
    set_learning_rate(state.optimizer, 0.0)
    images = torch.zeros(size, run.data.channels, run.data.image_size, run.data.image_size, device=device)
    target = Target(torch.zeros(size, dtype=torch.int64, device=device))
    optimizer_step(
        state,
        images.to(memory_format=layout),
        target,
        options=run.train,
        micro_batches=1,
        autocast=autocast(run.train.precision, device),
    )


def release(device: torch.device) -> None:
    """Give memory of what is no longer referenced back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
