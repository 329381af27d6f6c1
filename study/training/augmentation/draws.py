"""The random parameters of one epoch: a row per training image, drawn on the host, the same for every device.

Each operation has a stream of its own, (seed, "augmentation", epoch, operation), and takes a fixed number of draws
per image from it, in the order of the images. So a row depends on neither the batch nor the other operations, and
the images of a smaller subset keep theirs in a larger one. What is drawn is turned into whole numbers and factors
here, in float64, where rounding can't differ between devices.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from study.rng import stream
from study.training.keyed_bits import draw_keys

_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]

ERASED = {"const": ((0.02, 0.33), (0.3, 3.3)), "pixel": ((0.02, 1 / 3), (0.3, 1 / 0.3))}
"""By mode the areas and ratios of erased rectangles in torchvision and timm: Zhong et al., "Random erasing data augmentation",
AAAI 2020, section 4.1 (s_l, s_h; r_1 and its inverse), as each of them rounds these."""
TRIES = 10
CROPPED_RATIO = (3 / 4, 4 / 3)  # Szegedy et al., "Going deeper with convolutions", CVPR 2015, section 6


@dataclass(frozen=True)
class Draws:
    """Draws for `images` training images of `size` pixels in one epoch of a run with this seed."""

    seed: int
    epoch: int
    images: int
    size: int

    def uniform(self, operation: str, count: int) -> _Floats:
        """`n count` numbers in [0, 1)."""
        drawn = self._stream(operation).random((self.images, count), dtype=np.float32)
        return drawn.astype(np.float64)

    def below(self, operation: str, *bounds: int) -> _Integers:
        """`n k` integers, the k-th uniform in [0, k-th bound)."""
        scaled: _Floats = np.floor(self.uniform(operation, len(bounds)) * np.array(bounds))
        return scaled.astype(np.int64)

    def beta(self, operation: str, alpha: float) -> _Floats:
        """`n` numbers from Beta(alpha, alpha)."""
        return np.asarray(self._stream(operation).beta(alpha, alpha, self.images))

    def normal(self, operation: str) -> _Floats:
        """`n` numbers from the standard normal distribution."""
        return self._stream(operation).standard_normal(self.images)

    def permutation(self, operation: str) -> _Integers:
        return np.asarray(self._stream(operation).permutation(self.images))

    def draw_framing(self, *, crop: int, flip: bool) -> _Integers | None:
        """`n 3`: the shift in rows and columns (-crop..crop), and 1 where the image is flipped."""
        if not crop and not flip:
            return None
        framing = np.zeros((self.images, 3), dtype=np.int64)
        if crop:
            framing[:, :2] = self.below("crop", 2 * crop + 1, 2 * crop + 1) - crop
        if flip:
            framing[:, 2] = self.below("flip", 2)[:, 0]
        return framing

    def draw_erasing(self, probability: float, mode: str = "const") -> _Integers:
        """`n 4`: the rectangle (top, bottom, left, right) that is erased from each image, empty where nothing is."""
        chance = self.uniform("erasing", 1)
        box = self._draw_rectangles("erased", *ERASED[mode], longest=self.size - 1, otherwise=0)
        return np.where(chance < probability, box, 0)

    def draw_crops(self, least_area: float) -> _Integers:
        """`n 4`: the rectangle (top, bottom, left, right) that each image is cropped to before it is enlarged."""
        areas = (least_area, 1.0)
        return self._draw_rectangles("resized_crop", areas, CROPPED_RATIO, longest=self.size, otherwise=self.size)

    def _draw_rectangles(
        self, operation: str, areas: tuple[float, float], ratios: tuple[float, float], *, longest: int, otherwise: int
    ) -> _Integers:
        """Rectangles `n 4` drawn as torchvision does: the first of ten that fits, at a uniform position.

        A try has a uniform share of the image's area and a log-uniform ratio of height to width; it fits if no side exceeds
        `longest`. Both sides are `otherwise` where none of the ten fits.
        """
        height = width = np.zeros(self.images)
        found = np.zeros(self.images, dtype=bool)
        low, high = map(math.log, ratios)
        for k in range(TRIES):
            share, ratio = self.uniform(f"{operation} try {k}", 2).T
            pixels = self.size**2 * (areas[0] + (areas[1] - areas[0]) * share)
            aspect = np.exp(low + (high - low) * ratio)
            sides = np.round(np.sqrt(pixels * aspect)), np.round(np.sqrt(pixels / aspect))
            fits = ~found & (np.maximum(*sides) <= longest)
            height, width = (np.where(fits, new, old) for new, old in zip(sides, (height, width), strict=True))
            found |= fits
        height, width = (np.where(found, side, otherwise) for side in (height, width))
        y, x = self.uniform(f"{operation} at", 2).T
        top, left = np.floor(y * (self.size - height + 1)), np.floor(x * (self.size - width + 1))
        return np.stack([top, top + height, left, left + width], axis=1).astype(np.int64)

    def draw_cutmix(self, alpha: float) -> _Integers:
        """`n 4`: the rectangle (top, bottom, left, right) that CutMix takes from the partner, clipped at the borders.

        Yun et al., "CutMix", ICCV 2019, equation 2: sides of size x sqrt(1 - lambda) around a uniform center.
        """
        side = self.size * np.sqrt(1 - self.beta("cutmix", alpha))
        center = self.uniform("cutmix place", 2) * self.size
        low = np.clip(np.round(center - side[:, None] / 2), 0, self.size)
        high = np.clip(np.round(center + side[:, None] / 2), 0, self.size)
        return np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1).astype(np.int64)

    def keys(self, operation: str) -> Tensor:
        """`n 2`: keys of numbers that are drawn on the device (`study.training.keyed_bits`)."""
        return draw_keys(self._stream(operation), self.images)

    def _stream(self, operation: str) -> np.random.Generator:
        return stream(self.seed, "augmentation", self.epoch, operation)
