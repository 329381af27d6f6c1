"""The body that all backbones share: stem, blocks, head.

A block consists of `token_mixing` and `channel_mixing`; with `stem` and `head` these are the four parts that every
parameter and every multiply-accumulate belongs to. A parameter's part is part of its name.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from study.backbones.closed_form import MODEL_PARTS, Cost, PartCost, linear_cost, mlp_cost, norm_cost
from study.backbones.initialization import DistributionRule
from study.backbones.layers import LAYER_NORM_EPS, Mlp, build_sequence_norm
from study.backbones.specification import BackboneSpec, Settings
from study.backbones.stem import SequenceStem, stem_cost


class Backbone(nn.Module):
    """An image classifier: float images b c h w -> logits b k. `spec` describes it completely."""

    def __init__(self, spec: BackboneSpec, *, stem: nn.Module, blocks: Sequence[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.stem = stem
        self.blocks = nn.Sequential(*blocks)
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(images)))

    def parameter_part(self, name: str) -> str:
        """The part that a parameter or module belongs to: the first word of its dotted name that is a part's."""
        return next(word for word in name.split(".") if word in MODEL_PARTS)


@dataclass(frozen=True)
class Architecture:
    """A registry entry, with which the file of a backbone ends.

    `variants` holds the settings of published variants by name, `paper_distribution` the distributions that their papers
    draw weights from, and `timm_names` pairs our module names with timm's, `*` being a block's number.
    """

    specification: type[BackboneSpec]
    construct: Callable[[Any], Backbone]  # takes the specification's own class; the model maps images b c h w -> logits b k
    paper_distribution: DistributionRule | None = None
    variants: Mapping[str, Settings] = field(default_factory=dict)
    timm_names: Sequence[tuple[str, str]] = ()


def build_block(*, token_mixing: nn.Module, channel_mixing: nn.Module) -> nn.Sequential:
    """One block: first over the tokens, then over the features."""
    return nn.Sequential(OrderedDict(token_mixing=token_mixing, channel_mixing=channel_mixing))


class PreNormResidual(nn.Module):
    """x + mixer(norm(x)), the sub-layer of ViT, MLP-Mixer and MetaFormer."""

    def __init__(self, spec: BackboneSpec, mixer: nn.Module) -> None:
        super().__init__()
        self.norm = build_sequence_norm(spec.norm, spec.dim)
        self.mixer = mixer

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.mixer(self.norm(tokens))


class SequenceHead(nn.Module):
    """Norm, then the mean over tokens or the class token, then a linear classifier: b n d -> b k."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.has_class_token = spec.pooling == "class_token"
        self.norm = build_sequence_norm(spec.norm, spec.dim)
        self.classifier = nn.Linear(spec.dim, spec.num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm(tokens)
        pooled = normed[:, 0] if self.has_class_token else normed.mean(dim=1)
        return self.classifier(pooled)


class GridHead(nn.Module):
    """The mean over positions, then a norm if `normed`, then a linear classifier: b d h w -> b k."""

    def __init__(self, spec: BackboneSpec, *, normed: bool) -> None:
        super().__init__()
        self.norm: nn.Module = nn.Identity()
        if normed:
            self.norm = nn.BatchNorm1d(spec.dim) if spec.norm == "batch" else nn.LayerNorm(spec.dim, eps=LAYER_NORM_EPS)
        self.classifier = nn.Linear(spec.dim, spec.num_classes)

    def forward(self, grid: Tensor) -> Tensor:
        return self.classifier(self.norm(grid.mean(dim=(2, 3))))


def head_cost(spec: BackboneSpec, *, normed: bool) -> PartCost:
    """The cost of either head, by arithmetic."""
    return (norm_cost(spec.dim) if normed else PartCost()) + linear_cost(1, spec.dim, spec.num_classes)


def build_pre_norm_backbone(spec: BackboneSpec, *, token_mixers: Sequence[nn.Module], mlp_dim: int) -> Backbone:
    """The body of ViT, MLP-Mixer and MetaFormer, which differ in their token mixers only: images b c h w -> logits b k.

    There is a token mixer for each block, which maps b n d -> b n d; the channel mixer is an MLP of `mlp_dim` hidden features.
    """
    assert len(token_mixers) == spec.depth
    blocks = [
        build_block(
            token_mixing=PreNormResidual(spec, mixer),
            channel_mixing=PreNormResidual(spec, Mlp(spec.dim, mlp_dim, activation=spec.activation)),
        )
        for mixer in token_mixers
    ]
    return Backbone(spec, stem=SequenceStem(spec), blocks=blocks, head=SequenceHead(spec))


def pre_norm_cost(spec: BackboneSpec, *, token_mixers: PartCost, mlp_dim: int) -> Cost:
    """The exact cost of `build_pre_norm_backbone`, by arithmetic, from that of all token mixers."""
    return Cost(
        {
            "stem": stem_cost(spec, normed=False),
            "token_mixing": spec.depth * norm_cost(spec.dim) + token_mixers,
            "channel_mixing": spec.depth * (norm_cost(spec.dim) + mlp_cost(spec.sequence, spec.dim, mlp_dim)),
            "head": head_cost(spec, normed=True),
        }
    )
