"""Stems: from an image to the tokens that the blocks mix, as a sequence or as a grid."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from study.backbones.closed_form import Part, norm
from study.backbones.layers import activation, grid_norm
from study.backbones.patch_embedding import patch_embedding, patch_embedding_cost
from study.backbones.position_embedding import OnGrid, positions, positions_cost
from study.backbones.specification import BackboneSpec


class SequenceStem(nn.Module):
    """Patches in row-major order, a class token in front if wanted, plus positions: b c h w -> b n d."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.patch_embedding = patch_embedding(spec)
        self.class_token = nn.Parameter(torch.zeros(1, 1, spec.dim)) if spec.pooling == "class_token" else None
        self.positions = positions(spec)

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.patch_embedding(images).flatten(2).transpose(1, 2)
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], dim=1)
        placed: Tensor = self.positions(tokens)
        return placed.contiguous()  # in this order in memory, or every norm to come would copy (digits: a tenth slower)


def grid_stem(spec: BackboneSpec, *, normed: bool) -> nn.Module:
    """Patches, then activation and norm if `normed`, plus positions: b c h w -> b d h w."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(patch_embedding=patch_embedding(spec))
    if normed:
        layers |= {"activation": activation(spec.activation), "norm": grid_norm(spec.norm, spec.dim)}
    if spec.position_embedding != "none":
        layers["positions"] = OnGrid(positions(spec))
    return nn.Sequential(layers)


def stem_cost(spec: BackboneSpec, *, normed: bool) -> Part:
    """The cost of either stem, by arithmetic."""
    class_token = Part(params=spec.dim if spec.pooling == "class_token" else 0)
    return patch_embedding_cost(spec) + (norm(spec.dim) if normed else Part()) + class_token + positions_cost(spec)
