"""The patch embedding: the stem's module that turns an image into a grid of tokens, the same for every backbone.

One linear map of all pixels of a patch, as a convolution whose kernel and stride are the patch size (Dosovitskiy et
al., "An image is worth 16x16 words", ICLR 2021, equation 1; Trockman and Kolter, "Patches are all you need?", 2022,
equation 1). In matched studies its weights come from one stream for all backbones (`study.backbones.initialisation`).
"""

from __future__ import annotations

from torch import Tensor, nn

from study.backbones.closed_form import Part, convolution


class PatchEmbedding(nn.Module):
    """Non-overlapping patches, each mapped linearly to `dim` features: b c (h p) (w p) -> b d h w."""

    def __init__(self, in_channels: int, dim: int, *, patch_size: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(in_channels, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.projection(images)
        return features


def patch_embedding_cost(tokens: int, in_channels: int, dim: int, *, patch_size: int) -> Part:
    """The cost of `PatchEmbedding`: one convolution with as many positions as tokens."""
    return convolution(tokens, in_channels, dim, patch_size)
