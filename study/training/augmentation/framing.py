"""Where an image is cropped out of its padded self and whether it is mirrored, as one move of its pixels.

Crop: torchvision's `RandomCrop(size, padding=crop)`, black outside. Flip: left to right with probability 1/2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from study.training.augmentation.draws import Draws


def draw_framing(draws: Draws, *, crop: int, flip: bool) -> Tensor | None:
    """Rows and columns (-crop..crop) that each frame is moved by, and 1 where it is mirrored, int64 `n 3`."""
    if not crop and not flip:
        return None
    framing = torch.zeros((draws.images, 3), dtype=torch.int64)
    if crop:
        framing[:, :2] = torch.from_numpy(draws.below("crop", 2 * crop + 1, 2 * crop + 1)) - crop
    if flip:
        framing[:, 2] = torch.from_numpy(draws.below("flip", 2)[:, 0])
    return framing


def framed(framing: Tensor, size: int) -> Tensor:
    """Where each pixel comes from, int64 `b (h w)`, -1 for outside: cropped first, then mirrored."""
    at = torch.arange(size, device=framing.device)
    down, right, mirrored = (column[:, None] for column in framing.unbind(1))
    y = at + down
    x = torch.where(mirrored == 1, size - 1 - at, at) + right
    outside = ((y < 0) | (y >= size))[:, :, None] | ((x < 0) | (x >= size))[:, None, :]
    return (y[:, :, None] * size + x[:, None, :]).masked_fill(outside, -1).flatten(1)
