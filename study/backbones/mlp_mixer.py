"""MLP-Mixer: patches and an MLP over positions.

Tolstikhin et al., "MLP-Mixer: an all-MLP architecture for vision", NeurIPS 2021 (arXiv:2105.01601), equation 1:

    z_0   = patch_embedding(image)
    z'_l  = token MLP(LN(z_{l-1})) over positions, the same for every feature, + z_{l-1}
    z_l   = channel MLP(LN(z'_l)) over features, the same for every position, + z'_l
    logit = linear(mean over tokens of LN(z_depth))
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from study.backbones.body import Architecture, Backbone, PreNormResidual, SequenceHead, SequenceStem, block
from study.backbones.closed_form import Cost, linear, mlp, norm
from study.backbones.layers import Activation, Mlp, sequence_norm
from study.backbones.patch_embedding import PatchEmbedding, patch_embedding_cost
from study.backbones.specification import BackboneSpec

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
        n, d = self.tokens, self.dim
        return Cost(
            {
                "stem": patch_embedding_cost(n, self.in_channels, d, patch_size=self.patch_size),
                "token_mixing": self.depth * (norm(d) + mlp(d, n, self.token_dim)),
                "channel_mixing": self.depth * (norm(d) + mlp(n, d, self.channel_dim)),
                "head": norm(d) + linear(1, d, self.num_classes),
            }
        )

    def width_step(self, head_dim: int) -> int:
        """Eight features."""
        return WIDTH_STEP

    def widths(self, dim: int, head_dim: int) -> dict[str, int]:
        """Both MLPs in the paper's proportions."""
        return {"dim": dim, "token_dim": max(1, dim // 2), "channel_dim": CHANNEL_RATIO * dim}


class TokenMlp(nn.Module):
    """An MLP over positions, the same for every feature: b n d -> b n d."""

    def __init__(self, tokens: int, hidden: int, *, nonlinearity: Activation) -> None:
        super().__init__()
        self.mlp = Mlp(tokens, hidden, nonlinearity=nonlinearity)

    def forward(self, tokens: Tensor) -> Tensor:
        mixed: Tensor = self.mlp(tokens.transpose(1, 2))
        return mixed.transpose(1, 2)


def mlp_mixer(spec: MlpMixerSpec) -> Backbone:
    """The backbone that the specification describes: images b c h w -> logits b k."""
    patches = PatchEmbedding(spec.in_channels, spec.dim, patch_size=spec.patch_size)
    stem = SequenceStem(spec, patch_embedding=patches, class_token=False, positions=False)
    blocks = [
        block(
            token_mixing=PreNormResidual(
                sequence_norm("layer", spec.dim), TokenMlp(spec.tokens, spec.token_dim, nonlinearity="gelu")
            ),
            channel_mixing=PreNormResidual(
                sequence_norm("layer", spec.dim), Mlp(spec.dim, spec.channel_dim, nonlinearity="gelu")
            ),
        )
        for _ in range(spec.depth)
    ]
    return Backbone(
        spec,
        stem=stem,
        blocks=blocks,
        head=SequenceHead(spec, norm=sequence_norm("layer", spec.dim), class_token=False),
    )


ARCHITECTURE = Architecture(specification=MlpMixerSpec, construct=mlp_mixer)
