"""Random crop of the padded image and horizontal flip, as one gather of pixels.

Crop: torchvision's `RandomCrop(size, padding=crop)`, black outside. Flip: left to right with probability 1/2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from study.training.augmentation.draws import Draws


def draw_framing(draws: Draws, *, crop: int, flip: bool) -> Tensor | None:
    """The shift in rows and columns (-crop..crop), and 1 where the image is flipped, int64 `n 3`."""
    if not crop and not flip:
        return None
    framing = torch.zeros((draws.images, 3), dtype=torch.int64)
    if crop:
        framing[:, :2] = torch.from_numpy(draws.below("crop", 2 * crop + 1, 2 * crop + 1)) - crop
    if flip:
        framing[:, 2] = torch.from_numpy(draws.below("flip", 2)[:, 0])
    return framing


def locate_framed_pixels(framing: Tensor, size: int) -> Tensor:
    """The source of each pixel, int64 `b (h w)`, -1 for outside: cropped first, then flipped."""
    at = torch.arange(size, device=framing.device)
    down, right, flipped = (column[:, None] for column in framing.unbind(1))
    y = at + down
    x = torch.where(flipped == 1, size - 1 - at, at) + right
    outside = ((y < 0) | (y >= size))[:, :, None] | ((x < 0) | (x >= size))[:, None, :]
    return (y[:, :, None] * size + x[:, None, :]).masked_fill(outside, -1).flatten(1)
