"""ViT: patches and attention.

Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021 (arXiv:2010.11929), equations 1 to 4:

    z_0   = [class token;] patch_embedding(image) + positions
    z'_l  = attention(LN(z_{l-1})) + z_{l-1}
    z_l   = MLP(LN(z'_l)) + z'_l
    logit = linear(class token, or mean over tokens, of LN(z_depth))

With `pooling: mean` there is no class token at all, and the norm comes before the mean (Beyer, Zhai and Kolesnikov,
"Better plain ViT baselines for ImageNet-1k", 2022), so that a ViT differs from the other backbones in its mixer only.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, ValidationInfo
from torch import nn

from study.backbones.attention import SelfAttention, self_attention_cost
from study.backbones.base import Architecture, Backbone, build_pre_norm_backbone, pre_norm_cost
from study.backbones.closed_form import Cost
from study.backbones.initialization import Distribution, common_paper_distribution, fan_in
from study.backbones.layers import MLP_RATIO, default_mlp_dim
from study.backbones.specification import (
    IMAGENET,
    ROTARY_POSITIONS,
    PositionEmbedding,
    SequenceSpec,
    Settings,
    list_divisors,
    neutral_option,
)

_HEAD_DIM = 32  # features per head, unless `heads` is given


def default_heads(resolved: dict[str, Any]) -> int:
    """As many heads of 32 features as the width holds, at least one."""
    return max(1, int(resolved["dim"]) // _HEAD_DIM)


def validate_heads(heads: int, info: ValidationInfo) -> int:
    """Require a number of heads that divides the width; raises ValueError otherwise."""
    dim = info.data.get("dim", heads)
    if dim % heads:
        raise ValueError(f"heads must divide dim: {dim} is divisible by {list_divisors(dim)}")
    if info.data.get("position_embedding") in ROTARY_POSITIONS and dim // heads % 4:
        raise ValueError(f"rope needs features per head divisible by 4 (pairs, two axes): {dim} / {heads} is {dim // heads}")
    return heads


class ViTSpec(SequenceSpec):
    """Width `dim` in `heads` heads, `depth` blocks, an MLP of `mlp_dim` hidden features."""

    backbone: ClassVar[str] = "vit"
    fine_width_option: ClassVar[str | None] = "mlp_dim"
    attends: ClassVar[bool] = True

    position_embedding: PositionEmbedding = neutral_option("learned")
    heads: Annotated[int, Field(ge=1), AfterValidator(validate_heads)] = Field(default_factory=default_heads)
    mlp_dim: int = Field(default_factory=default_mlp_dim, ge=1)
    qk_norm: bool = neutral_option(False)

    def closed_form(self) -> Cost:
        return pre_norm_cost(
            self,
            token_mixers=self.depth * self_attention_cost(self, relative=self.position_embedding == "relative"),
            mlp_dim=self.mlp_dim,
        )

    @classmethod
    def width_options(cls, dim: int, head_dim: int) -> dict[str, int]:
        assert dim % head_dim == 0, f"{dim} is no multiple of {head_dim}"
        return {"dim": dim, "heads": dim // head_dim, "mlp_dim": MLP_RATIO * dim}


# The paper's table 1; tiny and small: Touvron et al., "DeiT", 2021, table 1.
_SIZES = (("tiny", 192, 12, 3), ("small", 384, 12, 6), ("base", 768, 12, 12), ("large", 1024, 24, 16))
_CLASS_TOKEN: Settings = {**IMAGENET, "pooling": "class_token"}
_VARIANTS: Mapping[str, Settings] = {  # weights: timm's vit_<size>_patch<p>_224, for all but tiny at 32
    f"vit_{size}_patch{patch_size}": {**_CLASS_TOKEN, "dim": dim, "depth": depth, "heads": heads, "patch_size": patch_size}
    for size, dim, depth, heads in _SIZES
    for patch_size in (16, 32)
}


def build_vit(spec: ViTSpec) -> Backbone:
    relative = spec.position_embedding == "relative"
    mixers = [SelfAttention(spec, relative=relative) for _ in range(spec.depth)]
    return build_pre_norm_backbone(spec, token_mixers=mixers, mlp_dim=spec.mlp_dim)


def _paper_distribution(module: nn.Module, name: str, parameter: nn.Parameter) -> Distribution:
    """The authors' code (google-research/vision_transformer, vit_jax/models_vit.py).

    Xavier-uniform matrices (queries, keys and values separately), biases of MLPs normal with 1e-6, a patch
    embedding of truncated normals with variance 1 / fan-in, positions normal with 0.02, class token and head zero.
    """
    if ".patch_embedding." in name and parameter.ndim > 1:
        return Distribution("truncated_normal", 1 / math.sqrt(fan_in(parameter)))
    if ".mixer." in name and name.endswith("weight") and parameter.ndim > 1:
        inputs = fan_in(parameter)
        outputs = len(parameter) // 3 if name.endswith("qkv.weight") else len(parameter)
        return Distribution("uniform", math.sqrt(6 / (inputs + outputs)))
    if ".channel_mixing.mixer." in name:
        return Distribution("normal", 1e-6)
    return common_paper_distribution(name, parameter)


VIT = Architecture(
    specification=ViTSpec,
    construct=build_vit,
    paper_distribution=_paper_distribution,
    variants=_VARIANTS,
    timm_names=(
        ("stem.patch_embedding.projection", "patch_embed.proj"),
        ("stem.class_token", "cls_token"),
        ("stem.registers", "reg_token"),
        ("stem.positions.table", "pos_embed"),
        ("blocks.*.token_mixing.norm", "blocks.*.norm1"),
        ("blocks.*.token_mixing.mixer.qkv", "blocks.*.attn.qkv"),
        ("blocks.*.token_mixing.mixer.q_norm", "blocks.*.attn.q_norm"),
        ("blocks.*.token_mixing.mixer.k_norm", "blocks.*.attn.k_norm"),
        ("blocks.*.token_mixing.mixer.out", "blocks.*.attn.proj"),
        ("blocks.*.token_mixing.layer_scale", "blocks.*.ls1.gamma"),
        ("blocks.*.channel_mixing.norm", "blocks.*.norm2"),
        ("blocks.*.channel_mixing.mixer.expand", "blocks.*.mlp.fc1"),
        ("blocks.*.channel_mixing.mixer.gate", "blocks.*.mlp.fc1_g"),
        ("blocks.*.channel_mixing.mixer.value", "blocks.*.mlp.fc1_x"),
        ("blocks.*.channel_mixing.mixer.reduce", "blocks.*.mlp.fc2"),
        ("blocks.*.channel_mixing.layer_scale", "blocks.*.ls2.gamma"),
        ("head.norm", "norm"),
        ("head.classifier", "head"),
    ),
)
