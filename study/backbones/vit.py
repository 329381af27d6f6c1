"""ViT: patches and attention.

Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021 (arXiv:2010.11929), equations 1 to 4:

    z_0   = [class token;] patch_embedding(image) + positions
    z'_l  = attention(LN(z_{l-1})) + z_{l-1}
    z_l   = MLP(LN(z'_l)) + z'_l
    logit = linear(class token, or mean over tokens, of LN(z_depth))

With `pooling: mean` there is no class token at all, and the norm comes before the mean (Beyer, Zhai and Kolesnikov,
"Better plain ViT baselines for ImageNet-1k", 2022), so that a ViT differs from the other backbones in its mixer only.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from study.backbones.attention import SelfAttention
from study.backbones.body import Architecture, Backbone, PreNormResidual, SequenceHead, SequenceStem, block
from study.backbones.closed_form import Cost, Part, attention_products, linear, mlp, norm
from study.backbones.layers import Mlp, sequence_norm
from study.backbones.patch_embedding import PatchEmbedding, patch_embedding_cost
from study.backbones.specification import BackboneSpec, divisors, listed

HEAD_DIM = 32  # features per head, unless `heads` is given
MLP_RATIO = 4  # hidden width of the MLP in widths: the paper's table 1


def natural_heads(resolved: dict[str, Any]) -> int:
    """As many heads of 32 features as the width holds, at least one."""
    return max(1, int(resolved["dim"]) // HEAD_DIM)


def natural_mlp_dim(resolved: dict[str, Any]) -> int:
    """Four times the width."""
    return MLP_RATIO * int(resolved["dim"])


class ViTSpec(BackboneSpec):
    """Width `dim` in `heads` heads, `depth` blocks, an MLP of `mlp_dim` hidden features."""

    backbone: ClassVar[str] = "vit"
    fine_knob: ClassVar[str | None] = "mlp_dim"

    heads: int = Field(default_factory=natural_heads, ge=1)
    mlp_dim: int = Field(default_factory=natural_mlp_dim, ge=1)
    pooling: Literal["mean", "class_token"] = "mean"

    @field_validator("heads")
    @classmethod
    def _heads_share_the_width(cls, heads: int, info: ValidationInfo) -> int:
        dim = info.data.get("dim", heads)
        if dim % heads:
            raise ValueError(f"heads must divide dim: {dim} divides by {listed(divisors(dim))}")
        return heads

    @property
    def has_class_token(self) -> bool:
        """Whether a class token stands in front of the patches."""
        return self.pooling == "class_token"

    def closed_form(self) -> Cost:
        """The exact cost, by arithmetic."""
        d, n = self.dim, self.tokens + self.has_class_token
        attention = linear(n, d, 3 * d) + attention_products(n, d, self.heads) + linear(n, d, d)
        patches = patch_embedding_cost(self.tokens, self.in_channels, d, patch_size=self.patch_size)
        return Cost(
            {
                "stem": patches + Part(params=n * d + self.has_class_token * d),
                "token_mixing": self.depth * (norm(d) + attention),
                "channel_mixing": self.depth * (norm(d) + mlp(n, d, self.mlp_dim)),
                "head": norm(d) + linear(1, d, self.num_classes),
            }
        )

    def width_step(self, head_dim: int) -> int:
        """One head more or less."""
        return head_dim

    def widths(self, dim: int, head_dim: int) -> dict[str, int]:
        """Heads of `head_dim` features, and the paper's hidden width."""
        assert dim % head_dim == 0, f"{dim} is no multiple of {head_dim}"
        return {"dim": dim, "heads": dim // head_dim, "mlp_dim": MLP_RATIO * dim}


def vit(spec: ViTSpec) -> Backbone:
    """The backbone that the specification describes: images b c h w -> logits b k."""
    patches = PatchEmbedding(spec.in_channels, spec.dim, patch_size=spec.patch_size)
    stem = SequenceStem(spec, patch_embedding=patches, class_token=spec.has_class_token, positions=True)
    blocks = [
        block(
            token_mixing=PreNormResidual(sequence_norm("layer", spec.dim), SelfAttention(spec.dim, spec.heads)),
            channel_mixing=PreNormResidual(
                sequence_norm("layer", spec.dim), Mlp(spec.dim, spec.mlp_dim, nonlinearity="gelu")
            ),
        )
        for _ in range(spec.depth)
    ]
    head = SequenceHead(spec, norm=sequence_norm("layer", spec.dim), class_token=spec.has_class_token)
    return Backbone(spec, stem=stem, blocks=blocks, head=head)


ARCHITECTURE = Architecture(specification=ViTSpec, construct=vit)
