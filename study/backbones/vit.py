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

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, ValidationInfo
from torch import nn

from study.backbones.attention import SelfAttention
from study.backbones.base import Architecture, Backbone, PreNormResidual, Settings, block
from study.backbones.closed_form import Cost, attention, mlp, norm
from study.backbones.head import SequenceHead, head_cost
from study.backbones.initialization import POSITIONS_STD, Distribution, fan_in
from study.backbones.layers import Mlp, sequence_norm
from study.backbones.specification import BackboneSpec, PositionEmbedding, divisors, listed, option
from study.backbones.stem import SequenceStem, stem_cost

HEAD_DIM = 32  # features per head, unless `heads` is given
MLP_RATIO = 4  # hidden width of the MLP in widths: the paper's table 1


def natural_heads(resolved: dict[str, Any]) -> int:
    """As many heads of 32 features as the width holds, at least one."""
    return max(1, int(resolved["dim"]) // HEAD_DIM)


def natural_mlp_dim(resolved: dict[str, Any]) -> int:
    """Four times the width."""
    return MLP_RATIO * int(resolved["dim"])


def heads_sharing_the_width(heads: int, info: ValidationInfo) -> int:
    """A number of heads among which the width can be shared; ValueError otherwise."""
    dim = info.data.get("dim", heads)
    if dim % heads:
        raise ValueError(f"heads must divide dim: {dim} divides by {listed(divisors(dim))}")
    return heads


class ViTSpec(BackboneSpec):
    """Width `dim` in `heads` heads, `depth` blocks, an MLP of `mlp_dim` hidden features."""

    backbone: ClassVar[str] = "vit"
    fine_knob: ClassVar[str | None] = "mlp_dim"

    position_embedding: PositionEmbedding = option("learned")
    heads: Annotated[int, Field(ge=1), AfterValidator(heads_sharing_the_width)] = Field(default_factory=natural_heads)
    mlp_dim: int = Field(default_factory=natural_mlp_dim, ge=1)

    def closed_form(self) -> Cost:
        """The exact cost, by arithmetic."""
        d, n = self.dim, self.sequence
        return Cost(
            {
                "stem": stem_cost(self, normed=False),
                "token_mixing": self.depth * (norm(d) + attention(n, d, self.heads)),
                "channel_mixing": self.depth * (norm(d) + mlp(n, d, self.mlp_dim)),
                "head": head_cost(self, normed=True),
            }
        )

    def width_step(self, head_dim: int) -> int:
        """One head more or less."""
        return self.smallest_step(head_dim)

    @classmethod
    def widths(cls, dim: int, head_dim: int) -> dict[str, int]:
        """Heads of `head_dim` features, and the paper's hidden width."""
        assert dim % head_dim == 0, f"{dim} is no multiple of {head_dim}"
        return {"dim": dim, "heads": dim // head_dim, "mlp_dim": MLP_RATIO * dim}


def vit(spec: ViTSpec) -> Backbone:
    """The backbone that the specification describes: images b c h w -> logits b k."""
    blocks = [
        block(
            token_mixing=PreNormResidual(sequence_norm(spec.norm, spec.dim), SelfAttention(spec.dim, spec.heads)),
            channel_mixing=PreNormResidual(
                sequence_norm(spec.norm, spec.dim), Mlp(spec.dim, spec.mlp_dim, nonlinearity=spec.activation)
            ),
        )
        for _ in range(spec.depth)
    ]
    return Backbone(spec, stem=SequenceStem(spec), blocks=blocks, head=SequenceHead(spec))


def paper_initialization(module: nn.Module, name: str, parameter: nn.Parameter) -> Distribution:
    """The authors' code (google-research/vision_transformer, vit_jax/models_vit.py).

    Xavier-uniform matrices (queries, keys and values each for themselves), biases of MLPs normal with 1e-6, a patch
    embedding of truncated normals with variance 1 / fan-in, positions normal with 0.02, class token and head zero.
    """
    if name.endswith("positions.table"):
        return Distribution("normal", POSITIONS_STD)
    if isinstance(module, nn.Conv2d) and name.endswith("weight"):
        return Distribution("truncated_normal", 1 / math.sqrt(fan_in(parameter)))
    if ".mixer." in name and name.endswith("weight"):
        inputs = fan_in(parameter)
        outputs = len(parameter) // 3 if name.endswith("qkv.weight") else len(parameter)
        return Distribution("uniform", math.sqrt(6 / (inputs + outputs)))
    if ".channel_mixing.mixer." in name:
        return Distribution("normal", 1e-6)
    return Distribution("constant", 1.0 if name.endswith("weight") and parameter.ndim == 1 else 0.0)  # norms: 1 and 0


SIZES: Mapping[str, Settings] = {  # the paper's table 1; tiny and small: Touvron et al., "DeiT", 2021, table 1
    "tiny": {"dim": 192, "depth": 12, "heads": 3},
    "small": {"dim": 384, "depth": 12, "heads": 6},
    "base": {"dim": 768, "depth": 12, "heads": 12},
    "large": {"dim": 1024, "depth": 24, "heads": 16},
}
IMAGENET: Settings = {
    "image_size": 224,
    "in_channels": 3,
    "num_classes": 1000,
    "initialization": "paper",
    "pooling": "class_token",
}
PUBLISHED: Mapping[str, Settings] = {  # weights: timm's vit_<size>_patch<p>_224, for all but tiny at 32
    f"vit_{size}_patch{patch_size}": {**IMAGENET, **settings, "patch_size": patch_size}
    for size, settings in SIZES.items()
    for patch_size in (16, 32)
}

TIMM_NAMES = (
    ("stem.patch_embedding.projection", "patch_embed.proj"),
    ("stem.class_token", "cls_token"),
    ("stem.positions.table", "pos_embed"),
    ("blocks.*.token_mixing.norm", "blocks.*.norm1"),
    ("blocks.*.token_mixing.mixer.qkv", "blocks.*.attn.qkv"),
    ("blocks.*.token_mixing.mixer.out", "blocks.*.attn.proj"),
    ("blocks.*.channel_mixing.norm", "blocks.*.norm2"),
    ("blocks.*.channel_mixing.mixer.expand", "blocks.*.mlp.fc1"),
    ("blocks.*.channel_mixing.mixer.reduce", "blocks.*.mlp.fc2"),
    ("head.norm", "norm"),
    ("head.classifier", "head"),
)

ARCHITECTURE = Architecture(
    specification=ViTSpec, construct=vit, paper=paper_initialization, published=PUBLISHED, timm_names=TIMM_NAMES
)
