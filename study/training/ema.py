"""An exponential moving average of the weights (EMA), for evaluation only: training never reads it.

The decay warms up as min(decay, (1 + t) / (10 + t)) after t updates, TensorFlow's `ExponentialMovingAverage` with
`num_updates`: a short training would otherwise be judged by its initial weights (0.999 ** 270 = 0.76). Floating-point
buffers (BatchNorm's running statistics) are averaged with the weights they belong to; counters are copied. torch's
`AveragedModel` asks the device for its update count in every step, which makes the host wait; this one doesn't.
"""

from __future__ import annotations

import copy

import torch
from torch import nn


class WeightAverage:
    """The averaged copy of `model`, which begins with the initial weights."""

    def __init__(self, model: nn.Module, *, decay: float):
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Update the average by the weights after optimizer step `step`, counted from 0."""
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        averaged, current = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        torch._foreach_lerp_(averaged, current, 1 - warm_up_decay(self.decay, step))
        for counter, new in pairs:
            if not counter.is_floating_point():
                counter.copy_(new)


def warm_up_decay(decay: float, updates: int) -> float:
    """The decay of the update after `updates` earlier ones."""
    return min(decay, (1 + updates) / (10 + updates))
