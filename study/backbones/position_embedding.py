"""Position embeddings: learned or fixed vectors added to the tokens, which otherwise have no order."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from study.backbones.closed_form import PartCost
from study.backbones.specification import BackboneSpec

_LONGEST_PERIOD = 10_000.0


class LearnedPositions(nn.Module):
    """A learned vector for each token of the sequence, class token included: b n d -> b n d."""

    def __init__(self, sequence: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(1, sequence, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.table


class SincosPositions(nn.Module):
    """Fixed sines and cosines of the row and the column; zero for a class token: b n d -> b n d."""

    table: Tensor

    def __init__(self, grid: int, dim: int, *, class_token: bool) -> None:
        super().__init__()
        padded = torch.cat([torch.zeros(int(class_token), dim), compute_sincos(grid, dim)])
        self.register_buffer("table", padded[None], persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.table


def compute_sincos(grid: int, dim: int) -> Tensor:
    """Sines and cosines of x and of y at d/4 frequencies: (h w) d.

    Beyer, Zhai and Kolesnikov, "Better plain ViT baselines for ImageNet-1k", 2022 (`posemb_sincos_2d` of its code):
    frequencies fall geometrically from 1 to 1/10000, and the features are sin x, cos x, sin y, cos y.
    """
    frequencies = torch.exp(-math.log(_LONGEST_PERIOD) * torch.arange(dim // 4) / max(1, dim // 4 - 1))
    angles = torch.arange(grid)[:, None] * frequencies
    x = angles.repeat(grid, 1)
    y = angles.repeat_interleave(grid, dim=0)
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)


class OnGrid(nn.Module):
    """Applies a module of sequences to a grid in row-major order: b d h w -> b d h w."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, grid: Tensor) -> Tensor:
        sequence: Tensor = self.inner(grid.flatten(2).transpose(1, 2))
        return sequence.transpose(1, 2).reshape(grid.shape)


def build_position_embedding(spec: BackboneSpec) -> nn.Module:
    """The position embedding that the specification names: b n d -> b n d."""
    if spec.position_embedding == "learned":
        return LearnedPositions(spec.sequence, spec.dim)
    if spec.position_embedding == "sincos":
        return SincosPositions(spec.grid, spec.dim, class_token=spec.pooling == "class_token")
    return nn.Identity()


def position_embedding_cost(spec: BackboneSpec) -> PartCost:
    """Learned positions are parameters; fixed ones cost nothing."""
    return PartCost(params=spec.sequence * spec.dim if spec.position_embedding == "learned" else 0)
