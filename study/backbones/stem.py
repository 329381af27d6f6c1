"""Stems: from an image to the tokens that the blocks mix, as a sequence or as a grid."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from study.backbones.closed_form import PartCost, norm_cost
from study.backbones.layers import build_activation, build_grid_norm
from study.backbones.patch_embedding import build_patch_embedding, patch_embedding_cost
from study.backbones.position_embedding import OnGrid, build_position_embedding, position_embedding_cost
from study.backbones.specification import BackboneSpec


class SequenceStem(nn.Module):
    """Patches in row-major order, after a class token if there is one, plus positions: b c h w -> b n d."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.patch_embedding = build_patch_embedding(spec)
        self.class_token = nn.Parameter(torch.zeros(1, 1, spec.dim)) if spec.pooling == "class_token" else None
        self.positions = build_position_embedding(spec)

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.patch_embedding(images).flatten(2).transpose(1, 2)
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], dim=1)
        positioned: Tensor = self.positions(tokens)
        return positioned.contiguous()  # otherwise every later norm would copy (digits: 10 % slower)


def build_grid_stem(spec: BackboneSpec, *, normed: bool) -> nn.Module:
    """Patches, then activation and norm if `normed`, plus positions: b c h w -> b d h w."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(patch_embedding=build_patch_embedding(spec))
    if normed:
        layers |= {"activation": build_activation(spec.activation), "norm": build_grid_norm(spec.norm, spec.dim)}
    if spec.position_embedding != "none":
        layers["positions"] = OnGrid(build_position_embedding(spec))
    return nn.Sequential(layers)


def stem_cost(spec: BackboneSpec, *, normed: bool) -> PartCost:
    """The cost of either stem, by arithmetic."""
    cost = patch_embedding_cost(spec) + position_embedding_cost(spec)
    cost += PartCost(params=spec.dim if spec.pooling == "class_token" else 0)
    return cost + norm_cost(spec.dim) if normed else cost
