"""One optimizer step: the only place where weights move."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from study.config.options import TrainOptions
from study.training.augmentation import Target
from study.training.distributed import ALONE, Ranks
from study.training.loss import cross_entropy
from study.training.state import TrainingState


def optimizer_step(
    state: TrainingState,
    images: Tensor,
    target: Target,
    *,
    options: TrainOptions,
    micro_batches: int,
    autocast: torch.autocast,
    ranks: Ranks = ALONE,
) -> None:
    """Move the weights by the gradient of images `b c h w`, taken in `micro_batches` equal parts, and of the other ranks'.

    The batch's mean loss and hits are noted in the state, on the device: the host waits for nothing.
    """
    epoch, at = divmod(state.step, len(state.losses))
    own = (at * ranks.size + ranks.rank) * len(images)  # the place of the first of these images in the epoch's order
    state.losses[at], state.hits[at] = 0.0, 0.0
    state.optimizer.zero_grad()
    parts = zip(images.chunk(micro_batches), target.chunk(micro_batches), strict=True)
    for number, (part, goal) in enumerate(parts):
        if state.depth is not None:
            state.depth.select(epoch=epoch, first=own + number * len(part), count=len(part))
        with autocast:
            logits = state.model(part)
        loss = cross_entropy(logits.float(), goal, label_smoothing=options.label_smoothing) / micro_batches
        state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        state.losses[at] += loss.detach()
        state.hits[at] += (logits.detach().argmax(dim=1) == goal.labels).sum()
    ranks.combine(state.model, loss=state.losses[at], hits=state.hits[at])
    if options.grad_clip is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), options.grad_clip)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.average is not None:
        state.average.update(state.model, state.step)
    state.step += 1


def sees_whole_batch(model: nn.Module) -> bool:
    """Whether an image's logits depend on its batch in training (BatchNorm), so that micro-batches train another model."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
