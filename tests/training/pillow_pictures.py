"""Pictures as tensors and in Pillow, to compare augmentations on both."""

from __future__ import annotations

import platform

import numpy as np
import torch
from PIL import Image
from torch import Tensor

ROUNDING = 0 if platform.machine() in ("x86_64", "AMD64") else 1  # elsewhere Pillow's blend may be one fused operation


def pictures(count: int, *, channels: int, size: int) -> Tensor:
    """Smooth, noisy, dark, bright and constant pictures, uint8 `count c size size`."""
    random = np.random.default_rng(5)
    noise = random.integers(0, 256, (count, channels, size, size))
    slope = np.linspace(0, 255, size)[None, None, None] * random.random((count, channels, 1, 1))
    span = random.integers(1, 256, (count, 1, 1, 1))
    kinds = [noise, slope + noise // 16, noise % span, 255 - noise % span, noise[:, :, :1, :1] + 0 * noise]
    mixed = np.stack([np.clip(kinds[k % len(kinds)][k], 0, 255) for k in range(count)])
    return torch.from_numpy(mixed.astype(np.uint8))


def picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy())


def pixels(one: Image.Image) -> Tensor:
    array = np.asarray(one)
    return torch.from_numpy(np.atleast_3d(array).transpose(2, 0, 1).copy())
