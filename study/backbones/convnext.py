"""ConvNeXt at one resolution throughout: a ViT whose attention is a depthwise convolution.

Liu et al., "A ConvNet for the 2020s", CVPR 2022 (arXiv:2201.03545), section 3.3 (isotropic) and figure 4:

    z_0   = patch_embedding(image)
    z_l   = layer_scale * MLP(LN(depthwise(z_{l-1}))) + z_{l-1}
    logit = linear(LN(mean over positions of z_depth))

One residual spans the token and the channel mixer. The layer scale, one factor per feature that starts at 1e-6, is
always there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from study.backbones.base import Architecture, Backbone, Settings
from study.backbones.closed_form import Cost, Part, depthwise, mlp, norm
from study.backbones.depthwise_conv import DepthwiseConv2d
from study.backbones.head import GridHead, head_cost
from study.backbones.initialization import LAYER_SCALE, Distribution
from study.backbones.kernel_size import KernelPixels, KernelSize, natural_kernel
from study.backbones.layers import Mlp, grid_norm
from study.backbones.specification import BackboneSpec, option
from study.backbones.stem import grid_stem, stem_cost

MLP_RATIO = 4  # hidden width of the MLP in widths: figure 4's inverted bottleneck
WIDTH_STEP = 8  # there are no heads; multiples of eight keep vector units and tensor cores busy


def natural_mlp_dim(resolved: dict[str, Any]) -> int:
    """Four times the width."""
    return MLP_RATIO * int(resolved["dim"])


class ConvNeXtSpec(BackboneSpec):
    """Width `dim`, `depth` blocks, an odd `kernel_size` in tokens or its span in pixels, `mlp_dim` hidden features."""

    backbone: ClassVar[str] = "convnext"
    fine_knob: ClassVar[str | None] = "mlp_dim"
    grid_only: ClassVar[str | None] = "a depthwise convolution"

    kernel_pixels: KernelPixels = option(None)
    kernel_size: KernelSize = Field(default_factory=natural_kernel)
    mlp_dim: int = Field(default_factory=natural_mlp_dim, ge=1)

    def closed_form(self) -> Cost:
        """The exact cost, by arithmetic; the layer scale belongs to the channel mixer."""
        n, d = self.tokens, self.dim
        return Cost(
            {
                "stem": stem_cost(self, normed=False),
                "token_mixing": self.depth * (depthwise(self.grid, d, self.kernel_size) + norm(d)),
                "channel_mixing": self.depth * (mlp(n, d, self.mlp_dim) + Part(params=d)),
                "head": head_cost(self, normed=True),
            }
        )

    def width_step(self, head_dim: int) -> int:
        """Eight features."""
        return WIDTH_STEP

    @classmethod
    def widths(cls, dim: int, head_dim: int) -> dict[str, int]:
        """The paper's hidden width."""
        return {"dim": dim, "mlp_dim": MLP_RATIO * dim}


class ScaledMlp(nn.Module):
    """layer_scale * MLP(x) at each position: b d h w -> b d h w."""

    def __init__(self, spec: ConvNeXtSpec) -> None:
        super().__init__()
        self.mlp = Mlp(spec.dim, spec.mlp_dim, nonlinearity=spec.activation)
        self.layer_scale = nn.Parameter(torch.ones(spec.dim))

    def forward(self, grid: Tensor) -> Tensor:
        scaled: Tensor = self.layer_scale * self.mlp(grid.permute(0, 2, 3, 1))
        return scaled.permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """x + channel_mixing(token_mixing(x)): b d h w -> b d h w."""

    def __init__(self, spec: ConvNeXtSpec) -> None:
        super().__init__()
        convolution = DepthwiseConv2d(spec.dim, spec.kernel_size)
        self.token_mixing = nn.Sequential(OrderedDict(convolution=convolution, norm=grid_norm(spec.norm, spec.dim)))
        self.channel_mixing = ScaledMlp(spec)

    def forward(self, grid: Tensor) -> Tensor:
        mixed: Tensor = self.channel_mixing(self.token_mixing(grid))
        return grid + mixed


def convnext(spec: ConvNeXtSpec) -> Backbone:
    """The backbone that the specification describes: images b c h w -> logits b k."""
    blocks = [ConvNeXtBlock(spec) for _ in range(spec.depth)]
    return Backbone(spec, stem=grid_stem(spec, normed=False), blocks=blocks, head=GridHead(spec, normed=True))


def paper_initialization(module: nn.Module, name: str, parameter: nn.Parameter) -> Distribution:
    """Weights normal with 0.02 (appendix A.1; its truncation at +-2 is 100 standard deviations away), biases zero."""
    if name.endswith("layer_scale"):
        return Distribution("constant", LAYER_SCALE)
    if parameter.ndim > 1:
        return Distribution("normal", 0.02)
    return Distribution("constant", 1.0 if name.endswith("weight") and parameter.ndim == 1 else 0.0)  # norms: 1 and 0


IMAGENET: Settings = {
    "image_size": 224,
    "in_channels": 3,
    "num_classes": 1000,
    "patch_size": 16,
    "kernel_size": 7,
    "initialization": "paper",
}
PUBLISHED: Mapping[str, Settings] = {  # table 2: the sizes of ViT-S, B and L
    "convnext_isotropic_small": {**IMAGENET, "dim": 384, "depth": 18},
    "convnext_isotropic_base": {**IMAGENET, "dim": 768, "depth": 18},
    "convnext_isotropic_large": {**IMAGENET, "dim": 1024, "depth": 36},
}

ARCHITECTURE = Architecture(specification=ConvNeXtSpec, construct=convnext, paper=paper_initialization, published=PUBLISHED)
