"""One optimizer step, the only place where weights change, and its loss."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from study.config.options import TrainOptions
from study.training.augmentation import Target
from study.training.distributed import SINGLE_RANK, Ranks, require_peers
from study.training.state import TrainingState


def optimizer_step(
    state: TrainingState,
    images: Tensor,
    target: Target,
    *,
    options: TrainOptions,
    micro_batches: int,
    autocast: torch.autocast,
    ranks: Ranks = SINGLE_RANK,
) -> None:
    """Update the weights by the gradient on images `b c h w`, taken in `micro_batches` equal parts, averaged over all ranks.

    The batch's mean loss and number of hits go into the state on the device, so the host doesn't wait for them.
    """
    epoch, index = divmod(state.step, len(state.losses))
    first = (index * ranks.size + ranks.rank) * len(images)  # the position of the first of these images in the epoch's order
    loss, hits = state.losses[index], state.hits[index]
    loss.zero_()
    hits.zero_()
    state.optimizer.zero_grad()
    parts = zip(images.chunk(micro_batches), target.chunk(micro_batches), strict=True)
    for number, (part, part_target) in enumerate(parts):
        for dropping in state.dropping:
            dropping.select(epoch=epoch, first=first + number * len(part), count=len(part))
        # Several ranks average their gradients once per step, in the backward pass of the last micro-batch.
        is_last = number == micro_batches - 1
        with nullcontext() if is_last else ranks.accumulate_locally(state.module):
            with autocast:
                logits = state.module(part)
            # Outside autocast and in fp32, where exp and log lose little.
            part_loss = compute_loss(logits.float(), part_target, options) / micro_batches
            with require_peers(computes=True):
                state.scaler.scale(part_loss).backward()  # type: ignore[no-untyped-call]
        loss += part_loss.detach()
        hits += (logits.detach().argmax(dim=1) == part_target.labels).sum()
    ranks.combine_metrics(loss=loss, hits=hits)
    if options.grad_clip is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), options.grad_clip)
    state.scaler.step(state.optimizer)  # skips the update where fp16 gradients overflowed
    state.scaler.update()
    if state.average is not None:
        state.average.update(state.model, state.step)
    state.step += 1


def compute_loss(logits: Tensor, target: Target, options: TrainOptions) -> Tensor:
    """The mean loss of logits `b k`, in nats."""
    if options.loss == "bce":
        targets = make_soft_targets(target, logits.shape[1], label_smoothing=options.label_smoothing)
        if options.bce_threshold is not None:
            targets = (targets > options.bce_threshold).to(targets.dtype)
        return F.binary_cross_entropy_with_logits(logits, targets)
    return cross_entropy(logits, target, label_smoothing=options.label_smoothing)


def make_soft_targets(target: Target, classes: int, *, label_smoothing: float) -> Tensor:
    """The probability of each class, float `b k`: that of the label, mixed with the partner's, smoothed over all classes."""
    hot = F.one_hot(target.labels, classes).float()
    if target.partners is not None and target.weight is not None:
        hot = torch.lerp(F.one_hot(target.partners, classes).float(), hot, target.weight[:, None])
    return hot * (1 - label_smoothing) + label_smoothing / classes


def cross_entropy(logits: Tensor, target: Target, *, label_smoothing: float) -> Tensor:
    """The mean loss of logits `b k`, in nats.

    Cross-entropy is linear in the target, so an image that was mixed of two costs the two labels' losses in proportion
    (Zhang et al., "mixup", ICLR 2018, section 2), and smoothing applies to both alike.
    """
    if target.partners is None or target.weight is None:
        return F.cross_entropy(logits, target.labels, label_smoothing=label_smoothing)
    own = F.cross_entropy(logits, target.labels, label_smoothing=label_smoothing, reduction="none")
    partner = F.cross_entropy(logits, target.partners, label_smoothing=label_smoothing, reduction="none")
    return (target.weight * own + (1 - target.weight) * partner).mean()


def sees_whole_batch(model: nn.Module) -> bool:
    """Whether an image's logits depend on its batch in training (BatchNorm), so that micro-batches train another model."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training for module in model.modules())
