"""A plug-in: a token mixer, a backbone from timm and a data set from arrays, for examples/plugin/sweep.yaml."""

from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from pydantic import model_validator
from torch import Tensor, nn

from study.backbones import BACKBONES
from study.backbones.base import Architecture, Backbone, WholeBackbone
from study.backbones.closed_form import PartCost, linear_cost
from study.backbones.specification import BackboneSpec, Initialization, SequenceSpec, neutral_option
from study.backbones.token_mixers import TOKEN_MIXERS, TokenMixer
from study.data.array_dataset import ArrayDataset, LabelledImages
from study.data.datasets import DATASETS
from study.data.images import Pixels
from study.data.stratified_order import Int64Array
from study.data.torchvision_schema import declare_missing_operators


class MaxMixing(nn.Module):
    """Each token gets a linear map of the largest value of each feature over all tokens: b n d -> b n d."""

    def __init__(self, spec: SequenceSpec) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.dim, spec.dim)

    def forward(self, tokens: Tensor) -> Tensor:
        mixed: Tensor = self.linear(tokens.amax(dim=1, keepdim=True))
        return mixed.expand_as(tokens)


def max_mixing_cost(spec: SequenceSpec) -> PartCost:
    return linear_cost(1, spec.dim, spec.dim)


TOKEN_MIXERS.register("max", TokenMixer(construct=MaxMixing, cost=max_mixing_cost, is_global=True))


class TimmVitSpec(BackboneSpec):
    """timm's ViT of width `dim`. Its cost is counted by a trace, and its width is solved over such counts."""

    backbone: ClassVar[str] = "timm_vit"
    initialization: Initialization = neutral_option("own")  # timm's, from the run's seed
    heads: int = 2

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"heads must divide dim ({self.dim})")
        return self

    @classmethod
    def width_options(cls, dim: int, head_dim: int) -> dict[str, int]:
        return {"dim": dim, "heads": dim // head_dim}


def build_timm_vit(spec: TimmVitSpec) -> Backbone:
    declare_missing_operators()  # of a torchvision whose compiled part is missing, which timm imports
    import timm

    classifier = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=spec.image_size,
        in_chans=spec.in_channels,
        num_classes=spec.num_classes,
        patch_size=spec.patch_size,
        embed_dim=spec.dim,
        depth=spec.depth,
        num_heads=spec.heads,
    )
    return WholeBackbone(spec, classifier)


BACKBONES.register("timm_vit", Architecture(specification=TimmVitSpec, construct=build_timm_vit))


def draw_stripes(root: Path) -> LabelledImages:
    """Noisy images of horizontal or vertical stripes; a real reader would load arrays from `root`, such as `np.load`."""
    generator = np.random.default_rng(0)

    def draw(count: int) -> tuple[Pixels, Int64Array]:
        labels = np.arange(count) % 2
        stripes = np.where(np.arange(8) % 4 < 2, 160, 60)
        images = np.where(labels[:, None, None] == 0, stripes[None, :, None], stripes[None, None, :])
        return np.clip(images + generator.normal(0, 40, (count, 8, 8)), 0, 255).astype(np.uint8), labels.astype(np.int64)

    return LabelledImages(train=draw(400), test=draw(100), class_names=("horizontal", "vertical"))


DATASETS.register("stripes", ArrayDataset(draw_stripes))
