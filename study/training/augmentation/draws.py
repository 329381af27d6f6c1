"""The random parameters of one epoch: a row per training image, drawn on the host, the same for every device.

Each operation has a stream of its own, (seed, "augmentation", epoch, operation), and takes a fixed number of draws
per image from it, in the order of the images. So a row depends on neither the batch nor the other operations, and
the images of a smaller subset keep theirs in a larger one. What is drawn is turned into whole numbers and factors
here, in float64, where rounding can't differ between devices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from study.streams import stream

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

ERASED_AREA = (0.02, 0.33)  # Zhong et al., "Random erasing data augmentation", AAAI 2020, section 4.1 (s_l, s_h)
ERASED_RATIO = (0.3, 3.3)  # r_1 and its inverse, as torchvision rounds it


@dataclass(frozen=True)
class Draws:
    """Draws for `images` training images of `size` pixels in one epoch of a run with this seed."""

    seed: int
    epoch: int
    images: int
    size: int

    def uniform(self, operation: str, count: int) -> Floats:
        """`n count` numbers in [0, 1)."""
        drawn = self._stream(operation).random((self.images, count), dtype=np.float32)
        return drawn.astype(np.float64)

    def below(self, operation: str, *bounds: int) -> Integers:
        """`n k` whole numbers, the k-th evenly from 0 up to, not including, the k-th bound."""
        scaled: Floats = np.floor(self.uniform(operation, len(bounds)) * np.array(bounds))
        return scaled.astype(np.int64)

    def beta(self, operation: str, alpha: float) -> Floats:
        """`n` numbers from Beta(alpha, alpha)."""
        return np.asarray(self._stream(operation).beta(alpha, alpha, self.images))

    def permutation(self, operation: str) -> Integers:
        return np.asarray(self._stream(operation).permutation(self.images))

    def erased(self, probability: float) -> Integers:
        """`n 4`: the rectangle (top, bottom, left, right) that is erased from each image, empty where none is.

        torchvision draws again, up to ten times, where a rectangle doesn't fit; here its longer side is cut to the
        image, which happens to fewer than one rectangle in forty.
        """
        chance, area, ratio, y, x = self.uniform("erasing", 5).T
        low, high = ERASED_AREA
        pixels = self.size**2 * (low + (high - low) * area)
        log_low, log_high = map(math.log, ERASED_RATIO)
        aspect = np.exp(log_low + (log_high - log_low) * ratio)
        height = np.minimum(np.round(np.sqrt(pixels * aspect)), self.size - 1)
        width = np.minimum(np.round(np.sqrt(pixels / aspect)), self.size - 1)
        top, left = np.floor(y * (self.size - height + 1)), np.floor(x * (self.size - width + 1))
        box = np.stack([top, top + height, left, left + width], axis=1)
        return np.where(chance[:, None] < probability, box, 0).astype(np.int64)

    def pasted(self, alpha: float) -> Integers:
        """`n 4`: the rectangle (top, bottom, left, right) that CutMix takes from the partner, cut at the borders.

        Yun et al., "CutMix", ICCV 2019, equation 2: sides of size x sqrt(1 - lambda) around an even centre.
        """
        side = self.size * np.sqrt(1 - self.beta("cutmix", alpha))
        centre = self.uniform("cutmix place", 2) * self.size
        low = np.clip(np.round(centre - side[:, None] / 2), 0, self.size)
        high = np.clip(np.round(centre + side[:, None] / 2), 0, self.size)
        return np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1).astype(np.int64)

    def _stream(self, operation: str) -> np.random.Generator:
        return stream(self.seed, "augmentation", self.epoch, operation)
