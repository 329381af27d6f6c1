"""When a training counts as diverged: it ends early, with the step, the same wherever and however it ran.

Two rules, both functions of the losses alone and so of the run alone:
1. the loss of a training step, or of an evaluation, is not finite;
2. two epochs in a row have a mean training loss of more than ten times ln(classes), the loss of uniform predictions. One such
   epoch is allowed, since high learning rates do overshoot at first and recover.
"""

from __future__ import annotations

import math

from torch import Tensor

from study.training.outcome import Curves

DIVERGED_LOSS = 10.0  # in units of ln(classes)
DIVERGED_EPOCHS = 2


def first_nonfinite(losses: Tensor) -> int | None:
    """The position of the first loss of `losses` `n` that is NaN or infinite. Waits for the device."""
    nonfinite = (~losses.isfinite()).nonzero()
    return int(nonfinite[0]) if len(nonfinite) else None


def has_diverged(curves: Curves, num_classes: int) -> bool:
    """Whether the latest epochs violate the second rule."""
    latest = curves["train_loss"][-DIVERGED_EPOCHS:]
    limit = DIVERGED_LOSS * math.log(max(num_classes, 2))
    return len(latest) == DIVERGED_EPOCHS and all(loss is not None and loss > limit for loss in latest)
