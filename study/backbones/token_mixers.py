"""Token mixers: everything that can replace attention, each with its cost.

A token mixer maps a sequence of tokens to one of the same shape, b n d -> b n d. `is_global` ones see the whole
sequence and can carry information to a class token; those that work on the grid see grid positions only. To add
one, write its class, its cost, its name in `TokenMixerName` and its entry in `TOKEN_MIXERS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.backbones.closed_form import PartCost, attention_cost, depthwise_cost, mlp_cost
from study.backbones.layers import Mlp
from study.backbones.specification import Activation, BackboneSpec

TokenMixerName = Literal["attention", "depthwise_conv", "mlp", "pooling", "identity", "random"]


class SelfAttention(nn.Module):
    """Every token sums the values of all tokens, weighted by query-key agreement: b n d -> b n d.

    Vaswani et al., "Attention is all you need", 2017, section 3.2. `heads` must divide `dim`. One linear layer makes
    queries, keys and values, in this order, each as h heads of d/h features; torch picks the fused kernel.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        b, n, d = tokens.shape
        # With chunks along the features, the three gradients are concatenated in the layout that the linear layer reads.
        q, k, v = (part.view(b, n, self.heads, d // self.heads).transpose(1, 2) for part in self.qkv(tokens).chunk(3, dim=2))
        attended = functional.scaled_dot_product_attention(q, k, v)  # b h n d/h
        return self.out(attended.transpose(1, 2).reshape(b, n, d))


class TokenMlp(nn.Module):
    """An MLP over `sequence` positions, the same for every feature: b n d -> b n d."""

    def __init__(self, sequence: int, hidden: int, *, activation: Activation) -> None:
        super().__init__()
        self.mlp = Mlp(sequence, hidden, activation=activation)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.mlp(tokens.transpose(1, 2)).transpose(1, 2)


class DepthwiseConv2d(nn.Conv2d):
    """Each feature is convolved with its own k x k filter, zeros around the grid: b d h w -> b d h w.

    `convolution` (grid, weight, bias -> grid) may be set to another implementation; None is torch's.
    """

    convolution: Callable[[Tensor, Tensor, Tensor | None], Tensor] | None = None

    def __init__(self, dim: int, kernel_size: int) -> None:
        super().__init__(dim, dim, kernel_size, padding="same", groups=dim)

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


@dataclass(frozen=True)
class TokenMixer:
    """How to build a mixer, its cost, which options of `MetaFormerSpec` it has, and whether it sees the whole sequence."""

    construct: Callable[[BackboneSpec], nn.Module]
    cost: Callable[[BackboneSpec], PartCost]
    options: frozenset[str] = frozenset()
    is_global: bool = False


def _random_cost(spec: BackboneSpec) -> PartCost:
    n, d = spec.sequence, spec.dim
    return PartCost(frozen_params=n * n, macs=n * n * d, activation_elements=n * d)


TOKEN_MIXERS: Mapping[TokenMixerName, TokenMixer] = {
    "attention": TokenMixer(
        construct=lambda spec: SelfAttention(spec.dim, spec.get_int("heads")),
        cost=lambda spec: attention_cost(spec.sequence, spec.dim, spec.get_int("heads")),
        options=frozenset({"heads"}),
        is_global=True,
    ),
    "depthwise_conv": TokenMixer(
        construct=lambda spec: OnSequence(DepthwiseConv2d(spec.dim, spec.get_int("kernel_size")), grid=spec.grid),
        cost=lambda spec: depthwise_cost(spec.grid, spec.dim, spec.get_int("kernel_size")),
        options=frozenset({"kernel_size", "kernel_pixels"}),
    ),
    "mlp": TokenMixer(
        construct=lambda spec: TokenMlp(spec.sequence, spec.get_int("token_dim"), activation=spec.activation),
        cost=lambda spec: mlp_cost(spec.dim, spec.sequence, spec.get_int("token_dim")),
        options=frozenset({"token_dim"}),
        is_global=True,
    ),
    "pooling": TokenMixer(
        construct=lambda spec: OnSequence(NeighborhoodPooling(spec.get_int("kernel_size")), grid=spec.grid),
        cost=lambda spec: PartCost(),
        options=frozenset({"kernel_size", "kernel_pixels"}),
    ),
    "identity": TokenMixer(construct=lambda spec: nn.Identity(), cost=lambda spec: PartCost()),
    "random": TokenMixer(construct=lambda spec: RandomMixing(spec.sequence), cost=_random_cost, is_global=True),
}
