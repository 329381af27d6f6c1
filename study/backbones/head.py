"""Heads: from the last tokens to one logit per class."""

from torch import Tensor, nn

from study.backbones.closed_form import PartCost, linear_cost, norm_cost
from study.backbones.layers import LAYER_NORM_EPS, build_sequence_norm
from study.backbones.specification import BackboneSpec


class SequenceHead(nn.Module):
    """Norm, then the mean over tokens or the class token, then a linear classifier: b n d -> b k."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.has_class_token = spec.pooling == "class_token"
        self.norm = build_sequence_norm(spec.norm, spec.dim)
        self.classifier = nn.Linear(spec.dim, spec.num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        normed: Tensor = self.norm(tokens)
        pooled = normed[:, 0] if self.has_class_token else normed.mean(dim=1)
        logits: Tensor = self.classifier(pooled)
        return logits


class GridHead(nn.Module):
    """The mean over positions, then a norm if `normed`, then a linear classifier: b d h w -> b k."""

    def __init__(self, spec: BackboneSpec, *, normed: bool) -> None:
        super().__init__()
        self.norm: nn.Module = nn.Identity()
        if normed:
            self.norm = nn.BatchNorm1d(spec.dim) if spec.norm == "batch" else nn.LayerNorm(spec.dim, eps=LAYER_NORM_EPS)
        self.classifier = nn.Linear(spec.dim, spec.num_classes)

    def forward(self, grid: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.norm(grid.mean(dim=(2, 3))))
        return logits


def head_cost(spec: BackboneSpec, *, normed: bool) -> PartCost:
    """The cost of either head, by arithmetic."""
    return (norm_cost(spec.dim) if normed else PartCost()) + linear_cost(1, spec.dim, spec.num_classes)
