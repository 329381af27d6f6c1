"""Color jitter: brightness, contrast and saturation by factors within 1 +- strength, in a random order per image.

torchvision's `ColorJitter(strength, strength, strength)` on Pillow images, as in the ConvMixer recipes; no hue.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from study.training.augmentation.draws import Draws
from study.training.augmentation.pixels import blend, compute_mean_level, to_gray

BRIGHTNESS, CONTRAST, SATURATION = range(3)
ORDERS = tuple(itertools.permutations((BRIGHTNESS, CONTRAST, SATURATION)))


@dataclass(frozen=True)
class Jitter:
    """Operations in the order of their application, int64 `n 3`, and the factor of each, float32 `n 3`."""

    order: Tensor
    factors: Tensor

    def to(self, device: torch.device) -> "Jitter":
        return Jitter(self.order.to(device), self.factors.to(device))

    def __call__(self, images: Tensor, rows: Tensor) -> Tensor:
        """Images uint8 `b c h w` after the operations in the rows `b`."""
        for operation, factor in zip(self.order[rows].unbind(1), self.factors[rows].unbind(1), strict=True):
            kind = operation.view(-1, 1, 1, 1)
            levels = to_gray(images)
            # Brightness blends with black, contrast with the mean gray, saturation with the gray image.
            degenerate = torch.where(kind == CONTRAST, compute_mean_level(levels), levels) * (kind != BRIGHTNESS)
            images = blend(degenerate, images, factor)
        return images


def draw_jitter(draws: Draws, strength: float) -> "Jitter":
    """Each image's order, uniform over the six, and its factors, uniform within 1 +- strength."""
    # The keys of these streams keep their former spelling: another key would draw other numbers.
    order = torch.tensor(ORDERS)[torch.from_numpy(draws.below("colour_jitter order", len(ORDERS))[:, 0])]
    factors = torch.from_numpy(1 + strength * (2 * draws.uniform("colour_jitter", len(ORDERS[0])) - 1)).float()
    return Jitter(order, factors.gather(1, order))
