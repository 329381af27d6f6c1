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
from study.backbones.layers import Mlp, ScaledBranch, SwiGlu, build_feature_norm, build_sequence_norm
from study.backbones.specification import BackboneSpec, SequenceSpec, Settings
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


class WholeBackbone(Backbone):
    """Any image classifier, b c h w -> b k, as a backbone without named parts; its cost is that of the whole."""

    def __init__(self, spec: BackboneSpec, classifier: nn.Module) -> None:
        nn.Module.__init__(self)
        self.spec = spec
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(images)


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


class PreNormResidual(ScaledBranch):
    """x + mixer(norm(x)) or x + layer_scale * mixer(norm(x)), the sub-layer of ViT, MLP-Mixer and MetaFormer."""

    def __init__(self, spec: BackboneSpec, mixer: nn.Module) -> None:
        super().__init__(spec.dim, spec.layer_scale)
        self.norm = build_sequence_norm(spec.norm, spec.dim)
        self.mixer = mixer

    def forward(self, tokens: Tensor) -> Tensor:
        added = self.mixer(self.norm(tokens))
        return tokens + (added if self.layer_scale is None else self.layer_scale * added)


class AttentionPooling(nn.Module):
    """A mean of the tokens weighted by the softmax of a linear score: b n d -> b d.

    Hassani et al., "Escaping the big data paradigm with compact transformers", 2021, section 3.3.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score = nn.Linear(dim, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        return (self.score(tokens).softmax(dim=1).transpose(1, 2) @ tokens).squeeze(1)


class SequenceHead(nn.Module):
    """Norm, then the class token or else a mean over the image's tokens, then a linear classifier: b n d -> b k."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.has_class_token, self.extra_tokens = spec.pooling == "class_token", spec.extra_tokens
        self.pool = AttentionPooling(spec.dim) if spec.pooling == "attention" else None
        self.norm = build_sequence_norm(spec.norm, spec.dim)
        self.classifier = nn.Linear(spec.dim, spec.num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm(tokens)
        if self.has_class_token:
            return self.classifier(normed[:, 0])
        normed = normed[:, self.extra_tokens :] if self.extra_tokens else normed
        return self.classifier(normed.mean(dim=1) if self.pool is None else self.pool(normed))


class GridHead(nn.Module):
    """A mean over positions, then a norm if `normed`, then a linear classifier: b d h w -> b k."""

    def __init__(self, spec: BackboneSpec, *, normed: bool) -> None:
        super().__init__()
        self.norm: nn.Module = nn.Identity()
        if normed:
            self.norm = nn.BatchNorm1d(spec.dim) if spec.norm == "batch" else build_feature_norm(spec.norm, spec.dim)
        self.pool = AttentionPooling(spec.dim) if spec.pooling == "attention" else None
        self.classifier = nn.Linear(spec.dim, spec.num_classes)

    def forward(self, grid: Tensor) -> Tensor:
        pooled = grid.mean(dim=(2, 3)) if self.pool is None else self.pool(grid.flatten(2).transpose(1, 2))
        return self.classifier(self.norm(pooled))


def head_cost(spec: BackboneSpec, *, normed: bool) -> PartCost:
    """The cost of either head, by arithmetic."""
    cost = linear_cost(1, spec.dim, spec.num_classes) + (norm_cost(spec.dim, spec.norm) if normed else PartCost())
    if spec.pooling == "attention":
        cost += linear_cost(spec.tokens, spec.dim, 1) + PartCost(macs=spec.tokens * spec.dim, activation_elements=spec.dim)
    return cost


def build_pre_norm_backbone(spec: SequenceSpec, *, token_mixers: Sequence[nn.Module], mlp_dim: int) -> Backbone:
    """The body of ViT, MLP-Mixer and MetaFormer, which differ in their token mixers only: images b c h w -> logits b k.

    There is a token mixer for each block, which maps b n d -> b n d; the channel mixer has `mlp_dim` hidden features.
    """
    assert len(token_mixers) == spec.depth

    def build_channel_mixer() -> nn.Module:
        if spec.channel_mixer == "swiglu":
            return SwiGlu(spec.dim, mlp_dim, bias=spec.bias)
        return Mlp(spec.dim, mlp_dim, activation=spec.activation, bias=spec.bias)

    blocks = [
        build_block(token_mixing=PreNormResidual(spec, mixer), channel_mixing=PreNormResidual(spec, build_channel_mixer()))
        for mixer in token_mixers
    ]
    return Backbone(spec, stem=SequenceStem(spec), blocks=blocks, head=SequenceHead(spec))


def pre_norm_cost(spec: SequenceSpec, *, token_mixers: PartCost, mlp_dim: int) -> Cost:
    """The exact cost of `build_pre_norm_backbone`, by arithmetic, from that of all token mixers."""
    residual = norm_cost(spec.dim, spec.norm) + PartCost(params=0 if spec.layer_scale is None else spec.dim)
    channel_mixer = mlp_cost(spec.sequence, spec.dim, mlp_dim, spec.bias)
    if spec.channel_mixer == "swiglu":
        channel_mixer += linear_cost(spec.sequence, spec.dim, mlp_dim, spec.bias)
    return Cost(
        {
            "stem": stem_cost(spec, normed=False),
            "token_mixing": spec.depth * residual + token_mixers,
            "channel_mixing": spec.depth * (residual + channel_mixer),
            "head": head_cost(spec, normed=True),
        }
    )
