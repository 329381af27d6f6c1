"""Heads: from the last tokens to one logit per class."""

from __future__ import annotations

from torch import Tensor, nn

from study.backbones.closed_form import Part, linear, norm
from study.backbones.layers import LAYER_NORM_EPS, sequence_norm
from study.backbones.specification import BackboneSpec


class SequenceHead(nn.Module):
    """Norm, then the mean over tokens or the class token, then a linear classifier: b n d -> b k."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.reads_class_token = spec.pooling == "class_token"
        self.norm = sequence_norm(spec.norm, spec.dim)
        self.classifier = nn.Linear(spec.dim, spec.num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        normed: Tensor = self.norm(tokens)
        pooled = normed[:, 0] if self.reads_class_token else normed.mean(dim=1)
        logits: Tensor = self.classifier(pooled)
        return logits


class GridHead(nn.Module):
    """The mean over positions, then a norm if `normed`, then a linear classifier: b d h w -> b k."""

    def __init__(self, spec: BackboneSpec, *, normed: bool) -> None:
        super().__init__()
        self.norm = nn.Identity() if not normed else _vector_norm(spec)
        self.classifier = nn.Linear(spec.dim, spec.num_classes)

    def forward(self, grid: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.norm(grid.mean(dim=(2, 3))))
        return logits


def _vector_norm(spec: BackboneSpec) -> nn.Module:
    """The norm for one vector per image, b d."""
    return nn.BatchNorm1d(spec.dim) if spec.norm == "batch" else nn.LayerNorm(spec.dim, eps=LAYER_NORM_EPS)


def head_cost(spec: BackboneSpec, *, normed: bool) -> Part:
    """The cost of either head, by arithmetic."""
    return (norm(spec.dim) if normed else Part()) + linear(1, spec.dim, spec.num_classes)
