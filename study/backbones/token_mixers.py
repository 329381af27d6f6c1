"""Token mixers: everything that can stand where attention stands, each with its price.

A token mixer maps a sequence of tokens to one of the same shape, b n d -> b n d. Those that mix `everywhere` see the
whole sequence and can carry information to a class token; those that work on the grid see grid positions only. To add
one, write its class, its cost, its name in `TokenMixerName` and its line in
`TOKEN_MIXERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.backbones.attention import SelfAttention
from study.backbones.closed_form import Part, attention, depthwise, mlp
from study.backbones.depthwise_conv import DepthwiseConv2d
from study.backbones.mlp_mixer import TokenMlp

if TYPE_CHECKING:
    from study.backbones.metaformer import MetaFormerSpec

TokenMixerName = Literal["attention", "depthwise_conv", "mlp", "pooling", "identity", "random"]


class OnSequence(nn.Module):
    """A mixer of a grid of g x g positions applied to a sequence in row-major order: b n d -> b n d."""

    def __init__(self, inner: nn.Module, *, grid: int) -> None:
        super().__init__()
        self.inner = inner
        self.grid = grid

    def forward(self, tokens: Tensor) -> Tensor:
        b, _, d = tokens.shape
        mixed: Tensor = self.inner(tokens.transpose(1, 2).reshape(b, d, self.grid, self.grid))
        return mixed.flatten(2).transpose(1, 2)


class Pooling(nn.Module):
    """The mean over a k x k neighbourhood, less the token itself: b d h w -> b d h w.

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
    """A mixer: how to make it, what it costs, which options of `MetaFormerSpec` it has, and how far it reaches."""

    construct: Callable[[MetaFormerSpec], nn.Module]
    cost: Callable[[MetaFormerSpec], Part]
    options: frozenset[str] = frozenset()
    everywhere: bool = False


def _attention(spec: MetaFormerSpec) -> nn.Module:
    return SelfAttention(spec.dim, spec.resolved("heads"))


def _attention_cost(spec: MetaFormerSpec) -> Part:
    return attention(spec.sequence, spec.dim, spec.resolved("heads"))


def _depthwise_conv(spec: MetaFormerSpec) -> nn.Module:
    return OnSequence(DepthwiseConv2d(spec.dim, spec.resolved("kernel_size")), grid=spec.grid)


def _depthwise_conv_cost(spec: MetaFormerSpec) -> Part:
    return depthwise(spec.grid, spec.dim, spec.resolved("kernel_size"))


def _mlp(spec: MetaFormerSpec) -> nn.Module:
    return TokenMlp(spec.sequence, spec.resolved("token_dim"), nonlinearity=spec.activation)


def _mlp_cost(spec: MetaFormerSpec) -> Part:
    return mlp(spec.dim, spec.sequence, spec.resolved("token_dim"))


def _pooling(spec: MetaFormerSpec) -> nn.Module:
    return OnSequence(Pooling(spec.resolved("kernel_size")), grid=spec.grid)


def _identity(spec: MetaFormerSpec) -> nn.Module:
    return nn.Identity()


def _nothing(spec: MetaFormerSpec) -> Part:
    return Part()


def _random(spec: MetaFormerSpec) -> nn.Module:
    return RandomMixing(spec.sequence)


def _random_cost(spec: MetaFormerSpec) -> Part:
    n, d = spec.sequence, spec.dim
    return Part(frozen_params=n * n, macs=n * n * d, activation_elements=n * d)


KERNEL = frozenset({"kernel_size", "kernel_pixels"})
TOKEN_MIXERS: Mapping[TokenMixerName, TokenMixer] = {
    "attention": TokenMixer(_attention, _attention_cost, frozenset({"heads"}), everywhere=True),
    "depthwise_conv": TokenMixer(_depthwise_conv, _depthwise_conv_cost, KERNEL),
    "mlp": TokenMixer(_mlp, _mlp_cost, frozenset({"token_dim"}), everywhere=True),
    "pooling": TokenMixer(_pooling, _nothing, KERNEL),
    "identity": TokenMixer(_identity, _nothing),
    "random": TokenMixer(_random, _random_cost, everywhere=True),
}
