"""The learning rate as a function of the step, so that a resumed run needs no schedule state.

A schedule counts optimizer steps from 0. Warm-up rises linearly and reaches the peak at its last step; the first step
after it is at the peak and the last step of training still moves the weights. `one_cycle` is the published recipe's
shape and keeps the recipe's own convention, in which the very last step has learning rate 0.
"""

import math

import numpy as np

from study.config.options import TrainOptions
from study.errors import Problem, UserError

ONE_CYCLE_PROGRESS = (0.0, 2 / 5, 4 / 5, 1.0)
ONE_CYCLE_LEVELS = (0.0, 1.0, 1 / 20, 0.0)
"""Knots of the piecewise linear schedule of locuslab/convmixer-cifar10, train.py: 0, peak, peak / 20, 0."""


def count_epoch_steps(train_images: int, batch_size: int) -> int:
    """Optimizer steps of one epoch: full batches only, as every batch must have one shape.

    The images left over differ from epoch to epoch with the shuffle. Raises UserError where there's no full batch.
    """
    if batch_size > train_images:
        rule = f"a batch can't be larger than the training set, which has {train_images} images"
        raise UserError(Problem(rule, key="train.batch_size", value=batch_size))
    return train_images // batch_size


def learning_rate(step: int, train: TrainOptions, *, epoch_steps: int) -> float:
    """The learning rate of optimizer step `step`, counted from 0, in a training of `train.epochs * epoch_steps` steps."""
    steps = train.epochs * epoch_steps
    assert 0 <= step < steps, f"step {step} of {steps}"
    if train.schedule == "one_cycle":
        return train.lr * float(np.interp((step + 1) / steps, ONE_CYCLE_PROGRESS, ONE_CYCLE_LEVELS))
    warmup = round(train.warmup_epochs * epoch_steps)
    if step < warmup:
        return train.lr * (step + 1) / warmup
    progress = (step - warmup) / (steps - warmup)  # in [0, 1)
    match train.schedule:
        case "cosine":  # Loshchilov and Hutter, SGDR (2017), equation 5, one cycle down to 0
            return train.lr * ((1 + math.cos(math.pi * progress)) / 2)
        case "linear":
            return train.lr * (1 - progress)
        case "constant":
            return train.lr
