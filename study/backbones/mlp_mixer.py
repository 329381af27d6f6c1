"""MLP-Mixer: patches and an MLP over positions.

Tolstikhin et al., "MLP-Mixer: an all-MLP architecture for vision", NeurIPS 2021 (arXiv:2105.01601), equation 1:

    z_0   = patch_embedding(image)
    z'_l  = token MLP(LN(z_{l-1})) over positions, the same for every feature, + z_{l-1}
    z_l   = channel MLP(LN(z'_l)) over features, the same for every position, + z'_l
    logit = linear(mean over tokens of LN(z_depth))
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from study.backbones.base import Architecture, Backbone, PreNormResidual, Settings, block
from study.backbones.closed_form import Cost, mlp, norm
from study.backbones.head import SequenceHead, head_cost
from study.backbones.initialization import POSITIONS_STD, Distribution, fan_in
from study.backbones.layers import Mlp, sequence_norm
from study.backbones.specification import Activation, BackboneSpec
from study.backbones.stem import SequenceStem, stem_cost

CHANNEL_RATIO = 4  # hidden widths in widths: the paper's table 1
WIDTH_STEP = 8  # there are no heads; multiples of eight keep vector units and tensor cores busy


def natural_token_dim(resolved: dict[str, Any]) -> int:
    """Half the width (table 1), at least one."""
    return max(1, int(resolved["dim"]) // 2)


def natural_channel_dim(resolved: dict[str, Any]) -> int:
    """Four times the width."""
    return CHANNEL_RATIO * int(resolved["dim"])


class MlpMixerSpec(BackboneSpec):
    """Width `dim`, `depth` blocks, `token_dim` hidden units over positions and `channel_dim` over features."""

    backbone: ClassVar[str] = "mlp_mixer"
    fine_knob: ClassVar[str | None] = "channel_dim"

    token_dim: int = Field(default_factory=natural_token_dim, ge=1)
    channel_dim: int = Field(default_factory=natural_channel_dim, ge=1)

    def closed_form(self) -> Cost:
        """The exact cost, by arithmetic; each of the d features is a position of the token MLP."""
        n, d = self.sequence, self.dim
        return Cost(
            {
                "stem": stem_cost(self, normed=False),
                "token_mixing": self.depth * (norm(d) + mlp(d, n, self.token_dim)),
                "channel_mixing": self.depth * (norm(d) + mlp(n, d, self.channel_dim)),
                "head": head_cost(self, normed=True),
            }
        )

    def width_step(self, head_dim: int) -> int:
        """Eight features."""
        return WIDTH_STEP

    @classmethod
    def widths(cls, dim: int, head_dim: int) -> dict[str, int]:
        """Both MLPs in the paper's proportions."""
        return {"dim": dim, "token_dim": max(1, dim // 2), "channel_dim": CHANNEL_RATIO * dim}


class TokenMlp(nn.Module):
    """An MLP over `sequence` positions, the same for every feature: b n d -> b n d."""

    def __init__(self, sequence: int, hidden: int, *, nonlinearity: Activation) -> None:
        super().__init__()
        self.mlp = Mlp(sequence, hidden, nonlinearity=nonlinearity)

    def forward(self, tokens: Tensor) -> Tensor:
        mixed: Tensor = self.mlp(tokens.transpose(1, 2))
        return mixed.transpose(1, 2)


def mlp_mixer(spec: MlpMixerSpec) -> Backbone:
    """The backbone that the specification describes: images b c h w -> logits b k."""
    blocks = [
        block(
            token_mixing=PreNormResidual(
                sequence_norm(spec.norm, spec.dim), TokenMlp(spec.sequence, spec.token_dim, nonlinearity=spec.activation)
            ),
            channel_mixing=PreNormResidual(
                sequence_norm(spec.norm, spec.dim), Mlp(spec.dim, spec.channel_dim, nonlinearity=spec.activation)
            ),
        )
        for _ in range(spec.depth)
    ]
    return Backbone(spec, stem=SequenceStem(spec), blocks=blocks, head=SequenceHead(spec))


def paper_initialization(module: nn.Module, name: str, parameter: nn.Parameter) -> Distribution:
    """The authors' code (appendix E; google-research/vision_transformer, vit_jax/models_mixer.py) keeps flax's defaults.

    Weights are truncated normals with variance 1 / fan-in, biases zero, norms one and zero; the head is zero.
    """
    if name.endswith("positions.table"):  # not in the paper
        return Distribution("normal", POSITIONS_STD)
    if parameter.ndim > 1 and name.endswith("weight") and not name.startswith("head"):
        return Distribution("truncated_normal", 1 / math.sqrt(fan_in(parameter)))
    return Distribution("constant", 1.0 if name.endswith("weight") and parameter.ndim == 1 else 0.0)  # norms: 1 and 0


SIZES: Mapping[str, Settings] = {  # the paper's table 1
    "s": {"dim": 512, "depth": 8},
    "b": {"dim": 768, "depth": 12},
    "l": {"dim": 1024, "depth": 24},
}
IMAGENET: Settings = {"image_size": 224, "in_channels": 3, "num_classes": 1000, "initialization": "paper"}
PUBLISHED: Mapping[str, Settings] = {  # weights: timm's mixer_<size><p>_224, from google-research/vision_transformer
    f"mixer_{size}{patch_size}": {**IMAGENET, **settings, "patch_size": patch_size}
    for size, settings in SIZES.items()
    for patch_size in (16, 32)
}

TIMM_NAMES = (
    ("stem.patch_embedding.projection", "stem.proj"),
    ("blocks.*.token_mixing.norm", "blocks.*.norm1"),
    ("blocks.*.token_mixing.mixer.mlp.expand", "blocks.*.mlp_tokens.fc1"),
    ("blocks.*.token_mixing.mixer.mlp.reduce", "blocks.*.mlp_tokens.fc2"),
    ("blocks.*.channel_mixing.norm", "blocks.*.norm2"),
    ("blocks.*.channel_mixing.mixer.expand", "blocks.*.mlp_channels.fc1"),
    ("blocks.*.channel_mixing.mixer.reduce", "blocks.*.mlp_channels.fc2"),
    ("head.norm", "norm"),
    ("head.classifier", "head"),
)

ARCHITECTURE = Architecture(
    specification=MlpMixerSpec, construct=mlp_mixer, paper=paper_initialization, published=PUBLISHED, timm_names=TIMM_NAMES
)
