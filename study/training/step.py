"""One optimizer step, of one run or of several at once: the only place where weights move."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from study.config.options import TrainOptions
from study.training.augmentation import Target
from study.training.distributed import ALONE, Ranks
from study.training.loss import cross_entropies, cross_entropy
from study.training.stacking import Stack
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
    move(state, options)


def stacked_step(
    states: Sequence[TrainingState],
    stack: Stack,
    batches: Sequence[tuple[Tensor, Target]],
    *,
    options: TrainOptions,
    autocast: torch.autocast,
) -> None:
    """The same for several runs at once, each with its own batch; `options` are the first one's, of which all share what
    is read here."""
    at = states[0].step % len(states[0].losses)
    images, targets = zip(*batches, strict=True)
    target = Target.joined(targets)
    stack.forget_gradients()
    with autocast:
        logits = stack.model(torch.cat(images))
    losses = cross_entropies(stack.apart(logits.float()), target, label_smoothing=options.label_smoothing)
    scaled = [state.scaler.scale(loss) for state, loss in zip(states, losses.unbind(), strict=True)]
    torch.stack(scaled).sum().backward()  # type: ignore[no-untyped-call]
    hits = stack.apart(logits.detach().argmax(dim=1) == target.labels).sum(dim=1)
    for state, loss, right in zip(states, losses.detach().unbind(), hits.unbind(), strict=True):
        state.losses[at], state.hits[at] = loss, right
        move(state, options)


def move(state: TrainingState, options: TrainOptions) -> None:
    """Move the weights by their gradients."""
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
