"""What a backbone costs, as arithmetic: the price of each layer, and the account in which a whole model adds up.

The convention, everywhere in the project: one multiply-accumulate (MAC) is one multiplication whose product is summed.
Convolutions, linear layers and the two products of attention carry MACs; norms, activations, pooling, biases and
residual additions are not counted. A convolution is charged for its whole kernel, also where it falls on padding.
All figures are for one image. FLOPs are 2 x MACs, a training step is 3 x the forward pass (one pass forward, two of
the same size backward: Kaplan et al., "Scaling laws for neural language models", 2020, section 2.1).

`params` are the trainable parameters; weights that never change are `frozen_params` and are not part of `params`.
`activation_elements` are the elements that operators with MACs write (Radosavovic et al., "Designing network design
spaces", CVPR 2020); attention writes its scores and its output, however it is executed.
`padding_macs` are those MACs of depthwise convolutions that multiply a padded zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PARTS = ("stem", "token_mixing", "channel_mixing", "head")


@dataclass(frozen=True)
class Part:
    """The cost of one part of a model, or of one layer; costs add up, and multiply by the number of repetitions."""

    params: int = 0
    frozen_params: int = 0
    macs: int = 0
    activation_elements: int = 0
    padding_macs: int = 0

    def __add__(self, other: Part) -> Part:
        return Part(
            params=self.params + other.params,
            frozen_params=self.frozen_params + other.frozen_params,
            macs=self.macs + other.macs,
            activation_elements=self.activation_elements + other.activation_elements,
            padding_macs=self.padding_macs + other.padding_macs,
        )

    def __rmul__(self, times: int) -> Part:
        return Part(
            params=times * self.params,
            frozen_params=times * self.frozen_params,
            macs=times * self.macs,
            activation_elements=times * self.activation_elements,
            padding_macs=times * self.padding_macs,
        )


@dataclass(frozen=True)
class Cost:
    """The account of a whole model: its totals are the sums of its parts, exactly.

    A backbone has the four parts of `PARTS`; a module that does not name its parts has the single part "whole".
    """

    parts: Mapping[str, Part]

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return sum(part.params for part in self.parts.values())

    @property
    def frozen_params(self) -> int:
        """Parameters that never train."""
        return sum(part.frozen_params for part in self.parts.values())

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one forward pass of one image."""
        return sum(part.macs for part in self.parts.values())

    @property
    def flops(self) -> int:
        """Floating-point operations of one forward pass of one image: two per MAC."""
        return 2 * self.macs

    @property
    def training_macs(self) -> int:
        """MACs of one image in training: the forward pass three times."""
        return 3 * self.macs

    @property
    def activation_elements(self) -> int:
        """Elements written by the operators that carry MACs, for one image."""
        return sum(part.activation_elements for part in self.parts.values())

    @property
    def padding_macs(self) -> int:
        """MACs of depthwise convolutions spent on padded zeros."""
        return sum(part.padding_macs for part in self.parts.values())


def linear(positions: int, fan_in: int, fan_out: int, bias: bool = True) -> Part:
    """A linear layer applied at each of `positions`; a 1x1 convolution costs the same."""
    return Part(
        params=fan_in * fan_out + (fan_out if bias else 0),
        macs=positions * fan_in * fan_out,
        activation_elements=positions * fan_out,
    )


def convolution(positions: int, in_channels: int, out_channels: int, kernel_size: int, bias: bool = True) -> Part:
    """A dense convolution with a square kernel: a linear layer over the pixels below the kernel."""
    return linear(positions, in_channels * kernel_size**2, out_channels, bias)


def depthwise(grid: int, dim: int, kernel_size: int) -> Part:
    """A depthwise convolution over `grid` x `grid` positions, with bias, stride 1 and as many outputs as inputs."""
    macs = grid**2 * dim * kernel_size**2
    return Part(
        params=dim * kernel_size**2 + dim,
        macs=macs,
        activation_elements=grid**2 * dim,
        padding_macs=macs - dim * pairs_within(grid, kernel_size // 2) ** 2,
    )


def pairs_within(grid: int, reach: int) -> int:
    """Ordered pairs (i, j) of positions in a row of `grid` with |i - j| <= reach: a kernel row's taps on real inputs."""
    return grid + 2 * sum(grid - distance for distance in range(1, min(reach, grid - 1) + 1))


def attention_products(tokens: int, dim: int, heads: int) -> Part:
    """Queries times keys and scores times values, for all heads of together `dim` features."""
    return Part(macs=2 * tokens**2 * dim, activation_elements=heads * tokens**2 + tokens * dim)


def attention(tokens: int, dim: int, heads: int) -> Part:
    """Self-attention: one layer makes queries, keys and values, two products mix, one layer puts heads together."""
    return linear(tokens, dim, 3 * dim) + attention_products(tokens, dim, heads) + linear(tokens, dim, dim)


def mlp(positions: int, dim: int, hidden: int) -> Part:
    """Two linear layers, `dim` -> `hidden` -> `dim`, at each of `positions`."""
    return linear(positions, dim, hidden) + linear(positions, hidden, dim)


def norm(dim: int) -> Part:
    """A batch or layer norm: a scale and a shift per feature, and by convention no MACs."""
    return Part(params=2 * dim)
