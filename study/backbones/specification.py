"""What a backbone is, before anything is built: a frozen, fully resolved set of options, and what they imply.

A specification holds numbers and words only. Options that follow from others (a hidden width of four times the width)
are filled in when it is made, so that its dump names a model completely and can be part of a run's identity. Each
backbone's file derives its own; everything here and there is arithmetic and needs no tensors.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from study.backbones.closed_form import Cost

Stem = Literal["patchify", "overlap", "conv"]
PositionEmbedding = Literal["learned", "sincos", "none"]
Pooling = Literal["mean", "class_token"]
Norm = Literal["batch", "layer"]
Activation = Literal["gelu", "relu"]
Initialization = Literal["matched", "paper"]


def option(neutral: str | int | None) -> Any:
    """An option that later came to a backbone: at its default, which is neutral, a run's identity does not name it."""
    return Field(neutral, json_schema_extra={"neutral": neutral})


class BackboneSpec(BaseModel):
    """The options every backbone takes; a subclass adds its own, its closed-form cost and its rules of width.

    Raises pydantic's ValidationError, one entry per option that breaks a rule, with the rule as its text.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", validate_default=True)

    backbone: ClassVar[str]  # the name in the registry
    fine_knob: ClassVar[str | None] = None  # the option that trims a budget between two widths
    grid_only: ClassVar[str | None] = None  # what mixes the tokens, where it can reach grid positions only

    image_size: int = Field(ge=1)  # pixels; images are square
    in_channels: int = Field(ge=1)
    num_classes: int = Field(ge=1)
    patch_size: int = Field(ge=1)  # pixels
    dim: int = Field(ge=1)  # the width: features per token
    depth: int = Field(ge=1)  # blocks
    initialization: Initialization = option("matched")  # or that of the backbone's own paper
    stem: Stem = option("patchify")
    position_embedding: PositionEmbedding = option("none")
    pooling: Pooling = option("mean")
    norm: Norm = option("layer")
    activation: Activation = option("gelu")

    @field_validator("patch_size")
    @classmethod
    def _patches_tile_the_image(cls, patch_size: int, info: ValidationInfo) -> int:
        image_size = info.data.get("image_size", patch_size)
        if image_size % patch_size:
            raise ValueError(f"patch_size must divide image_size: {image_size} divides by {listed(divisors(image_size))}")
        return patch_size

    @field_validator("stem")
    @classmethod
    def _stems_differ(cls, stem: str, info: ValidationInfo) -> str:
        patch_size = info.data.get("patch_size", 2)
        if stem == "overlap" and patch_size == 1:
            raise ValueError("an overlapping kernel of 2 x patch_size - 1 is no larger than a patch at patch_size 1")
        if stem == "conv" and (patch_size == 1 or patch_size & (patch_size - 1)):
            raise ValueError(f"a conv stem halves the image, so patch_size must be 2, 4, 8, ...: not {patch_size}")
        return stem

    @field_validator("position_embedding")
    @classmethod
    def _waves_fit_the_width(cls, position_embedding: str, info: ValidationInfo) -> str:
        dim = info.data.get("dim", 4)
        if position_embedding == "sincos" and dim % 4:
            raise ValueError(f"sincos needs a dim that 4 divides (sine and cosine, two axes): not {dim}")
        return position_embedding

    @field_validator("pooling")
    @classmethod
    def _class_token_is_reached(cls, pooling: str) -> str:
        if pooling == "class_token" and cls.grid_only is not None:
            raise ValueError(unreached(cls.grid_only))
        return pooling

    @property
    def grid(self) -> int:
        """Tokens along one side of the image."""
        return self.image_size // self.patch_size

    @property
    def tokens(self) -> int:
        """Tokens that one image is cut into: `grid` x `grid`."""
        return self.grid**2

    @property
    def sequence(self) -> int:
        """Tokens that the blocks see: those of the image, and the class token if there is one."""
        return self.tokens + (self.pooling == "class_token")

    @property
    def batch_norm(self) -> bool:
        """Whether the model sees the batch: its norms are batch norms."""
        return self.norm == "batch"

    @abstractmethod
    def closed_form(self) -> Cost:
        """The exact cost, by arithmetic."""

    @abstractmethod
    def width_step(self, head_dim: int) -> int:
        """The distance between neighbouring widths that this backbone may take, at heads of `head_dim` features."""

    @classmethod
    @abstractmethod
    def widths(cls, dim: int, head_dim: int) -> dict[str, int]:
        """All options that a width sets: `dim` itself and what derives from it, in its natural proportions."""

    def at_width(self, dim: int, head_dim: int) -> Self:
        """The same backbone at another width, in its natural proportions."""
        return self.revised(self.widths(dim, head_dim))

    def with_fine(self, value: int) -> Self:
        """The same backbone with its fine knob set."""
        assert self.fine_knob is not None, f"{self.backbone} has no fine knob"
        return self.revised({self.fine_knob: value})

    def revised(self, changes: Mapping[str, object]) -> Self:
        """The same backbone with some options changed, validated anew."""
        return type(self).model_validate({**self.model_dump(), **changes})

    def smallest_step(self, step: int) -> int:
        """The smallest multiple of `step` that is also a width the position embedding allows."""
        return math.lcm(step, 4) if self.position_embedding == "sincos" else step


def unreached(mixer: str) -> str:
    """Why a class token and this token mixer do not go together."""
    return f"a class token needs a token mixer that carries information to it, and {mixer} mixes grid positions only"


def divisors(number: int) -> list[int]:
    """All divisors in rising order."""
    return [candidate for candidate in range(1, number + 1) if number % candidate == 0]


def listed(numbers: list[int]) -> str:
    """Numbers as a user reads them."""
    return ", ".join(map(str, numbers))
