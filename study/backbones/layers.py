"""The layers of bodies other than their mixers: norms, activations and the two-layer MLP.

Tokens have one of two layouts: a grid (b d h w), for convolutions, or a sequence (b n d), for attention and MLPs.
Norms exist for both, and normalize the same numbers in both: `layer` and `rms` each token over its features, `batch` each
feature over all tokens of the batch.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.backbones.specification import Activation, Norm

LAYER_NORM_EPS = 1e-6  # of ViT, MLP-Mixer and ConvNeXt alike
MLP_RATIO = 4  # hidden width in widths: ViT's table 1, MLP-Mixer's table 1, ConvNeXt's figure 4


def default_mlp_dim(resolved: dict[str, Any]) -> int:
    return MLP_RATIO * int(resolved["dim"])


class GridLayerNorm(nn.LayerNorm):
    """Layer norm over the features at each position of a grid: b d h w -> b d h w."""

    def forward(self, grid: Tensor) -> Tensor:
        return super().forward(grid.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class FeatureRmsNorm(nn.RMSNorm):
    """RMS norm over the last axis, in the precision of its weight: autocast leaves that to it, other than for layer norms."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.to(self.weight.dtype))


class GridRmsNorm(FeatureRmsNorm):
    """RMS norm over the features at each position of a grid: b d h w -> b d h w."""

    def forward(self, grid: Tensor) -> Tensor:
        return super().forward(grid.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SequenceBatchNorm(nn.Module):
    """Batch norm of each feature over all tokens of the batch: b n d -> b n d."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.norm(tokens.flatten(0, 1)).view_as(tokens)


def build_grid_norm(kind: Norm, dim: int) -> nn.Module:
    """The norm for tokens b d h w."""
    if kind == "batch":
        return nn.BatchNorm2d(dim)
    return (GridRmsNorm if kind == "rms" else GridLayerNorm)(dim, eps=LAYER_NORM_EPS)


def build_sequence_norm(kind: Norm, dim: int) -> nn.Module:
    """The norm for tokens b n d."""
    return SequenceBatchNorm(dim) if kind == "batch" else build_feature_norm(kind, dim)


def build_feature_norm(kind: Norm, dim: int) -> nn.Module:
    """The norm over the last axis, `rms` or else `layer` (Zhang and Sennrich, 2019; Ba, Kiros and Hinton, 2016)."""
    return (FeatureRmsNorm if kind == "rms" else nn.LayerNorm)(dim, eps=LAYER_NORM_EPS)


def build_activation(kind: Activation) -> nn.Module:
    """The nonlinearity; GELU is the exact one (by the error function)."""
    return nn.GELU() if kind == "gelu" else nn.ReLU()


class Mlp(nn.Module):
    """Linear, activation, linear over the last axis: ... d -> ... d through `hidden` features."""

    def __init__(self, dim: int, hidden: int, *, activation: Activation, bias: bool = True) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden, bias)
        self.activation = build_activation(activation)
        self.reduce = nn.Linear(hidden, dim, bias)

    def forward(self, features: Tensor) -> Tensor:
        return self.reduce(self.activation(self.expand(features)))


class SwiGlu(nn.Module):
    """SiLU of one linear layer times another, then a third, over the last axis: ... d -> ... d through `hidden` features.

    Shazeer, "GLU variants improve transformer", 2020, equation 6.
    """

    def __init__(self, dim: int, hidden: int, *, bias: bool) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, hidden, bias)
        self.value = nn.Linear(dim, hidden, bias)
        self.reduce = nn.Linear(hidden, dim, bias)

    def forward(self, features: Tensor) -> Tensor:
        return self.reduce(functional.silu(self.gate(features)) * self.value(features))


class ScaledBranch(nn.Module):
    """A module with a learned factor per feature, `layer_scale`, that begins at `initial_scale`; without one if that is None.

    Touvron et al., "Going deeper with image transformers", ICCV 2021, equation 4.
    """

    def __init__(self, dim: int, initial_scale: float | None) -> None:
        super().__init__()
        self.initial_scale = initial_scale
        self.layer_scale = None if initial_scale is None else nn.Parameter(torch.ones(dim))
