"""Token mixers: everything that can replace attention, each with its cost.

A token mixer maps a sequence of tokens to one of the same shape, b n d -> b n d. `is_global` ones see the whole
sequence and can carry information to a class token; those that work on the grid see grid positions only. To add
one, write its class and its cost, and register it in `TOKEN_MIXERS`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.backbones.attention import LocalAttention, SelfAttention, local_attention_cost, self_attention_cost
from study.backbones.closed_form import PartCost, convolution_cost, depthwise_cost, linear_cost, mlp_cost, norm_cost
from study.backbones.fourier import FourierMixing, GlobalFilter, fourier_cost, global_filter_cost
from study.backbones.layers import Mlp, build_activation, build_sequence_norm
from study.backbones.specification import SequenceSpec
from study.registries import Registry


class TokenMlp(nn.Module):
    """An MLP over positions, the same for every feature: b n d -> b n d."""

    def __init__(self, spec: SequenceSpec, hidden: int) -> None:
        super().__init__()
        self.mlp = Mlp(spec.sequence, hidden, activation=spec.activation, bias=spec.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.mlp(tokens.transpose(1, 2)).transpose(1, 2)


class TokenLinear(nn.Module):
    """One linear layer over positions, the same for every feature: b n d -> b n d.

    Touvron et al., "ResMLP: feedforward networks for image classification with data-efficient training", 2021, equation 2.
    """

    def __init__(self, spec: SequenceSpec) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.sequence, spec.sequence, spec.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.linear(tokens.transpose(1, 2)).transpose(1, 2)


class SpatialGating(nn.Module):
    """Half of 2d features, mixed over positions, multiply the other half: b n d -> b n d.

    Liu et al., "Pay attention to MLPs" (gMLP), NeurIPS 2021, equations 1 to 3. The layer over positions begins as they say
    it must, with weights near zero and a bias of one (which it keeps without other biases), so that the gate is open.
    """

    def __init__(self, spec: SequenceSpec) -> None:
        super().__init__()
        self.expand = nn.Linear(spec.dim, 2 * spec.dim, spec.bias)
        self.activation = build_activation(spec.activation)
        self.norm = build_sequence_norm(spec.norm, spec.dim)
        self.spatial_gate = nn.Linear(spec.sequence, spec.sequence)
        self.reduce = nn.Linear(spec.dim, spec.dim, spec.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        kept, gate = self.activation(self.expand(tokens)).chunk(2, dim=2)
        mixed = self.spatial_gate(self.norm(gate).transpose(1, 2)).transpose(1, 2)
        return self.reduce(kept * mixed)


def _gating_cost(spec: SequenceSpec) -> PartCost:
    n, d, bias = spec.sequence, spec.dim, spec.bias
    gate = norm_cost(d, spec.norm) + linear_cost(d, n, n)
    return linear_cost(n, d, 2 * d, bias) + gate + linear_cost(n, d, d, bias)


class DepthwiseConv2d(nn.Conv2d):
    """Each feature is convolved with its own k x k filter, zeros around the grid: b d h w -> b d h w.

    `convolution` (grid, weight, bias -> grid) may be set to another implementation; None is torch's.
    """

    convolution: Callable[[Tensor, Tensor, Tensor | None], Tensor] | None = None

    def __init__(self, dim: int, kernel_size: int, *, bias: bool = True) -> None:
        super().__init__(dim, dim, kernel_size, padding="same", groups=dim, bias=bias)

    def forward(self, grid: Tensor) -> Tensor:
        if self.convolution is None:
            return super().forward(grid)
        return self.convolution(grid, self.weight, self.bias)


class OnSequence(nn.Module):
    """Applies a mixer of a grid of g x g positions to a sequence in row-major order: b n d -> b n d."""

    def __init__(self, inner: nn.Module, *, grid: int) -> None:
        super().__init__()
        self.inner = inner
        self.grid = grid

    def forward(self, tokens: Tensor) -> Tensor:
        b, _, d = tokens.shape
        return self.inner(tokens.transpose(1, 2).reshape(b, d, self.grid, self.grid)).flatten(2).transpose(1, 2)


class NeighborhoodPooling(nn.Module):
    """The mean over a k x k neighborhood, minus the token itself: b d h w -> b d h w.

    Yu et al., "MetaFormer is actually what you need for vision", CVPR 2022, equation 4 and algorithm 1: positions
    outside the grid are left out of the mean, and the subtraction undoes the residual around the mixer.
    """

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size

    def forward(self, grid: Tensor) -> Tensor:
        k = self.kernel_size
        return functional.avg_pool2d(grid, k, stride=1, padding=k // 2, count_include_pad=False) - grid


class RandomMixing(nn.Module):
    """A frozen random matrix over positions, the same for every feature: b n d -> b n d.

    Yu et al., "MetaFormer baselines for vision", 2022 (RandFormer): rows are the softmax of uniform random numbers,
    drawn once and never trained.
    """

    def __init__(self, sequence: int) -> None:
        super().__init__()
        self.mixing = nn.Parameter(torch.full((sequence, sequence), 1 / sequence), requires_grad=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.mixing @ tokens


def _random_cost(spec: SequenceSpec) -> PartCost:
    n, d = spec.sequence, spec.dim
    return PartCost(frozen_params=n * n, macs=n * n * d, activation_elements=n * d)


def _build_convolution(spec: SequenceSpec, *, groups: int) -> nn.Module:
    """Each group of features is convolved with dense k x k kernels of its own, zeros around the grid: b n d -> b n d."""
    convolution = nn.Conv2d(spec.dim, spec.dim, spec.get_int("kernel_size"), padding="same", groups=groups, bias=spec.bias)
    return OnSequence(convolution, grid=spec.grid)


def _convolution_cost(spec: SequenceSpec, *, groups: int) -> PartCost:
    d, kernel_size = spec.dim, spec.get_int("kernel_size")
    if groups == d > 1:
        return depthwise_cost(spec.grid, d, kernel_size, spec.bias)
    return convolution_cost(spec.tokens, d // groups, d, kernel_size, spec.bias)


@dataclass(frozen=True)
class TokenMixer:
    """How to build a mixer, its cost, which options of `MetaFormerSpec` it has, and whether it sees the whole sequence."""

    construct: Callable[[SequenceSpec], nn.Module]
    cost: Callable[[SequenceSpec], PartCost] | None  # None: only a trace can count it
    options: frozenset[str] = frozenset()
    is_global: bool = False


_KERNEL = frozenset({"kernel_size", "kernel_pixels"})
_ATTENTION = frozenset({"heads", "qk_norm"})

TOKEN_MIXERS = Registry("token mixer", TokenMixer, calls={"construct": ("the specification",), "cost": ("the specification",)})
TOKEN_MIXERS.register("attention", TokenMixer(SelfAttention, self_attention_cost, _ATTENTION, is_global=True))
TOKEN_MIXERS.register(
    "relative_attention",
    TokenMixer(
        construct=lambda spec: SelfAttention(spec, relative=True),
        cost=lambda spec: self_attention_cost(spec, relative=True),
        options=_ATTENTION,
        is_global=True,
    ),
)
TOKEN_MIXERS.register("local_attention", TokenMixer(LocalAttention, local_attention_cost, _KERNEL | _ATTENTION))
TOKEN_MIXERS.register(
    "depthwise_conv",
    TokenMixer(
        construct=lambda spec: OnSequence(
            DepthwiseConv2d(spec.dim, spec.get_int("kernel_size"), bias=spec.bias), grid=spec.grid
        ),
        cost=lambda spec: _convolution_cost(spec, groups=spec.dim),
        options=_KERNEL,
    ),
)
TOKEN_MIXERS.register(
    "grouped_conv",
    TokenMixer(
        construct=lambda spec: _build_convolution(spec, groups=spec.get_int("heads")),
        cost=lambda spec: _convolution_cost(spec, groups=spec.get_int("heads")),
        options=_KERNEL | {"heads"},
    ),
)
TOKEN_MIXERS.register(
    "conv",
    TokenMixer(
        construct=lambda spec: _build_convolution(spec, groups=1),
        cost=lambda spec: _convolution_cost(spec, groups=1),
        options=_KERNEL,
    ),
)
TOKEN_MIXERS.register(
    "mlp",
    TokenMixer(
        construct=lambda spec: TokenMlp(spec, spec.get_int("token_dim")),
        cost=lambda spec: mlp_cost(spec.dim, spec.sequence, spec.get_int("token_dim"), spec.bias),
        options=frozenset({"token_dim"}),
        is_global=True,
    ),
)
TOKEN_MIXERS.register(
    "linear",
    TokenMixer(
        construct=TokenLinear, cost=lambda spec: linear_cost(spec.dim, spec.sequence, spec.sequence, spec.bias), is_global=True
    ),
)
TOKEN_MIXERS.register("gating", TokenMixer(SpatialGating, _gating_cost, is_global=True))
TOKEN_MIXERS.register("fourier", TokenMixer(construct=lambda spec: FourierMixing(), cost=fourier_cost, is_global=True))
TOKEN_MIXERS.register(
    "global_filter", TokenMixer(construct=lambda spec: OnSequence(GlobalFilter(spec), grid=spec.grid), cost=global_filter_cost)
)
TOKEN_MIXERS.register(
    "pooling",
    TokenMixer(
        construct=lambda spec: OnSequence(NeighborhoodPooling(spec.get_int("kernel_size")), grid=spec.grid),
        cost=lambda spec: PartCost(),
        options=_KERNEL,
    ),
)
TOKEN_MIXERS.register("identity", TokenMixer(construct=lambda spec: nn.Identity(), cost=lambda spec: PartCost()))
TOKEN_MIXERS.register(
    "random", TokenMixer(construct=lambda spec: RandomMixing(spec.sequence), cost=_random_cost, is_global=True)
)
