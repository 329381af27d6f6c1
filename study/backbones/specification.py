"""What a backbone is, before it is built: a frozen, fully resolved set of options, and what follows from them.

A specification holds numbers and words only. Options that follow from others (a hidden width of four times the width)
are filled in when it is made, so that its dump describes a model completely and can be part of a run's identity. Each
backbone's file derives its own; everything here and there is arithmetic and needs no tensors.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from study.backbones.closed_form import Cost

Stem = Literal["patchify", "overlap", "conv", "spt", "conv_pool"]
PositionEmbedding = Literal["learned", "sincos", "none", "rope", "learned_rope", "relative"]
LEARNED_POSITIONS = ("learned", "learned_rope")
ROTARY_POSITIONS = ("rope", "learned_rope")
Pooling = Literal["mean", "class_token", "attention"]
Norm = Literal["batch", "layer", "rms"]
ChannelMixer = Literal["mlp", "swiglu"]
Activation = Literal["gelu", "relu"]
Initialization = Literal["matched", "paper", "own"]

Settings = Mapping[str, str | int]
IMAGENET: Settings = {
    "image_size": 224,
    "in_channels": 3,
    "num_classes": 1000,
    "initialization": "paper",
}  # of published variants


def neutral_option(neutral: str | int | bool | None) -> Any:
    """An option that was added later: at its default, which is neutral, it is not part of a run's identity."""
    return Field(neutral, json_schema_extra={"neutral": neutral})


class BackboneSpec(BaseModel):
    """The options of every backbone; a subclass adds its own, its closed-form cost and what a width implies.

    Raises pydantic's ValidationError, one entry per option that breaks a rule, with the rule as its text.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", validate_default=True)

    backbone: ClassVar[str]  # the name in the registry
    width_multiple: ClassVar[int | None] = None  # of which the width is a multiple; None: of whole heads
    fine_width_option: ClassVar[str | None] = None  # a hidden width that meets a budget between two widths
    grid_mixer: ClassVar[str | None] = None  # the token mixer's name, where it mixes grid positions only
    attends: ClassVar[bool] = False  # whether there are queries and keys, on which positions can act
    has_mlp: ClassVar[bool] = False  # in which dropout can act

    # Above these bounds a number is a mistake, and a model would fill the memory when it is built to be counted.
    image_size: int = Field(ge=1, le=8192)  # pixels; images are square
    in_channels: int = Field(ge=1, le=4096)
    num_classes: int = Field(ge=1, le=1_000_000)
    patch_size: int = Field(ge=1)  # pixels
    dim: int = Field(ge=1)  # the width: features per token
    depth: int = Field(ge=1, le=1000)  # blocks
    initialization: Initialization = neutral_option("matched")  # "paper": that of the backbone's paper; "own": as constructed
    stem: Stem = neutral_option("patchify")
    position_embedding: PositionEmbedding = neutral_option("none")
    pooling: Pooling = neutral_option("mean")
    norm: Norm = neutral_option("layer")
    activation: Activation = neutral_option("gelu")
    layer_scale: Annotated[float, Field(gt=0)] | None = neutral_option(None)  # first factor of each branch; None: no factor

    @field_validator("patch_size")
    @classmethod
    def _validate_patch_size(cls, patch_size: int, info: ValidationInfo) -> int:
        image_size = info.data.get("image_size", patch_size)
        if image_size % patch_size:
            raise ValueError(f"patch_size must divide image_size: {image_size} is divisible by {list_divisors(image_size)}")
        return patch_size

    @field_validator("initialization")
    @classmethod
    def _validate_own_initialization(cls, initialization: str) -> str:
        if initialization == "own" and cls.model_fields["initialization"].default != "own":
            raise ValueError(f"{cls.backbone} is initialized here: matched, or paper where it has one")
        return initialization

    @field_validator("stem")
    @classmethod
    def _validate_stem(cls, stem: str, info: ValidationInfo) -> str:
        patch_size = info.data.get("patch_size", 2)
        if stem == "overlap" and patch_size == 1:
            raise ValueError("an overlapping kernel of 2 x patch_size - 1 is no larger than a patch at patch_size 1")
        if stem in ("conv", "conv_pool") and (patch_size == 1 or patch_size & (patch_size - 1)):
            raise ValueError(f"a {stem} stem halves the image, so patch_size must be 2, 4, 8, ...: not {patch_size}")
        if stem == "spt" and patch_size == 1:
            raise ValueError("shifts are of half a patch, of which there is none at patch_size 1")
        return stem

    @field_validator("position_embedding")
    @classmethod
    def _validate_position_embedding(cls, position_embedding: str, info: ValidationInfo) -> str:
        if position_embedding in (*ROTARY_POSITIONS, "relative") and not cls.attends:
            rule = f"{position_embedding} positions act on queries and keys, which {cls.backbone} hasn't"
            raise ValueError(f"{rule}: learned, sincos, none")
        dim = info.data.get("dim", 4)
        if position_embedding == "sincos" and dim % 4:
            raise ValueError(f"sincos needs a dim divisible by 4 (sine and cosine, two axes): not {dim}")
        return position_embedding

    @field_validator("pooling")
    @classmethod
    def _validate_class_token(cls, pooling: str) -> str:
        if pooling == "class_token" and cls.grid_mixer is not None:
            raise ValueError(explain_unreached_tokens(cls.grid_mixer))
        return pooling

    @property
    def short_name(self) -> str:
        """What messages call it."""
        return self.backbone

    @property
    def has_attention(self) -> bool:
        """Whether any block attends."""
        return self.attends

    @property
    def grid(self) -> int:
        """Tokens along one side of the image."""
        return self.image_size // self.patch_size

    @property
    def tokens(self) -> int:
        """Tokens of one image: `grid` x `grid`."""
        return self.grid**2

    @property
    def extra_tokens(self) -> int:
        """Tokens before those of the image: the class token, if there is one."""
        return int(self.pooling == "class_token")

    @property
    def sequence(self) -> int:
        """Length of the sequence that the blocks see."""
        return self.extra_tokens + self.tokens

    def closed_form(self) -> Cost | None:
        """The exact cost, by arithmetic; None: only a trace can count it."""
        return None

    def width_step(self, head_dim: int) -> int:
        """The distance between adjacent widths that this backbone can have, with heads of `head_dim` features."""
        step = self.width_multiple or head_dim
        return math.lcm(step, 4) if self.position_embedding == "sincos" else step

    @classmethod
    def width_options(cls, dim: int, head_dim: int) -> dict[str, int]:
        """All options that a width sets: `dim` itself and what follows from it, in the paper's proportions.

        A backbone that has none can't be solved for a budget.
        """
        return {}

    def at_width(self, dim: int, head_dim: int) -> Self:
        """The same backbone at another width, in the paper's proportions."""
        return self.with_options(self.width_options(dim, head_dim))

    def with_fine_width(self, value: int) -> Self:
        """The same backbone with its `fine_width_option` set."""
        assert self.fine_width_option is not None, f"{self.backbone} has no fine width option"
        return self.with_options({self.fine_width_option: value})

    def with_options(self, changes: Mapping[str, object]) -> Self:
        """The same backbone with some options changed, validated again."""
        return type(self).model_validate({**self.model_dump(), **changes})

    def at_depth_of_trace(self) -> Self:
        """With as few blocks as have all that its blocks have: one is repeated, and two show that it is."""
        return self.with_options({"depth": min(self.depth, 2)})

    def get_int(self, option: str) -> int:
        """An option that may be None, where it must be a number."""
        value = getattr(self, option)
        assert isinstance(value, int), f"{self} has no {option}"
        return value


class SequenceSpec(BackboneSpec):
    """The further options of backbones whose tokens are a sequence."""

    has_mlp: ClassVar[bool] = True

    registers: int = Field(0, ge=0, json_schema_extra={"neutral": 0})  # learned tokens that the head doesn't read
    channel_mixer: ChannelMixer = neutral_option("mlp")
    bias: bool = neutral_option(True)  # of the linear layers and convolutions in blocks

    @property
    def extra_tokens(self) -> int:
        """Tokens before those of the image: the class token, if there is one, then the registers."""
        return super().extra_tokens + self.registers


def explain_unreached_tokens(mixer: str) -> str:
    """Why a class token or registers can't be combined with this token mixer."""
    return (
        f"class and register tokens need a token mixer that carries information to them, and {mixer} mixes grid positions only"
    )


def list_divisors(number: int) -> str:
    """All divisors in rising order, as text."""
    return ", ".join(str(candidate) for candidate in range(1, number + 1) if number % candidate == 0)
