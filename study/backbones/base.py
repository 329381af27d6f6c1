"""The body that all backbones share: stem, blocks, head.

A block consists of `token_mixing` and `channel_mixing`; with `stem` and `head` these are the four parts that every
parameter and every multiply-accumulate belongs to. A parameter's part is read off its name.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from study.backbones.closed_form import PARTS
from study.backbones.initialization import Rule
from study.backbones.specification import BackboneSpec

Settings = Mapping[str, str | int]


class Backbone(nn.Module):
    """An image classifier: float images b c h w -> logits b k. `spec` says what it is."""

    def __init__(self, spec: BackboneSpec, *, stem: nn.Module, blocks: Sequence[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.stem = stem
        self.blocks = nn.Sequential(*blocks)
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.blocks(self.stem(images)))
        return logits

    def parameter_part(self, name: str) -> str:
        """The part that a parameter or module belongs to, by its name: the first word that is a part's."""
        return next(word for word in name.split(".") if word in PARTS)


@dataclass(frozen=True)
class Architecture:
    """What the registry knows of a backbone; its file ends with one.

    `published` holds the settings of published variants by name, `paper` the distributions that their papers draw
    weights from, and `timm_names` pairs our module names with timm's, `*` standing for a block's number.
    """

    specification: type[BackboneSpec]
    construct: Callable[[Any], Backbone]  # takes the specification's own class
    paper: Rule | None = None
    published: Mapping[str, Settings] = field(default_factory=dict)
    timm_names: Sequence[tuple[str, str]] = ()


def block(*, token_mixing: nn.Module, channel_mixing: nn.Module) -> nn.Sequential:
    """One block: first over the tokens, then over the features."""
    return nn.Sequential(OrderedDict(token_mixing=token_mixing, channel_mixing=channel_mixing))


class PreNormResidual(nn.Module):
    """x + mixer(norm(x)), the sub-layer of ViT, MLP-Mixer and MetaFormer."""

    def __init__(self, norm: nn.Module, mixer: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.mixer = mixer

    def forward(self, tokens: Tensor) -> Tensor:
        mixed: Tensor = self.mixer(self.norm(tokens))
        return tokens + mixed
