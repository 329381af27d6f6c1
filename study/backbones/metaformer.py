"""MetaFormer: one body in which the token mixer is the only thing that varies.

Yu et al., "MetaFormer is actually what you need for vision", CVPR 2022 (arXiv:2111.11418), equations 1 to 3, at one
resolution throughout:

    z_0   = patch_embedding(image) + positions
    z'_l  = token_mixer(norm(z_{l-1})) + z_{l-1}
    z_l   = MLP(norm(z'_l)) + z'_l
    logit = linear(mean over tokens of norm(z_depth))

With attention it is ViT; with `identity` tokens never mix before the head: patches only. Statements about attention
rest on this backbone. The blocks may have different mixers, first to last: `[depthwise_conv, depthwise_conv, attention]` or
`{depthwise_conv: 2, attention: 1}`. An option of other mixers than the chosen ones is None, whatever value was given, so that
a study over mixers may set them all, and a run's identity does not depend on options that it does not have.
"""

from collections import Counter
from typing import ClassVar, Self

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from study.backbones.base import Architecture, Backbone, build_pre_norm_backbone, pre_norm_cost
from study.backbones.closed_form import Cost, PartCost
from study.backbones.kernel_size import default_kernel_size, validate_kernel_pixels, validate_kernel_size
from study.backbones.layers import MLP_RATIO, default_mlp_dim
from study.backbones.mlp_mixer import default_token_dim
from study.backbones.specification import (
    ROTARY_POSITIONS,
    PositionEmbedding,
    SequenceSpec,
    explain_unreached_tokens,
    neutral_option,
)
from study.backbones.token_mixers import TOKEN_MIXERS
from study.backbones.vit import default_heads, validate_heads

_MOST_BLOCKS = 1_000  # of one mixer


class MetaFormerSpec(SequenceSpec):
    """Width `dim`, `depth` blocks, a `token_mixer` with its own options, an MLP of `mlp_dim` hidden features."""

    backbone: ClassVar[str] = "metaformer"
    fine_width_option: ClassVar[str | None] = "mlp_dim"
    attends: ClassVar[bool] = True

    position_embedding: PositionEmbedding = neutral_option("learned")
    token_mixer: str | tuple[str, ...] = "attention"  # of all blocks, or of each
    mlp_dim: int = Field(default_factory=default_mlp_dim, ge=1)
    heads: int | None = Field(default_factory=default_heads, ge=1)
    token_dim: int | None = Field(default_factory=default_token_dim, ge=1)
    kernel_pixels: int | None = neutral_option(None)
    kernel_size: int | None = Field(default_factory=default_kernel_size, ge=1)
    qk_norm: bool = neutral_option(False)

    @field_validator("initialization")
    @classmethod
    def _validate_initialization(cls, initialization: str) -> str:
        if initialization == "paper":
            raise ValueError("this body is no published model: only matched initialization")
        return initialization

    @field_validator("position_embedding")
    @classmethod
    def _validate_relative(cls, position_embedding: str) -> str:
        if position_embedding == "relative":
            raise ValueError("in this body it is a mixer, token_mixer: relative_attention, whatever positions are added")
        return position_embedding

    @field_validator("token_mixer", mode="before")
    @classmethod
    def _validate_token_mixer(cls, token_mixer: object, info: ValidationInfo) -> object:
        mixers = list_mixers(token_mixer)
        if isinstance(token_mixer, str):
            mixers *= info.data.get("depth", 1)
        elif len(mixers) != (depth := info.data.get("depth", len(mixers))):
            raise ValueError(f"depth is {depth}, and token_mixer names the mixers of {len(mixers)} blocks")
        if info.data.get("pooling") == "class_token" or info.data.get("registers"):
            for mixer in mixers:
                if not TOKEN_MIXERS[mixer].is_global:
                    raise ValueError(explain_unreached_tokens(mixer))
        if info.data.get("position_embedding") in ROTARY_POSITIONS and not any("attention" in mixer for mixer in mixers):
            raise ValueError(f"rope positions act on queries and keys, which {mixers[0]} hasn't: learned, sincos, none")
        return mixers[0] if len(set(mixers)) == 1 else tuple(mixers)

    @field_validator("heads", "token_dim", "kernel_pixels", "kernel_size", "qk_norm")
    @classmethod
    def _validate_mixer_option(cls, value: int | None, info: ValidationInfo) -> int | None:
        assert info.field_name is not None
        mixers = list_mixers(info.data["token_mixer"]) if "token_mixer" in info.data else []
        users = [mixer for mixer in mixers if info.field_name in TOKEN_MIXERS[mixer].options]
        if info.field_name == "qk_norm":
            return bool(users) and value
        if not users:
            return None
        if info.field_name == "kernel_pixels":
            return validate_kernel_pixels(value, info)
        if value is None:
            raise ValueError(f"{users[0]} needs a number here")
        if info.field_name == "heads":
            return validate_heads(value, info)
        return validate_kernel_size(value, info) if info.field_name == "kernel_size" else value

    @property
    def short_name(self) -> str:
        return f"{self.backbone} with {', '.join(dict.fromkeys(self.mixers))}"

    @property
    def mixers(self) -> list[str]:
        """The token mixer of each block."""
        return list_mixers(self.token_mixer) * (self.depth if isinstance(self.token_mixer, str) else 1)

    @property
    def has_attention(self) -> bool:
        return any("attention" in mixer for mixer in self.mixers)

    def closed_form(self) -> Cost | None:
        mixing = PartCost()
        for mixer, count in Counter(self.mixers).items():
            if (cost := TOKEN_MIXERS[mixer].cost) is None:
                return None
            mixing += count * cost(self)
        return pre_norm_cost(self, token_mixers=mixing, mlp_dim=self.mlp_dim)

    def at_depth_of_trace(self) -> Self:
        if isinstance(self.token_mixer, str):
            return super().at_depth_of_trace()
        mixers = tuple(dict.fromkeys(self.token_mixer))
        return self.with_options({"depth": len(mixers), "token_mixer": mixers})

    @classmethod
    def width_options(cls, dim: int, head_dim: int) -> dict[str, int]:
        """Heads of `head_dim` features for all mixers alike, so that widths can be equal; validation drops other mixers'."""
        assert dim % head_dim == 0, f"{dim} is no multiple of {head_dim}"
        return {"dim": dim, "heads": dim // head_dim, "mlp_dim": MLP_RATIO * dim, "token_dim": default_token_dim({"dim": dim})}


def build_metaformer(spec: MetaFormerSpec) -> Backbone:
    mixers = [TOKEN_MIXERS[mixer].construct(spec) for mixer in spec.mixers]
    return build_pre_norm_backbone(spec, token_mixers=mixers, mlp_dim=spec.mlp_dim)


def list_mixers(token_mixer: object) -> list[str]:
    """The mixers that a value of `token_mixer` names, in order; raises ValueError for anything else."""
    if isinstance(token_mixer, dict):
        counts = token_mixer.values()
        if not token_mixer or not all(type(count) is int and 1 <= count <= _MOST_BLOCKS for count in counts):
            rule = f"mixers by depth have a number of blocks each, 1 to {_MOST_BLOCKS:,}"
            raise ValueError(f"{rule}: {{depthwise_conv: 4, attention: 2}}")
        given: list[object] = [mixer for mixer, count in token_mixer.items() for _ in range(count)]
    else:
        given = list(token_mixer) if isinstance(token_mixer, list | tuple) else [token_mixer]
    names = [mixer for mixer in given if isinstance(mixer, str) and mixer in TOKEN_MIXERS]
    if not given or len(names) < len(given):
        expected = " or ".join(map(repr, TOKEN_MIXERS))
        raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})
    return names


METAFORMER = Architecture(specification=MetaFormerSpec, construct=build_metaformer)
