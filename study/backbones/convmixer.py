"""ConvMixer: patches and depthwise convolutions, without attention.

Trockman and Kolter, "Patches are all you need?", TMLR 2023 (arXiv:2201.09792), section 2:

    z_0   = BN(gelu(patch_embedding(image)))
    z'_l  = BN(gelu(depthwise(z_{l-1}))) + z_{l-1}
    z_l   = BN(gelu(pointwise(z'_l)))
    logit = linear(mean over positions of z_depth)

The authors' own ablation on CIFAR-10 moves the residual, exchanges the norm and exchanges the activation: options here.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from study.backbones.base import Architecture, Backbone, GridHead, build_block, head_cost
from study.backbones.closed_form import Cost, PartCost, depthwise_cost, linear_cost, norm_cost
from study.backbones.initialization import Distribution, common_paper_distribution, fan_in
from study.backbones.kernel_size import KernelPixels, KernelSize, default_kernel_size
from study.backbones.layers import ScaledBranch, build_activation, build_grid_norm
from study.backbones.specification import IMAGENET, BackboneSpec, Norm, Settings, neutral_option
from study.backbones.stem import build_grid_stem, stem_cost
from study.backbones.token_mixers import DepthwiseConv2d


class ConvMixerSpec(BackboneSpec):
    """Width `dim`, `depth` blocks, and an odd `kernel_size` in tokens, or its span in pixels."""

    backbone: ClassVar[str] = "convmixer"
    width_multiple: ClassVar[int | None] = 1
    grid_mixer: ClassVar[str | None] = "a depthwise convolution"

    norm: Norm = neutral_option("batch")
    kernel_pixels: KernelPixels = neutral_option(None)
    kernel_size: KernelSize = Field(default_factory=default_kernel_size)
    residual: Literal["depthwise", "pointwise", "both", "none"] = neutral_option("depthwise")  # the layers it spans

    @field_validator("residual")
    @classmethod
    def _validate_residual(cls, residual: str, info: ValidationInfo) -> str:
        if residual == "none" and info.data.get("layer_scale") is not None:
            raise ValueError("layer_scale multiplies what a residual adds, so it needs one: depthwise, pointwise, both")
        return residual

    def closed_form(self) -> Cost:
        n, d, norm = self.tokens, self.dim, norm_cost(self.dim, self.norm)
        scale = PartCost(params=0 if self.layer_scale is None else d)
        scales = {part: int(self.residual in (part, "both")) * scale for part in ("depthwise", "pointwise")}
        return Cost(
            {
                "stem": stem_cost(self, normed=True),
                "token_mixing": self.depth * (depthwise_cost(self.grid, d, self.kernel_size) + norm + scales["depthwise"]),
                "channel_mixing": self.depth * (linear_cost(n, d, d) + norm + scales["pointwise"]),
                "head": head_cost(self, normed=False),
            }
        )

    @classmethod
    def width_options(cls, dim: int, head_dim: int) -> dict[str, int]:
        return {"dim": dim}


_VARIANTS: Mapping[str, Settings] = {
    # the paper's table 1; weights at github.com/locuslab/convmixer
    "convmixer_1536_20": {**IMAGENET, "dim": 1536, "depth": 20, "patch_size": 7, "kernel_size": 9},
    "convmixer_768_32": {**IMAGENET, "dim": 768, "depth": 32, "patch_size": 7, "kernel_size": 7, "activation": "relu"},
    "convmixer_1024_20_ks9_p14": {**IMAGENET, "dim": 1024, "depth": 20, "patch_size": 14, "kernel_size": 9},
    # github.com/locuslab/convmixer-cifar10, whose default is k=5, with the kernel of 7 that a review of it trained
    "convmixer_256_8": {
        **IMAGENET,
        "image_size": 32,
        "num_classes": 10,
        "dim": 256,
        "depth": 8,
        "patch_size": 2,
        "kernel_size": 7,
    },
}


class Residual(ScaledBranch):
    """x + inner(x), or x + layer_scale * inner(x): b d h w -> b d h w."""

    def __init__(self, spec: ConvMixerSpec, inner: nn.Module) -> None:
        super().__init__(spec.dim, spec.layer_scale)
        self.inner = inner

    def forward(self, features: Tensor) -> Tensor:
        added = self.inner(features)
        return (added if self.layer_scale is None else self.layer_scale[:, None, None] * added) + features


def _build_mixing(spec: ConvMixerSpec, convolution: nn.Module, *, residual: bool) -> nn.Module:
    """norm(activation(convolution(x))), and if `residual` x added: b d h w -> b d h w."""
    layers = OrderedDict(
        convolution=convolution, activation=build_activation(spec.activation), norm=build_grid_norm(spec.norm, spec.dim)
    )
    return Residual(spec, nn.Sequential(layers)) if residual else nn.Sequential(layers)


def build_convmixer(spec: ConvMixerSpec) -> Backbone:
    d, residual = spec.dim, spec.residual
    blocks = [
        build_block(
            token_mixing=_build_mixing(spec, DepthwiseConv2d(d, spec.kernel_size), residual=residual in ("depthwise", "both")),
            channel_mixing=_build_mixing(spec, nn.Conv2d(d, d, kernel_size=1), residual=residual in ("pointwise", "both")),
        )
        for _ in range(spec.depth)
    ]
    return Backbone(spec, stem=build_grid_stem(spec, normed=True), blocks=blocks, head=GridHead(spec, normed=False))


def _paper_distribution(module: nn.Module, name: str, parameter: nn.Parameter) -> Distribution:
    """The authors' code (locuslab/convmixer) keeps torch's defaults: uniform within 1 / sqrt(fan-in), norms 1 and 0."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        return Distribution("uniform", 1 / math.sqrt(fan_in(module.weight)))
    return common_paper_distribution(name, parameter)


CONVMIXER = Architecture(
    specification=ConvMixerSpec,
    construct=build_convmixer,
    paper_distribution=_paper_distribution,
    variants=_VARIANTS,
    timm_names=(
        ("stem.patch_embedding.projection", "stem.0"),
        ("stem.norm", "stem.2"),
        ("blocks.*.token_mixing.inner.convolution", "blocks.*.0.fn.0"),
        ("blocks.*.token_mixing.inner.norm", "blocks.*.0.fn.2"),
        ("blocks.*.channel_mixing.convolution", "blocks.*.1"),
        ("blocks.*.channel_mixing.norm", "blocks.*.3"),
        ("head.classifier", "head"),
    ),
)
