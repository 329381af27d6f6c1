"""The layers of bodies other than their mixers: norms, activations and the two-layer MLP.

Tokens have one of two layouts: a grid (b d h w), for convolutions, or a sequence (b n d), for attention and MLPs.
Norms exist for both, and normalize the same numbers in both: `layer` each token over its features, `batch` each
feature over all tokens of the batch.
"""

from typing import Any

from torch import Tensor, nn

from study.backbones.specification import Activation, Norm

LAYER_NORM_EPS = 1e-6  # of ViT, MLP-Mixer and ConvNeXt alike
MLP_RATIO = 4  # hidden width in widths: ViT's table 1, MLP-Mixer's table 1, ConvNeXt's figure 4


def default_mlp_dim(resolved: dict[str, Any]) -> int:
    return MLP_RATIO * int(resolved["dim"])


class GridLayerNorm(nn.LayerNorm):
    """Layer norm over the features at each position of a grid: b d h w -> b d h w."""

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
    return nn.BatchNorm2d(dim) if kind == "batch" else GridLayerNorm(dim, eps=LAYER_NORM_EPS)


def build_sequence_norm(kind: Norm, dim: int) -> nn.Module:
    """The norm for tokens b n d."""
    return SequenceBatchNorm(dim) if kind == "batch" else nn.LayerNorm(dim, eps=LAYER_NORM_EPS)


def build_activation(kind: Activation) -> nn.Module:
    """The nonlinearity; GELU is the exact one (by the error function)."""
    return nn.GELU() if kind == "gelu" else nn.ReLU()


class Mlp(nn.Module):
    """Linear, activation, linear over the last axis: ... d -> ... d through `hidden` features."""

    def __init__(self, dim: int, hidden: int, *, activation: Activation) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden)
        self.activation = build_activation(activation)
        self.reduce = nn.Linear(hidden, dim)

    def forward(self, features: Tensor) -> Tensor:
        return self.reduce(self.activation(self.expand(features)))
