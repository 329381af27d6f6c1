"""From a picture's file to a model's input, as published figures were measured, and as images are prepared here.

Published evaluation (timm's `transforms_imagenet_eval`, torchvision's Resize and CenterCrop on Pillow images): the shorter
side is resized to floor(image_size / crop) with antialiasing, and the centre is cut out. Here the centred square is cut
out first and resized to image_size (`study.data.images`): `crop` None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from study.data.images import Pixels, decoded

Interpolation = Literal["bicubic", "bilinear"]
RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a picture; `mean` and `std` per channel are of values in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float | None = None  # the share of the resized shorter side that is kept; None: the centred square, resized
    interpolation: Interpolation = "bicubic"

    def pixels(self, content: bytes, image_size: int) -> Pixels:
        """The picture in a file's content, uint8 `3 h w`; raises UnreadableImage."""
        if self.crop is None:
            return decoded(content, image_size)
        picture = Image.fromarray(decoded(content, None).transpose(1, 2, 0))
        width, height = scaled(picture.size, math.floor(image_size / self.crop))
        resized = picture.resize((width, height), RESAMPLING[self.interpolation])
        left, top = round((width - image_size) / 2), round((height - image_size) / 2)
        return np.asarray(resized.crop((left, top, left + image_size, top + image_size))).transpose(2, 0, 1)

    def told(self, image_size: int) -> str:
        """In words, for whoever compares figures."""
        if self.crop is None:
            first = f"the centred square resized to {image_size} px (bicubic, antialiased)"
        else:
            shorter = math.floor(image_size / self.crop)
            first = f"shorter side to {shorter} px ({self.interpolation}, antialiased), centre of {image_size} px"
        return f"{first}, mean {_listed(self.mean)}, std {_listed(self.std)}"


def scaled(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Width and height after the shorter side was brought to `shorter` pixels; the other is rounded down."""
    width, height = size
    if width <= height:
        return shorter, int(shorter * height / width)
    return int(shorter * width / height), shorter


def _listed(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES = (0.5, 0.5, 0.5)

CONVMIXER = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, crop=0.96)
VIT = Preprocessing(HALVES, HALVES, crop=0.9)  # augreg, orig and sam weights; DeiT's have ImageNet's mean and deviation
MIXER = Preprocessing(HALVES, HALVES, crop=0.875)
CONVNEXT = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, crop=224 / 256)
CIFAR10 = Preprocessing((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))

PUBLISHED_PREPROCESSING: Mapping[str, Preprocessing] = {
    # timm 1.0, default_cfg of models/convmixer.py, models/vision_transformer.py and models/mlp_mixer.py
    "convmixer_1536_20": CONVMIXER,
    "convmixer_768_32": CONVMIXER,
    "convmixer_1024_20_ks9_p14": CONVMIXER,
    **{f"vit_{size}_patch{patch}": VIT for size in ("tiny", "small", "base", "large") for patch in (16, 32)},
    **{f"mixer_{size}{patch}": MIXER for size in ("s", "b", "l") for patch in (16, 32)},
    # facebookresearch/ConvNeXt, datasets.py, build_transform
    **{f"convnext_isotropic_{size}": CONVNEXT for size in ("small", "base", "large")},
    # locuslab/convmixer-cifar10, train.py
    "convmixer_256_8": CIFAR10,
}
