"""Stems: from an image to the tokens that the blocks mix, as a sequence or as a grid, with positions if asked for.

The patch embedding is the same for every backbone. `patchify` is one linear map of all pixels of a patch, as a convolution
whose kernel and stride are the patch size (Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021, equation 1;
Trockman and Kolter, "Patches are all you need?", 2022, equation 1). Two others make as many tokens without cutting the image
into patches, so that patches themselves can be a factor: `overlap`, whose kernel is larger than its stride, and `conv` and
`conv_pool`, which halve the image step by step. `spt` adds shifted images to what a patch is made of. Learned or fixed
positions are added to the tokens, which otherwise have no order.
"""

import math
from collections import OrderedDict
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.backbones.closed_form import PartCost, convolution_cost, linear_cost, norm_cost
from study.backbones.layers import LAYER_NORM_EPS, build_activation, build_grid_norm
from study.backbones.specification import LEARNED_POSITIONS, BackboneSpec, SequenceSpec

_LONGEST_PERIOD = 10_000.0


class SequenceStem(nn.Module):
    """Patches in row-major order, after a class token and registers if there are any, plus positions: b c h w -> b n d."""

    def __init__(self, spec: SequenceSpec) -> None:
        super().__init__()
        self.patch_embedding = build_patch_embedding(spec)
        self.class_token = nn.Parameter(torch.zeros(1, 1, spec.dim)) if spec.pooling == "class_token" else None
        # Darcet et al., "Vision transformers need registers", ICLR 2024
        self.registers = nn.Parameter(torch.zeros(1, spec.registers, spec.dim)) if spec.registers else None
        self.positions = build_position_embedding(spec)

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.patch_embedding(images).flatten(2).transpose(1, 2)
        extra = [part.expand(len(tokens), -1, -1) for part in (self.class_token, self.registers) if part is not None]
        if extra:
            tokens = torch.cat([*extra, tokens], dim=1)
        return self.positions(tokens).contiguous()  # otherwise every later norm would copy (digits: 10 % slower)


def build_grid_stem(spec: BackboneSpec, *, normed: bool) -> nn.Module:
    """Patches, then activation and norm if `normed`, plus positions: b c h w -> b d h w."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(patch_embedding=build_patch_embedding(spec))
    if normed:
        layers |= {"activation": build_activation(spec.activation), "norm": build_grid_norm(spec.norm, spec.dim)}
    if spec.position_embedding != "none":
        layers["positions"] = OnGrid(build_position_embedding(spec))
    return nn.Sequential(layers)


def build_patch_embedding(spec: BackboneSpec) -> nn.Module:
    """The patch embedding that `stem` names: b c (h p) (w p) -> b d h w.

    `overlap`: windows of 2p - 1 pixels, p apart, with p - 1 pixels of zeros around the image are those of Wang et al.,
    "PVT v2", 2022; they are twice as wide as patches and as many.
    `conv`: 3x3 convolutions of stride 2, each followed by norm and activation, then a 1x1. Xiao et al., "Early convolutions
    help transformers see better", NeurIPS 2021: features double as the image halves. The norm and the activation are those
    of the body, so that they are no second difference.
    `conv_pool`: 3x3 convolutions, each followed by the activation and max-pooling of 3x3 with stride 2. Hassani et al.,
    "Escaping the big data paradigm with compact transformers", 2021, section 3.2 (CCT), with the widths of `conv`.
    `spt`: `ShiftedPatches`.
    """
    if spec.stem == "spt":
        return ShiftedPatches(spec)
    if spec.stem in ("patchify", "overlap"):
        p = spec.patch_size
        kernel_size, padding = (2 * p - 1, p - 1) if spec.stem == "overlap" else (p, 0)
        projection = nn.Conv2d(spec.in_channels, spec.dim, kernel_size, stride=p, padding=padding)
        return nn.Sequential(OrderedDict(projection=projection))
    layers: list[nn.Module] = []
    for before, after in pairwise([spec.in_channels, *conv_stem_widths(spec)]):
        if spec.stem == "conv_pool":
            convolution = nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False)
            layers += [convolution, build_activation(spec.activation), nn.MaxPool2d(3, stride=2, padding=1)]
            continue
        layers += [
            nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1, bias=False),
            build_grid_norm(spec.norm, after),
            build_activation(spec.activation),
        ]
    return nn.Sequential(*layers, *([nn.Conv2d(spec.dim, spec.dim, kernel_size=1)] if spec.stem == "conv" else []))


class ShiftedPatches(nn.Module):
    """Patches of the image and of four copies, shifted diagonally by half a patch, normed and projected: b c h w -> b d h w.

    Lee, Lee and Song, "Vision transformer for small-size datasets", 2021, section 3.1 (SPT); zeros come in at the borders.
    """

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.patch_size, self.grid = spec.patch_size, spec.grid
        features = count_shifted_features(spec)
        self.norm = nn.LayerNorm(features, eps=LAYER_NORM_EPS)
        self.projection = nn.Linear(features, spec.dim)

    def forward(self, images: Tensor) -> Tensor:
        shift, size = self.patch_size // 2, images.shape[-1]
        padded = functional.pad(images, [shift] * 4)
        corners = [(top, left) for top in (0, 2 * shift) for left in (0, 2 * shift)]
        shifted = [padded[:, :, top : top + size, left : left + size] for top, left in corners]
        patches = functional.unfold(torch.cat([images, *shifted], dim=1), self.patch_size, stride=self.patch_size)
        tokens: Tensor = self.projection(self.norm(patches.transpose(1, 2)))
        return tokens.transpose(1, 2).reshape(len(images), -1, self.grid, self.grid)


def count_shifted_features(spec: BackboneSpec) -> int:
    """Numbers in a patch of an image and its four shifted copies."""
    return 5 * spec.in_channels * spec.patch_size**2


def conv_stem_widths(spec: BackboneSpec) -> list[int]:
    """Features after each halving of the conv stem, ending with the width."""
    halvings = spec.patch_size.bit_length() - 1
    return [max(1, spec.dim >> (halvings - done)) for done in range(1, halvings + 1)]


class AddPositions(nn.Module):
    """Adds a vector, `learned` or fixed, to each token of the sequence, class token included: b n d -> b n d."""

    table: Tensor  # 1 n d

    def __init__(self, table: Tensor, *, learned: bool) -> None:
        super().__init__()
        if learned:
            self.table = nn.Parameter(table)
        else:
            self.register_buffer("table", table, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.table


class OnGrid(nn.Module):
    """Applies a module of sequences to a grid in row-major order: b d h w -> b d h w."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, grid: Tensor) -> Tensor:
        return self.inner(grid.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(grid.shape)


def build_position_embedding(spec: BackboneSpec) -> nn.Module:
    """The position embedding that is added to tokens, zero for extra tokens if it is fixed: b n d -> b n d."""
    learned = spec.position_embedding in LEARNED_POSITIONS
    if not learned and spec.position_embedding != "sincos":
        return nn.Identity()
    table = torch.zeros(1, spec.sequence, spec.dim)
    if spec.position_embedding == "sincos":
        table[:, spec.sequence - spec.tokens :] = compute_sincos(spec.grid, spec.dim)
    return AddPositions(table, learned=learned)


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


def stem_cost(spec: BackboneSpec, *, normed: bool) -> PartCost:
    """The cost of either stem, by arithmetic; fixed positions cost nothing."""
    learned = (spec.position_embedding in LEARNED_POSITIONS) * spec.sequence + spec.extra_tokens  # vectors
    cost = patch_embedding_cost(spec) + PartCost(params=learned * spec.dim)
    return cost + norm_cost(spec.dim, spec.norm) if normed else cost


def patch_embedding_cost(spec: BackboneSpec) -> PartCost:
    """The cost of `build_patch_embedding`, by arithmetic."""
    if spec.stem == "spt":
        features = count_shifted_features(spec)
        return norm_cost(features) + linear_cost(spec.tokens, features, spec.dim)
    if spec.stem in ("conv", "conv_pool"):
        cost, size = PartCost(), spec.image_size
        for before, after in pairwise([spec.in_channels, *conv_stem_widths(spec)]):
            if spec.stem == "conv":
                cost += convolution_cost((size // 2) ** 2, before, after, 3, bias=False) + norm_cost(after, spec.norm)
            else:
                cost += convolution_cost(size**2, before, after, 3, bias=False)
            size //= 2
        return cost + (convolution_cost(spec.tokens, spec.dim, spec.dim, 1) if spec.stem == "conv" else PartCost())
    kernel_size = 2 * spec.patch_size - 1 if spec.stem == "overlap" else spec.patch_size
    return convolution_cost(spec.tokens, spec.in_channels, spec.dim, kernel_size)
