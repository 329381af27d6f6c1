"""ConvNeXt at one resolution throughout: a ViT whose attention is a depthwise convolution.

Liu et al., "A ConvNet for the 2020s", CVPR 2022 (arXiv:2201.03545), section 3.3 (isotropic) and figure 4:

    z_0   = patch_embedding(image)
    z_l   = layer_scale * MLP(LN(depthwise(z_{l-1}))) + z_{l-1}
    logit = linear(LN(mean over positions of z_depth))

One residual spans the token and the channel mixer. The layer scale, one factor per feature, is always there and starts at 1e-6
unless `layer_scale` says otherwise.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from study.backbones.base import Architecture, Backbone, GridHead, head_cost
from study.backbones.closed_form import Cost, PartCost, depthwise_cost, mlp_cost, norm_cost
from study.backbones.initialization import Distribution, common_paper_distribution
from study.backbones.kernel_size import KernelPixels, KernelSize, default_kernel_size
from study.backbones.layers import MLP_RATIO, Mlp, ScaledBranch, build_grid_norm, default_mlp_dim
from study.backbones.specification import IMAGENET, BackboneSpec, Settings, neutral_option
from study.backbones.stem import build_grid_stem, stem_cost
from study.backbones.token_mixers import DepthwiseConv2d

_LAYER_SCALE = 1e-6  # table 5


class ConvNeXtSpec(BackboneSpec):
    """Width `dim`, `depth` blocks, an odd `kernel_size` in tokens or its span in pixels, `mlp_dim` hidden features."""

    backbone: ClassVar[str] = "convnext"
    width_multiple: ClassVar[int | None] = 8  # keeps vector units and tensor cores busy
    fine_width_option: ClassVar[str | None] = "mlp_dim"
    grid_mixer: ClassVar[str | None] = "a depthwise convolution"
    has_mlp: ClassVar[bool] = True

    kernel_pixels: KernelPixels = neutral_option(None)
    kernel_size: KernelSize = Field(default_factory=default_kernel_size)
    mlp_dim: int = Field(default_factory=default_mlp_dim, ge=1)

    def closed_form(self) -> Cost:
        """The exact cost, by arithmetic; the layer scale belongs to the channel mixer."""
        n, d = self.tokens, self.dim
        return Cost(
            {
                "stem": stem_cost(self, normed=False),
                "token_mixing": self.depth * (depthwise_cost(self.grid, d, self.kernel_size) + norm_cost(d, self.norm)),
                "channel_mixing": self.depth * (mlp_cost(n, d, self.mlp_dim) + PartCost(params=d)),
                "head": head_cost(self, normed=True),
            }
        )

    @classmethod
    def width_options(cls, dim: int, head_dim: int) -> dict[str, int]:
        return {"dim": dim, "mlp_dim": MLP_RATIO * dim}


_VARIANTS: Mapping[str, Settings] = {  # table 2: the sizes of ViT-S, B and L
    f"convnext_isotropic_{size}": {**IMAGENET, "dim": dim, "depth": depth, "patch_size": 16, "kernel_size": 7}
    for size, dim, depth in (("small", 384, 18), ("base", 768, 18), ("large", 1024, 36))
}


class ScaledMlp(ScaledBranch):
    """layer_scale * MLP(x) at each position: b d h w -> b d h w."""

    layer_scale: nn.Parameter

    def __init__(self, spec: ConvNeXtSpec) -> None:
        super().__init__(spec.dim, _LAYER_SCALE if spec.layer_scale is None else spec.layer_scale)
        self.mlp = Mlp(spec.dim, spec.mlp_dim, activation=spec.activation)

    def forward(self, grid: Tensor) -> Tensor:
        return (self.layer_scale * self.mlp(grid.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """x + channel_mixing(token_mixing(x)): b d h w -> b d h w."""

    def __init__(self, spec: ConvNeXtSpec) -> None:
        super().__init__()
        convolution = DepthwiseConv2d(spec.dim, spec.kernel_size)
        self.token_mixing = nn.Sequential(OrderedDict(convolution=convolution, norm=build_grid_norm(spec.norm, spec.dim)))
        self.channel_mixing = ScaledMlp(spec)

    def forward(self, grid: Tensor) -> Tensor:
        return grid + self.channel_mixing(self.token_mixing(grid))


def build_convnext(spec: ConvNeXtSpec) -> Backbone:
    blocks = [ConvNeXtBlock(spec) for _ in range(spec.depth)]
    return Backbone(spec, stem=build_grid_stem(spec, normed=False), blocks=blocks, head=GridHead(spec, normed=True))


def _paper_distribution(module: nn.Module, name: str, parameter: nn.Parameter) -> Distribution:
    """Weights normal with 0.02 (appendix A.1; its truncation at +-2 is 100 standard deviations away), biases zero."""
    if parameter.ndim > 1:
        return Distribution("normal", 0.02)
    return common_paper_distribution(name, parameter)


CONVNEXT = Architecture(
    specification=ConvNeXtSpec, construct=build_convnext, paper_distribution=_paper_distribution, variants=_VARIANTS
)
