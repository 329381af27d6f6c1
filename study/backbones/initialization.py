"""Initial weights from keyed random streams, so that backbones and widths can be compared.

`matched` initialization is the same for every backbone. The patch embedding is drawn from the stream (seed, "patch
embedding"), filter by filter: backbones of equal width begin with the same one, bit for bit, and a narrower backbone
with the first filters of a wider one. Every other parameter is drawn from (seed, "initialisation", its name), so
nothing depends on what was drawn before it. All weights are normal with variance 1 / fan-in (LeCun et al., "Efficient
backprop", 1998, section 4.6; the default of the frameworks that ViT and MLP-Mixer were written in), biases and class
tokens zero, norms one and zero. Learned positions are normal with standard deviation 1, that of the patch embeddings of a
normalized image to which they are added: with ViT's 0.02, attention over single-pixel tokens can't distinguish them for
most of a short training (measured on digits, p=1, 16 epochs: 28 % against 81 % validation accuracy; LOG.md).

`paper` initialization draws from the same streams, but from the distributions of the backbone's paper; each
backbone's file states them with their source.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from study.backbones.layers import ScaledBranch
from study.rng import stream

_MATCHED_POSITIONS_STD = 1.0
_CLOSED_GATE_STD = 1e-6
_PAPER_POSITIONS_STD = 0.02  # Dosovitskiy et al., "An image is worth 16x16 words", 2021, their code
_UNIT_TRUNCATED_STD = 0.87962566103423978  # the standard deviation of a standard normal that is truncated at -2 and 2


@dataclass(frozen=True)
class Distribution:
    """What a parameter is drawn from. `scale` is the constant, the standard deviation, or the bound of a uniform."""

    kind: Literal["constant", "normal", "truncated_normal", "uniform", "stochastic_rows"]
    scale: float = 1.0

    def sample(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Numbers of the given shape, drawn in row-major order."""
        if self.kind == "constant":
            return np.full(shape, self.scale)
        if self.kind == "normal":
            return np.asarray(self.scale * generator.standard_normal(shape))
        if self.kind == "uniform":
            return generator.uniform(-self.scale, self.scale, shape)
        if self.kind == "truncated_normal":  # at two standard deviations before rescaling, as in flax
            from scipy.special import ndtr, ndtri  # only papers' initializations need it, and it is slow to load

            low, high = ndtr(-2.0), ndtr(2.0)
            return np.asarray(self.scale / _UNIT_TRUNCATED_STD * ndtri(low + (high - low) * generator.random(shape)))
        weights = np.exp(generator.random(shape))  # softmax of uniform numbers, row by row
        return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


DistributionRule = Callable[[nn.Module, str, nn.Parameter], Distribution]
"""The distribution of a parameter, from the module that holds it, its full name, and itself."""


def initialize(model: nn.Module, seed: int, *, rule: DistributionRule) -> None:
    """Overwrite every parameter of a backbone with its keyed draw from the distribution that `rule` gives it."""
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            full_name = f"{module_name}.{name}"
            # These words key the streams: with another spelling, all weights of earlier runs would differ.
            key = (
                ("patch embedding",) if full_name == "stem.patch_embedding.projection.weight" else ("initialisation", full_name)
            )
            if name == "layer_scale" and isinstance(module, ScaledBranch) and module.initial_scale is not None:
                distribution = Distribution("constant", module.initial_scale)
            else:
                distribution = rule(module, full_name, parameter)
            numbers = distribution.sample(stream(seed, *key), tuple(parameter.shape))
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(numbers))


def matched_distribution(module: nn.Module, name: str, parameter: nn.Parameter) -> Distribution:
    """The distribution of a parameter in matched studies; `name` is its full name."""
    kind = name.rpartition(".")[2]
    if not parameter.requires_grad:
        return Distribution("stochastic_rows")
    if kind == "table":
        return Distribution("normal", _MATCHED_POSITIONS_STD)
    if ".spatial_gate." in name:  # Liu et al., "Pay attention to MLPs", 2021, section 2.1
        return Distribution("constant", 1.0) if kind == "bias" else Distribution("normal", _CLOSED_GATE_STD)
    if kind in ("bias", "class_token", "relative_bias"):
        return Distribution("constant", 0.0)
    if kind == "frequency_filter":  # a complex variance of 1 is that of a convolution with variance 1 / fan-in
        return Distribution("normal", math.sqrt(1 / 2))
    if kind == "registers":
        return Distribution("normal", _PAPER_POSITIONS_STD)
    assert kind == "weight", f"no rule to initialize {name}"
    if parameter.ndim == 1:  # a norm's scale
        return Distribution("constant", 1.0)
    return Distribution("normal", 1 / math.sqrt(fan_in(parameter)))


def common_paper_distribution(name: str, parameter: nn.Parameter) -> Distribution:
    """What the papers have in common: positions and registers normal with 0.02, norm scales one, everything else zero."""
    if name.endswith((".table", ".registers")):
        return Distribution("normal", _PAPER_POSITIONS_STD)
    return Distribution("constant", 1.0 if name.endswith("weight") and parameter.ndim == 1 else 0.0)


def fan_in(weight: Tensor) -> int:
    """Inputs that one output sums over: all axes of a weight but its first."""
    return math.prod(weight.shape[1:])
