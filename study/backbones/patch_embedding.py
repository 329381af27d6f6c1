"""The patch embedding: the stem's module that turns an image into a grid of tokens, the same for every backbone.

`patchify` is one linear map of all pixels of a patch, as a convolution whose kernel and stride are the patch size
(Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021, equation 1; Trockman and Kolter, "Patches are all you
need?", 2022, equation 1). Two others make as many tokens without cutting the image into patches, so that patches
themselves can be a factor: `overlap`, whose kernel is larger than its stride, and `conv`, which halves the image
step by step. In matched studies the weights come from one stream for all backbones (`study.backbones.initialization`).
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from study.backbones.closed_form import PartCost, convolution_cost, norm_cost
from study.backbones.layers import build_activation, build_grid_norm
from study.backbones.specification import BackboneSpec


class PatchEmbedding(nn.Module):
    """Patches of p x p pixels, or overlapping windows p apart, each mapped linearly to `dim` features.

    b c (h p) (w p) -> b d h w. Windows of 2p - 1 pixels with p - 1 pixels of zeros around the image are those of Wang
    et al., "PVT v2", 2022; they are twice as wide as patches and as many.
    """

    def __init__(self, in_channels: int, dim: int, *, patch_size: int, overlap: bool) -> None:
        super().__init__()
        kernel_size, padding = (2 * patch_size - 1, patch_size - 1) if overlap else (patch_size, 0)
        self.projection = nn.Conv2d(in_channels, dim, kernel_size, stride=patch_size, padding=padding)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.projection(images)
        return features


def build_conv_stem(spec: BackboneSpec) -> nn.Module:
    """3x3 convolutions of stride 2, each followed by norm and activation, then a 1x1: b c (h p) (w p) -> b d h w.

    Xiao et al., "Early convolutions help transformers see better", NeurIPS 2021: features double as the
    image halves. The norm and the activation are those of the body, so that they are no second difference.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise([spec.in_channels, *conv_stem_widths(spec)]):
        layers += [
            nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1, bias=False),
            build_grid_norm(spec.norm, after),
            build_activation(spec.activation),
        ]
    return nn.Sequential(*layers, nn.Conv2d(spec.dim, spec.dim, kernel_size=1))


def conv_stem_widths(spec: BackboneSpec) -> list[int]:
    """Features after each halving of the conv stem, ending with the width."""
    halvings = spec.patch_size.bit_length() - 1
    return [max(1, spec.dim >> (halvings - done)) for done in range(1, halvings + 1)]


def build_patch_embedding(spec: BackboneSpec) -> nn.Module:
    """The patch embedding that `stem` names: b c (h p) (w p) -> b d h w."""
    if spec.stem == "conv":
        return build_conv_stem(spec)
    return PatchEmbedding(spec.in_channels, spec.dim, patch_size=spec.patch_size, overlap=spec.stem == "overlap")


def patch_embedding_cost(spec: BackboneSpec) -> PartCost:
    """The cost of `build_patch_embedding`, by arithmetic."""
    if spec.stem == "conv":
        cost, size = PartCost(), spec.image_size
        for before, after in pairwise([spec.in_channels, *conv_stem_widths(spec)]):
            size //= 2
            cost += convolution_cost(size**2, before, after, 3, bias=False) + norm_cost(after)
        return cost + convolution_cost(spec.tokens, spec.dim, spec.dim, 1)
    kernel_size = 2 * spec.patch_size - 1 if spec.stem == "overlap" else spec.patch_size
    return convolution_cost(spec.tokens, spec.in_channels, spec.dim, kernel_size)
