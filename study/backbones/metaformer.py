"""MetaFormer: one body in which the token mixer is the only thing that varies.

Yu et al., "MetaFormer is actually what you need for vision", CVPR 2022 (arXiv:2111.11418), equations 1 to 3, at one
resolution throughout:

    z_0   = patch_embedding(image) + positions
    z'_l  = token_mixer(norm(z_{l-1})) + z_{l-1}
    z_l   = MLP(norm(z'_l)) + z'_l
    logit = linear(mean over tokens of norm(z_depth))

With attention it is ViT; with `identity` tokens never meet before the head: patches only. What is said about attention
rests on this backbone. An option of another mixer than the chosen one is None, whatever was asked for, so that a study
over mixers may set them all, and a run is not told apart by an option that it does not have.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, ValidationInfo, field_validator

from study.backbones.base import Architecture, Backbone, PreNormResidual, block
from study.backbones.closed_form import Cost, mlp, norm
from study.backbones.head import SequenceHead, head_cost
from study.backbones.kernel_size import fitting_kernel, natural_kernel, reaching_pixels
from study.backbones.layers import Mlp, sequence_norm
from study.backbones.mlp_mixer import natural_token_dim
from study.backbones.specification import BackboneSpec, PositionEmbedding, option, unreached
from study.backbones.stem import SequenceStem, stem_cost
from study.backbones.token_mixers import TOKEN_MIXERS, TokenMixerName
from study.backbones.vit import MLP_RATIO, heads_sharing_the_width, natural_heads, natural_mlp_dim


class MetaFormerSpec(BackboneSpec):
    """Width `dim`, `depth` blocks, a `token_mixer` with its own options, an MLP of `mlp_dim` hidden features."""

    backbone: ClassVar[str] = "metaformer"
    fine_knob: ClassVar[str | None] = "mlp_dim"

    position_embedding: PositionEmbedding = option("learned")
    token_mixer: TokenMixerName = "attention"
    mlp_dim: int = Field(default_factory=natural_mlp_dim, ge=1)
    heads: int | None = Field(default_factory=natural_heads, ge=1)
    token_dim: int | None = Field(default_factory=natural_token_dim, ge=1)
    kernel_pixels: int | None = option(None)
    kernel_size: int | None = Field(default_factory=natural_kernel, ge=1)

    @field_validator("initialization")
    @classmethod
    def _no_paper_of_its_own(cls, initialization: str) -> str:
        if initialization == "paper":
            raise ValueError("this body is no published model: only matched initialization")
        return initialization

    @field_validator("token_mixer")
    @classmethod
    def _mixer_reaches_the_class_token(cls, token_mixer: TokenMixerName, info: ValidationInfo) -> TokenMixerName:
        if info.data.get("pooling") == "class_token" and not TOKEN_MIXERS[token_mixer].everywhere:
            raise ValueError(unreached(token_mixer))
        return token_mixer

    @field_validator("heads", "token_dim", "kernel_pixels", "kernel_size")
    @classmethod
    def _options_belong_to_the_mixer(cls, value: int | None, info: ValidationInfo) -> int | None:
        assert info.field_name is not None
        if "token_mixer" not in info.data or info.field_name not in TOKEN_MIXERS[info.data["token_mixer"]].options:
            return None
        if info.field_name == "kernel_pixels":
            return reaching_pixels(value, info)
        if value is None:
            raise ValueError(f"{info.data['token_mixer']} needs a number here")
        if info.field_name == "heads":
            return heads_sharing_the_width(value, info)
        return fitting_kernel(value, info) if info.field_name == "kernel_size" else value

    def resolved(self, name: str) -> int:
        """An option of the chosen mixer, which is a number."""
        value = getattr(self, name)
        assert isinstance(value, int), f"{self.token_mixer} has no {name}"
        return value

    def closed_form(self) -> Cost:
        """The exact cost, by arithmetic."""
        d = self.dim
        return Cost(
            {
                "stem": stem_cost(self, normed=False),
                "token_mixing": self.depth * (norm(d) + TOKEN_MIXERS[self.token_mixer].cost(self)),
                "channel_mixing": self.depth * (norm(d) + mlp(self.sequence, d, self.mlp_dim)),
                "head": head_cost(self, normed=True),
            }
        )

    def width_step(self, head_dim: int) -> int:
        """One head more or less, for all mixers alike, so that their widths can be equal."""
        return self.smallest_step(head_dim)

    @classmethod
    def widths(cls, dim: int, head_dim: int) -> dict[str, Any]:
        """Heads of `head_dim` features and natural hidden widths; those of other mixers fall away by themselves."""
        assert dim % head_dim == 0, f"{dim} is no multiple of {head_dim}"
        return {"dim": dim, "heads": dim // head_dim, "mlp_dim": MLP_RATIO * dim, "token_dim": natural_token_dim({"dim": dim})}


def metaformer(spec: MetaFormerSpec) -> Backbone:
    """The backbone that the specification describes: images b c h w -> logits b k."""
    mixer = TOKEN_MIXERS[spec.token_mixer]
    blocks = [
        block(
            token_mixing=PreNormResidual(sequence_norm(spec.norm, spec.dim), mixer.construct(spec)),
            channel_mixing=PreNormResidual(
                sequence_norm(spec.norm, spec.dim), Mlp(spec.dim, spec.mlp_dim, nonlinearity=spec.activation)
            ),
        )
        for _ in range(spec.depth)
    ]
    return Backbone(spec, stem=SequenceStem(spec), blocks=blocks, head=SequenceHead(spec))


ARCHITECTURE = Architecture(specification=MetaFormerSpec, construct=metaformer)
