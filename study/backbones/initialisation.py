"""Where a backbone's first weights come from: keyed streams, so that backbones and widths can be compared.

`matched` initialisation is the same for every backbone. The patch embedding is drawn from the stream (seed, "patch
embedding"), filter by filter: backbones of equal width begin with the same one, bit for bit, and a narrower backbone
with the first filters of a wider one. Every other parameter is drawn from (seed, "initialisation", its name), so
nothing depends on what was drawn before it. All weights are normal with variance 1 / fan-in (LeCun et al., "Efficient
backprop", 1998, section 4.6; the default of the frameworks that ViT and MLP-Mixer were written in), biases and class
tokens zero, norms one and zero, learned positions normal with standard deviation 0.02 (as in ViT).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from study.streams import stream

POSITIONS_STD = 0.02


@dataclass(frozen=True)
class Distribution:
    """What a parameter is drawn from: a constant, or a normal with zero mean."""

    kind: Literal["constant", "normal"]
    scale: float  # the constant, or the standard deviation

    def sample(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Numbers of the given shape, drawn in the order of memory."""
        if self.kind == "constant":
            return np.full(shape, self.scale)
        return self.scale * generator.standard_normal(shape)


def initialise(model: nn.Module, seed: int) -> None:
    """Overwrite every parameter of a backbone with its keyed draw."""
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            full_name = f"{module_name}.{name}"
            shape = tuple(parameter.shape)
            numbers = matched(module, name, parameter).sample(stream(*key(full_name, seed)), shape)
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(numbers))


def key(full_name: str, seed: int) -> tuple[int | str, ...]:
    """The key of a parameter's stream."""
    if full_name == "stem.patch_embedding.projection.weight":
        return (seed, "patch embedding")
    return (seed, "initialisation", full_name)


def matched(module: nn.Module, name: str, parameter: nn.Parameter) -> Distribution:
    """The distribution of one parameter of `module` in matched studies."""
    if name == "positions":
        return Distribution("normal", POSITIONS_STD)
    if name in ("bias", "class_token"):
        return Distribution("constant", 0.0)
    assert name == "weight", f"no rule to initialise {name} of {type(module).__name__}"
    if parameter.ndim == 1:  # a norm's scale
        return Distribution("constant", 1.0)
    return Distribution("normal", 1 / math.sqrt(fan_in(parameter)))


def fan_in(weight: nn.Parameter) -> int:
    """Inputs that one output sums over: all axes of a weight but its first."""
    return math.prod(weight.shape[1:])
