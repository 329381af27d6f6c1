"""The training loss: cross-entropy with smoothed and mixed labels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from study.training.augmentation import Target


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
