"""When a batch doesn't fit into memory: find, by trying, a micro-batch size that does.

Gradients of equal micro-batches add up to the batch's own, so a model without BatchNorm trains as configured, within rounding,
and its record notes it. With BatchNorm, micro-batches would change the model: the run fails, and its message names the batch
size that would have fit.
"""

import gc
from collections.abc import Iterator

import torch

from study.backbones import build_backbone
from study.config.run import Run
from study.training.augmentation import Target
from study.training.device import DeviceChoice, autocast
from study.training.model_setup import prepare_model
from study.training.optimizer import set_learning_rate
from study.training.state import initial_state
from study.training.step import optimizer_step, sees_whole_batch


class OutOfMemory(Exception):
    """A run needs more memory than there is; the message says which batch size would fit."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory; on a CPU only the message says so."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def find_micro_batches(run: Run, choice: DeviceChoice) -> int:
    """The number of equal micro-batches that a batch of `run` must be cut into to fit; raises OutOfMemory where no number
    suffices or where the model has BatchNorm."""
    batch_size = run.train.batch_size
    sizes = halve_sizes(batch_size, batch_size // run.train.accumulate)
    size = next((size for size in sizes if can_fit(run, size, choice=choice)), None)
    if size is None:
        raise OutOfMemory(f"a batch of {batch_size} doesn't fit into memory, and not even one image does")
    if run.train.freeze == "none" and sees_whole_batch(build_backbone(run.model)):
        message = f"a batch of {batch_size} doesn't fit into memory; train.batch_size={size} would"
        raise OutOfMemory(f"{message} (BatchNorm sees the whole batch, so it can't be cut into micro-batches)")
    return batch_size // size


def halve_sizes(batch_size: int, part: int) -> Iterator[int]:
    """Divisors of the batch size, from half of `part` down, each the largest that is at most half the one before."""
    while part > 1:
        part = next(size for size in range(part // 2, 0, -1) if batch_size % size == 0)
        yield part


def can_fit(run: Run, size: int, *, choice: DeviceChoice) -> bool:
    try:
        take_trial_step(run, size, choice=choice)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        release_memory(choice.device)
    return True


def take_trial_step(run: Run, size: int, *, choice: DeviceChoice) -> None:
    """Take one step as the run would, on `size` black images, with tensors that are gone when this returns."""
    prepared, device = prepare_model(run, choice), choice.device
    state = initial_state(prepared.model, run, device=device, epoch_steps=1)
    set_learning_rate(state.optimizer, 0.0)
    images = torch.zeros(size, run.data.channels, run.data.image_size, run.data.image_size, device=device)
    target = Target(torch.zeros(size, dtype=torch.int64, device=device))
    optimizer_step(
        state,
        images.to(memory_format=prepared.layout),
        target,
        options=run.train,
        micro_batches=1,
        autocast=autocast(run.train.precision, device),
    )


def release_memory(device: torch.device) -> None:
    """Return memory that is no longer referenced to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
