"""MLP-Mixer: patches and an MLP over positions.

Tolstikhin et al., "MLP-Mixer: an all-MLP architecture for vision", NeurIPS 2021 (arXiv:2105.01601), equation 1:

    z_0   = patch_embedding(image)
    z'_l  = token MLP(LN(z_{l-1})) over positions, the same for every feature, + z_{l-1}
    z_l   = channel MLP(LN(z'_l)) over features, the same for every position, + z'_l
    logit = linear(mean over tokens of LN(z_depth))
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import nn

from study.backbones.base import Architecture, Backbone, build_pre_norm_backbone, pre_norm_cost
from study.backbones.closed_form import Cost, mlp_cost
from study.backbones.initialization import Distribution, common_paper_distribution, fan_in
from study.backbones.layers import MLP_RATIO, default_mlp_dim
from study.backbones.specification import IMAGENET, SequenceSpec, Settings
from study.backbones.token_mixers import TokenMlp


def default_token_dim(resolved: dict[str, Any]) -> int:
    """Half the width (table 1), at least one."""
    return max(1, int(resolved["dim"]) // 2)


class MlpMixerSpec(SequenceSpec):
    """Width `dim`, `depth` blocks, `token_dim` hidden units over positions and `channel_dim` over features."""

    backbone: ClassVar[str] = "mlp_mixer"
    width_multiple: ClassVar[int | None] = 8  # keeps vector units and tensor cores busy
    fine_width_option: ClassVar[str | None] = "channel_dim"

    token_dim: int = Field(default_factory=default_token_dim, ge=1)
    channel_dim: int = Field(default_factory=default_mlp_dim, ge=1)

    def closed_form(self) -> Cost:
        """The exact cost, by arithmetic; each of the d features is a position of the token MLP."""
        mixers = self.depth * mlp_cost(self.dim, self.sequence, self.token_dim, self.bias)
        return pre_norm_cost(self, token_mixers=mixers, mlp_dim=self.channel_dim)

    @classmethod
    def width_options(cls, dim: int, head_dim: int) -> dict[str, int]:
        return {"dim": dim, "token_dim": default_token_dim({"dim": dim}), "channel_dim": MLP_RATIO * dim}


_VARIANTS: Mapping[str, Settings] = {  # table 1; weights: timm's mixer_<size><p>_224, from google-research/vision_transformer
    f"mixer_{size}{patch_size}": {**IMAGENET, "dim": dim, "depth": depth, "patch_size": patch_size}
    for size, dim, depth in (("s", 512, 8), ("b", 768, 12), ("l", 1024, 24))
    for patch_size in (16, 32)
}


def build_mlp_mixer(spec: MlpMixerSpec) -> Backbone:
    mixers = [TokenMlp(spec, spec.token_dim) for _ in range(spec.depth)]
    return build_pre_norm_backbone(spec, token_mixers=mixers, mlp_dim=spec.channel_dim)


def _paper_distribution(module: nn.Module, name: str, parameter: nn.Parameter) -> Distribution:
    """The authors' code (appendix E; google-research/vision_transformer, vit_jax/models_mixer.py) keeps flax's defaults.

    Weights are truncated normals with variance 1 / fan-in, biases zero, norms one and zero; the head is zero.
    """
    if parameter.ndim > 1 and name.endswith("weight") and not name.startswith("head"):
        return Distribution("truncated_normal", 1 / math.sqrt(fan_in(parameter)))
    return common_paper_distribution(name, parameter)


MLP_MIXER = Architecture(
    specification=MlpMixerSpec,
    construct=build_mlp_mixer,
    paper_distribution=_paper_distribution,
    variants=_VARIANTS,
    timm_names=(
        ("stem.patch_embedding.projection", "stem.proj"),
        ("blocks.*.token_mixing.norm", "blocks.*.norm1"),
        ("blocks.*.token_mixing.mixer.mlp.expand", "blocks.*.mlp_tokens.fc1"),
        ("blocks.*.token_mixing.mixer.mlp.reduce", "blocks.*.mlp_tokens.fc2"),
        ("blocks.*.channel_mixing.norm", "blocks.*.norm2"),
        ("blocks.*.channel_mixing.mixer.expand", "blocks.*.mlp_channels.fc1"),
        ("blocks.*.channel_mixing.mixer.reduce", "blocks.*.mlp_channels.fc2"),
        ("head.norm", "norm"),
        ("head.classifier", "head"),
    ),
)
