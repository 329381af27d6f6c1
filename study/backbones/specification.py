"""What a backbone is, before anything is built: a frozen, fully resolved set of options, and what they imply.

A specification holds integers and words only. Options that follow from others (a hidden width of four times the
width) are filled in when it is made, so that its dump names a model completely and can be part of a run's identity.
Each backbone's file derives its own; everything here and there is arithmetic and needs no tensors.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from study.backbones.closed_form import Cost

Initialisation = Literal["matched", "paper"]


class BackboneSpec(BaseModel):
    """The options every backbone takes; a subclass adds its own, its closed-form cost and its rules of width.

    Raises pydantic's ValidationError, one entry per option that breaks a rule, with the rule as its text.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", validate_default=True)

    backbone: ClassVar[str]  # the name in the registry
    fine_knob: ClassVar[str | None] = None  # the option that trims a budget between two widths

    image_size: int = Field(ge=1)  # pixels; images are square
    in_channels: int = Field(ge=1)
    num_classes: int = Field(ge=1)
    patch_size: int = Field(ge=1)  # pixels
    dim: int = Field(ge=1)  # the width: features per token
    depth: int = Field(ge=1)  # blocks
    initialisation: Initialisation = "matched"

    @field_validator("patch_size")
    @classmethod
    def _patches_tile_the_image(cls, patch_size: int, info: ValidationInfo) -> int:
        image_size = info.data.get("image_size", patch_size)
        if image_size % patch_size:
            raise ValueError(
                f"patch_size must divide image_size: {image_size} divides by {listed(divisors(image_size))}"
            )
        return patch_size

    @property
    def grid(self) -> int:
        """Tokens along one side of the image."""
        return self.image_size // self.patch_size

    @property
    def tokens(self) -> int:
        """Tokens that one image is cut into: `grid` x `grid`."""
        return self.grid**2

    @abstractmethod
    def closed_form(self) -> Cost:
        """The exact cost, by arithmetic."""

    @abstractmethod
    def width_step(self, head_dim: int) -> int:
        """The distance between neighbouring widths that this backbone may take, at heads of `head_dim` features."""

    @abstractmethod
    def widths(self, dim: int, head_dim: int) -> dict[str, int]:
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


def divisors(number: int) -> list[int]:
    """All divisors in rising order."""
    return [candidate for candidate in range(1, number + 1) if number % candidate == 0]


def listed(numbers: list[int]) -> str:
    """Numbers as a user reads them."""
    return ", ".join(map(str, numbers))
