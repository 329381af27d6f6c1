"""From an image file to a model's input, as published accuracies were measured, and as images are prepared here.

Published evaluation (timm's `transforms_imagenet_eval`, torchvision's Resize and CenterCrop on Pillow images): the shorter
side is resized to floor(image_size / crop) with antialiasing, and the center is cropped. Here the central square is
cropped first and resized to image_size (`study.data.images`): `crop` None.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from study.data.images import Pixels, decode_image

Interpolation = Literal["bicubic", "bilinear"]


@dataclass(frozen=True)
class Preprocessing:
    """How a file becomes pixels; `mean` and `std` per channel are of values in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float | None = None  # fraction of the resized shorter side that is kept; None: the central square, resized
    interpolation: Interpolation = "bicubic"

    def decode(self, content: bytes, image_size: int) -> Pixels:
        """The image in a file's content, uint8 `3 h w`; raises UnreadableImage."""
        if self.crop is None:
            return decode_image(content, image_size)
        image = Image.fromarray(decode_image(content, None).transpose(1, 2, 0))
        shorter = math.floor(image_size / self.crop)
        width, height = (shorter * side // min(image.size) for side in image.size)  # rounded down, as torchvision does it
        resized = image.resize((width, height), Image.Resampling[self.interpolation.upper()])
        left, top = round((width - image_size) / 2), round((height - image_size) / 2)
        return np.asarray(resized.crop((left, top, left + image_size, top + image_size))).transpose(2, 0, 1)

    def describe(self, image_size: int) -> str:
        """One line for the reader of the accuracies."""
        if self.crop is None:
            resizing = f"central square resized to {image_size} px (bicubic, antialiased)"
        else:
            shorter = math.floor(image_size / self.crop)
            resizing = f"shorter side to {shorter} px ({self.interpolation}, antialiased), center crop of {image_size} px"
        mean, std = (" ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return f"{resizing}, mean {mean}, std {std}"


_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALVES = (0.5, 0.5, 0.5)
_CONVMIXER = Preprocessing(_IMAGENET_MEAN, _IMAGENET_STD, crop=0.96)
_VIT = Preprocessing(_HALVES, _HALVES, crop=0.9)  # augreg, orig and sam weights; DeiT's have ImageNet's mean and std
_MLP_MIXER = Preprocessing(_HALVES, _HALVES, crop=0.875)
_CONVNEXT = Preprocessing(_IMAGENET_MEAN, _IMAGENET_STD, crop=224 / 256)

PUBLISHED_PREPROCESSING: Mapping[str, Preprocessing] = {
    # timm 1.0, default_cfg of models/convmixer.py, models/vision_transformer.py and models/mlp_mixer.py
    "convmixer_1536_20": _CONVMIXER,
    "convmixer_768_32": _CONVMIXER,
    "convmixer_1024_20_ks9_p14": _CONVMIXER,
    **{f"vit_{size}_patch{patch}": _VIT for size in ("tiny", "small", "base", "large") for patch in (16, 32)},
    **{f"mixer_{size}{patch}": _MLP_MIXER for size in ("s", "b", "l") for patch in (16, 32)},
    # facebookresearch/ConvNeXt, datasets.py, build_transform
    **{f"convnext_isotropic_{size}": _CONVNEXT for size in ("small", "base", "large")},
    # locuslab/convmixer-cifar10, train.py
    "convmixer_256_8": Preprocessing((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
}
