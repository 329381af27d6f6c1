"""The cost of a backbone by arithmetic: the cost of each layer, and the sum of a whole model.

The convention, everywhere in the project: one multiply-accumulate (MAC) is one multiplication whose product is summed.
Convolutions, linear layers and the two products of attention have MACs; norms, activations, pooling, biases and
residual additions are not counted. A convolution is counted with its whole kernel, also where it covers padding. A Fourier
transform of N real numbers has 5/4 N log2 N, half the FLOPs that it has by the convention of benchFFT (Frigo and Johnson,
"The design and implementation of FFTW3", 2005, section VI); the product of two complex numbers has four.
All numbers are for one image. FLOPs are 2 x MACs, a training step is 3 x the forward pass (one pass forward, two of
the same size backward: Kaplan et al., "Scaling laws for neural language models", 2020, section 2.1).
"""

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass

MODEL_PARTS = ("stem", "token_mixing", "channel_mixing", "head")


@dataclass(frozen=True)
class PartCost:
    """The cost of one part of a model, or of one layer; costs can be added, and multiplied by a number of repetitions."""

    params: int = 0  # trainable
    frozen_params: int = 0  # never trained, and not part of `params`
    macs: int = 0
    activation_elements: int = 0  # written by operators with MACs (Radosavovic et al., CVPR 2020)
    padding_macs: int = 0  # those MACs of depthwise convolutions that multiply a padded zero

    def __add__(self, other: "PartCost") -> "PartCost":
        return PartCost(*map(operator.add, vars(self).values(), vars(other).values()))

    def __rmul__(self, times: int) -> "PartCost":
        return PartCost(*(times * count for count in vars(self).values()))


@dataclass(frozen=True)
class Cost:
    """The cost of a whole model: its totals, in the terms of `PartCost`, are the sums of its parts, exactly.

    A backbone has the four parts of `MODEL_PARTS`; a module that does not name its parts has the single part "whole".
    """

    parts: Mapping[str, PartCost]

    @property
    def params(self) -> int:
        return sum(part.params for part in self.parts.values())

    @property
    def frozen_params(self) -> int:
        return sum(part.frozen_params for part in self.parts.values())

    @property
    def macs(self) -> int:
        return sum(part.macs for part in self.parts.values())

    @property
    def flops(self) -> int:
        return 2 * self.macs

    @property
    def training_macs(self) -> int:
        return 3 * self.macs

    @property
    def activation_elements(self) -> int:
        return sum(part.activation_elements for part in self.parts.values())

    @property
    def padding_macs(self) -> int:
        return sum(part.padding_macs for part in self.parts.values())


def linear_cost(positions: int, fan_in: int, fan_out: int, bias: bool = True) -> PartCost:
    """A linear layer applied at each of `positions`; a 1x1 convolution costs the same."""
    return PartCost(
        params=fan_in * fan_out + (fan_out if bias else 0),
        macs=positions * fan_in * fan_out,
        activation_elements=positions * fan_out,
    )


def convolution_cost(positions: int, in_channels: int, out_channels: int, kernel_size: int, bias: bool = True) -> PartCost:
    """A dense convolution with a square kernel: a linear layer over the pixels under the kernel."""
    return linear_cost(positions, in_channels * kernel_size**2, out_channels, bias)


def depthwise_cost(grid: int, dim: int, kernel_size: int, bias: bool = True) -> PartCost:
    """A depthwise convolution over `grid` x `grid` positions, with stride 1 and as many outputs as inputs."""
    macs = grid**2 * dim * kernel_size**2
    return PartCost(
        params=dim * kernel_size**2 + (dim if bias else 0),
        macs=macs,
        activation_elements=grid**2 * dim,
        padding_macs=macs - dim * count_pairs_within(grid, kernel_size // 2) ** 2,
    )


def count_pairs_within(grid: int, reach: int) -> int:
    """Ordered pairs (i, j) of positions in a row of `grid` with |i - j| <= reach: a kernel row's taps on real inputs."""
    return grid + 2 * sum(grid - distance for distance in range(1, min(reach, grid - 1) + 1))


def attention_cost(tokens: int, dim: int, heads: int, bias: bool = True) -> PartCost:
    """Self-attention: one layer makes queries, keys and values, two products mix, one layer combines the heads.

    The products (queries times keys, scores times values) write their scores and their output, whether fused or not.
    """
    products = PartCost(macs=2 * tokens**2 * dim, activation_elements=heads * tokens**2 + tokens * dim)
    return linear_cost(tokens, dim, 3 * dim, bias) + products + linear_cost(tokens, dim, dim, bias)


def mlp_cost(positions: int, dim: int, hidden: int, bias: bool = True) -> PartCost:
    """Two linear layers, `dim` -> `hidden` -> `dim`, at each of `positions`."""
    return linear_cost(positions, dim, hidden, bias) + linear_cost(positions, hidden, dim, bias)


def fft_macs(points: int) -> int:
    """A Fourier transform between `points` real numbers (of all transformed dimensions) and complex ones, rounded up."""
    return math.ceil(1.25 * points * math.log2(points))


def norm_cost(dim: int, norm: str = "layer") -> PartCost:
    """A norm: a scale per feature and, unless it is `rms`, a shift; by convention no MACs."""
    return PartCost(params=dim if norm == "rms" else 2 * dim)
