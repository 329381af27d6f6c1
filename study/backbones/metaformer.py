"""MetaFormer: one body in which the token mixer is the only thing that varies.

Yu et al., "MetaFormer is actually what you need for vision", CVPR 2022 (arXiv:2111.11418), equations 1 to 3, at one
resolution throughout:

    z_0   = patch_embedding(image) + positions
    z'_l  = token_mixer(norm(z_{l-1})) + z_{l-1}
    z_l   = MLP(norm(z'_l)) + z'_l
    logit = linear(mean over tokens of norm(z_depth))

With attention it is ViT; with `identity` tokens never mix before the head: patches only. Statements about attention
rest on this backbone. An option of another mixer than the chosen one is None, whatever value was given, so that a study
over mixers may set them all, and a run's identity does not depend on options that it does not have.
"""

from typing import ClassVar

from pydantic import Field, ValidationInfo, field_validator

from study.backbones.base import Architecture, Backbone, build_pre_norm_backbone, pre_norm_cost
from study.backbones.closed_form import Cost
from study.backbones.kernel_size import default_kernel_size, validate_kernel_pixels, validate_kernel_size
from study.backbones.layers import MLP_RATIO, default_mlp_dim
from study.backbones.mlp_mixer import default_token_dim
from study.backbones.specification import BackboneSpec, PositionEmbedding, explain_unreached_class_token, neutral_option
from study.backbones.token_mixers import TOKEN_MIXERS, TokenMixerName
from study.backbones.vit import default_heads, validate_heads


class MetaFormerSpec(BackboneSpec):
    """Width `dim`, `depth` blocks, a `token_mixer` with its own options, an MLP of `mlp_dim` hidden features."""

    backbone: ClassVar[str] = "metaformer"
    fine_width_option: ClassVar[str | None] = "mlp_dim"

    position_embedding: PositionEmbedding = neutral_option("learned")
    token_mixer: TokenMixerName = "attention"
    mlp_dim: int = Field(default_factory=default_mlp_dim, ge=1)
    heads: int | None = Field(default_factory=default_heads, ge=1)
    token_dim: int | None = Field(default_factory=default_token_dim, ge=1)
    kernel_pixels: int | None = neutral_option(None)
    kernel_size: int | None = Field(default_factory=default_kernel_size, ge=1)

    @field_validator("initialization")
    @classmethod
    def _validate_initialization(cls, initialization: str) -> str:
        if initialization == "paper":
            raise ValueError("this body is no published model: only matched initialization")
        return initialization

    @field_validator("token_mixer")
    @classmethod
    def _validate_token_mixer(cls, token_mixer: TokenMixerName, info: ValidationInfo) -> TokenMixerName:
        if info.data.get("pooling") == "class_token" and not TOKEN_MIXERS[token_mixer].is_global:
            raise ValueError(explain_unreached_class_token(token_mixer))
        return token_mixer

    @field_validator("heads", "token_dim", "kernel_pixels", "kernel_size")
    @classmethod
    def _validate_mixer_option(cls, value: int | None, info: ValidationInfo) -> int | None:
        assert info.field_name is not None
        if "token_mixer" not in info.data or info.field_name not in TOKEN_MIXERS[info.data["token_mixer"]].options:
            return None
        if info.field_name == "kernel_pixels":
            return validate_kernel_pixels(value, info)
        if value is None:
            raise ValueError(f"{info.data['token_mixer']} needs a number here")
        if info.field_name == "heads":
            return validate_heads(value, info)
        return validate_kernel_size(value, info) if info.field_name == "kernel_size" else value

    def closed_form(self) -> Cost:
        return pre_norm_cost(self, token_mixer=TOKEN_MIXERS[self.token_mixer].cost(self), mlp_dim=self.mlp_dim)

    @classmethod
    def width_options(cls, dim: int, head_dim: int) -> dict[str, int]:
        """Heads of `head_dim` features for all mixers alike, so that widths can be equal; validation drops other mixers'."""
        assert dim % head_dim == 0, f"{dim} is no multiple of {head_dim}"
        return {"dim": dim, "heads": dim // head_dim, "mlp_dim": MLP_RATIO * dim, "token_dim": default_token_dim({"dim": dim})}


def build_metaformer(spec: MetaFormerSpec) -> Backbone:
    mixer = TOKEN_MIXERS[spec.token_mixer]
    return build_pre_norm_backbone(spec, build_token_mixer=lambda: mixer.construct(spec), mlp_dim=spec.mlp_dim)


METAFORMER = Architecture(specification=MetaFormerSpec, construct=build_metaformer)
