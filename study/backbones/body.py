"""The body that all backbones share: stem, blocks, head; and the stem and heads that more than one of them uses.

A block consists of `token_mixing` and `channel_mixing`; with `stem` and `head` these are the four parts that every
parameter and every multiply-accumulate belongs to. A parameter's part is read off its name.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from study.backbones.closed_form import PARTS
from study.backbones.specification import BackboneSpec


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
    """What the registry knows of a backbone: the specification's class, and what makes the module from one."""

    specification: type[BackboneSpec]
    construct: Callable[[Any], Backbone]  # takes the specification's own class


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


class SequenceStem(nn.Module):
    """Patches as a sequence, a class token in front if wanted, plus learned positions: b c h w -> b n d."""

    def __init__(self, spec: BackboneSpec, *, patch_embedding: nn.Module, class_token: bool, positions: bool) -> None:
        super().__init__()
        length = spec.tokens + class_token
        self.patch_embedding = patch_embedding
        self.class_token = nn.Parameter(torch.zeros(1, 1, spec.dim)) if class_token else None
        self.positions = nn.Parameter(torch.zeros(1, length, spec.dim)) if positions else None

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.patch_embedding(images).flatten(2).transpose(1, 2)
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], dim=1)
        return tokens if self.positions is None else tokens + self.positions


class SequenceHead(nn.Module):
    """Norm, then the mean over tokens or the class token, then a linear classifier: b n d -> b k."""

    def __init__(self, spec: BackboneSpec, *, norm: nn.Module, class_token: bool) -> None:
        super().__init__()
        self.reads_class_token = class_token
        self.norm = norm
        self.classifier = nn.Linear(spec.dim, spec.num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        normed: Tensor = self.norm(tokens)
        pooled = normed[:, 0] if self.reads_class_token else normed.mean(dim=1)
        logits: Tensor = self.classifier(pooled)
        return logits


class GridHead(nn.Module):
    """The mean over positions, then a linear classifier: b d h w -> b k."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.classifier = nn.Linear(spec.dim, spec.num_classes)

    def forward(self, grid: Tensor) -> Tensor:
        logits: Tensor = self.classifier(grid.mean(dim=(2, 3)))
        return logits
