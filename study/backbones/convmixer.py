"""ConvMixer: patches and depthwise convolutions, without attention.

Trockman and Kolter, "Patches are all you need?", TMLR 2023 (arXiv:2201.09792), section 2 and figure 3:

    z_0   = BN(gelu(patch_embedding(image)))
    z'_l  = BN(gelu(depthwise(z_{l-1}))) + z_{l-1}
    z_l   = BN(gelu(pointwise(z'_l)))
    logit = linear(mean over positions of z_depth)
"""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from study.backbones.body import Architecture, Backbone, GridHead, block
from study.backbones.closed_form import Cost, depthwise, linear, norm
from study.backbones.depthwise import DepthwiseConv2d
from study.backbones.layers import activation, grid_norm
from study.backbones.patch_embedding import PatchEmbedding, patch_embedding_cost
from study.backbones.specification import BackboneSpec


class ConvMixerSpec(BackboneSpec):
    """Width `dim`, `depth` blocks, and an odd `kernel_size` in tokens."""

    backbone: ClassVar[str] = "convmixer"

    kernel_size: int = Field(5, ge=1)

    @field_validator("kernel_size")
    @classmethod
    def _kernel_fits(cls, kernel_size: int, info: ValidationInfo) -> int:
        return fitting_kernel(kernel_size, info)

    def closed_form(self) -> Cost:
        """The exact cost, by arithmetic."""
        n, d = self.tokens, self.dim
        patches = patch_embedding_cost(n, self.in_channels, d, patch_size=self.patch_size)
        return Cost(
            {
                "stem": patches + norm(d),
                "token_mixing": self.depth * (depthwise(self.grid, d, self.kernel_size) + norm(d)),
                "channel_mixing": self.depth * (linear(n, d, d) + norm(d)),
                "head": linear(1, d, self.num_classes),
            }
        )

    def width_step(self, head_dim: int) -> int:
        """Any width will do: there are no heads."""
        return 1

    def widths(self, dim: int, head_dim: int) -> dict[str, int]:
        """Nothing else follows from the width."""
        return {"dim": dim}


def fitting_kernel(kernel_size: int, info: ValidationInfo) -> int:
    """A kernel with a centre, no wider than what can touch the grid from any position; ValueError otherwise."""
    if kernel_size % 2 == 0:
        raise ValueError("kernel_size must be odd, so that the kernel has a centre")
    if "image_size" in info.data and "patch_size" in info.data:
        grid = info.data["image_size"] // info.data["patch_size"]
        if kernel_size > 2 * grid:
            raise ValueError(
                f"kernel_size must be at most twice the token grid: {grid} x {grid} tokens allow {2 * grid - 1}"
            )
    return kernel_size


class DepthwiseMixing(nn.Module):
    """x + BN(gelu(depthwise(x))): b d h w -> b d h w."""

    def __init__(self, spec: ConvMixerSpec) -> None:
        super().__init__()
        self.depthwise = DepthwiseConv2d(spec.dim, spec.kernel_size)
        self.activation = activation("gelu")
        self.norm = grid_norm("batch", spec.dim)

    def forward(self, grid: Tensor) -> Tensor:
        mixed: Tensor = self.norm(self.activation(self.depthwise(grid)))
        return mixed + grid


def pointwise_mixing(spec: ConvMixerSpec) -> nn.Module:
    """BN(gelu(pointwise(x))): b d h w -> b d h w."""
    pointwise = nn.Conv2d(spec.dim, spec.dim, kernel_size=1)
    layers = OrderedDict(pointwise=pointwise, activation=activation("gelu"), norm=grid_norm("batch", spec.dim))
    return nn.Sequential(layers)


def stem(spec: ConvMixerSpec) -> nn.Module:
    """BN(gelu(patch_embedding(x))): b c (h p) (w p) -> b d h w."""
    patches = PatchEmbedding(spec.in_channels, spec.dim, patch_size=spec.patch_size)
    layers = OrderedDict(patch_embedding=patches, activation=activation("gelu"), norm=grid_norm("batch", spec.dim))
    return nn.Sequential(layers)


def convmixer(spec: ConvMixerSpec) -> Backbone:
    """The backbone that the specification describes: images b c h w -> logits b k."""
    blocks = [
        block(token_mixing=DepthwiseMixing(spec), channel_mixing=pointwise_mixing(spec)) for _ in range(spec.depth)
    ]
    return Backbone(spec, stem=stem(spec), blocks=blocks, head=GridHead(spec))


ARCHITECTURE = Architecture(specification=ConvMixerSpec, construct=convmixer)
