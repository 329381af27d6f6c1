"""Changed test images: blocks shuffled, blanked or shifted, and common corruptions, the same for all networks.

Every random number is keyed by distortion, strength and image, so that all runs of a data set see the same images. Corruptions
are those of Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations", ICLR
2019, that need no more than Pillow and SciPy, with the five severities of CIFAR-10-C for small images and of ImageNet-C for
larger ones. No library of all of them installs without OpenCV and scikit-image.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from study.data.images import Pixels
from study.rng import stream

Streams = Sequence[np.random.Generator]

_SMALL = 64  # pixels; images up to this size have the severities of CIFAR-10-C
_MOST_BLOCKS, _MOST_BLANKED = 16, 8  # blocks along one side
_SHARES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Distortion:
    """One change of test images uint8 `b c h w`, with a strength: blocks along a side, a share, pixels, or a severity."""

    name: str
    strength: float
    change: Callable[[Pixels, Streams], Pixels]

    @property
    def label(self) -> str:
        """`patch_shuffle_4`, `occlusion_0.5`."""
        return f"{self.name}_{self.strength:g}"

    def __call__(self, images: Tensor, numbers: Sequence[int]) -> Tensor:
        """The changed images; `numbers` `b` are their places in the test set."""
        streams = [stream("distortion", self.label, number) for number in numbers]
        return torch.from_numpy(np.ascontiguousarray(self.change(images.numpy(), streams)))


def list_distortions(image_size: int, mean: Sequence[float]) -> list[Distortion]:
    """All distortions of square images of this size; what is blanked takes the `mean` of each channel, in [0, 1]."""
    fill = np.rint(255 * np.asarray(mean)).astype(np.uint8)[:, None, None]
    sides = [blocks for blocks in range(2, _MOST_BLOCKS + 1) if image_size % blocks == 0]
    blanked = max((blocks for blocks in sides if blocks <= min(_MOST_BLANKED, image_size // 2)), default=1)
    shifts = [2**power for power in range(5) if 2**power <= max(1, image_size // 8)]
    found = [Distortion("patch_shuffle", blocks, partial(shuffle_blocks, blocks=blocks)) for blocks in sides]
    found += [
        Distortion("occlusion", share, partial(blank_blocks, blocks=blanked, share=share, fill=fill)) for share in _SHARES
    ]
    found += [Distortion("shift", pixels, partial(shift_pixels, pixels=pixels, fill=fill)) for pixels in shifts]
    for name, (corrupt, small, large) in CORRUPTIONS.items():
        levels = small if image_size <= _SMALL else large
        found += [Distortion(name, severity, partial(corrupt, level=c)) for severity, c in enumerate(levels, start=1)]
    return found


def shuffle_blocks(images: Pixels, streams: Streams, *, blocks: int) -> Pixels:
    """The blocks of a grid of `blocks` x `blocks` in a random order, another for each image."""
    cut = _cut_blocks(images, blocks)  # b c (blocks blocks) rows columns
    mixed = np.stack([image[:, own.permutation(blocks**2)] for image, own in zip(cut, streams, strict=True)])
    return _join_blocks(mixed, blocks)


def blank_blocks(images: Pixels, streams: Streams, *, blocks: int, share: float, fill: Pixels) -> Pixels:
    """A share of the blocks of a grid, chosen at random for each image, replaced by one color.

    Naseer et al., "Intriguing properties of vision transformers", NeurIPS 2021, section 3.1 (random PatchDrop).
    """
    cut = _cut_blocks(images, blocks).copy()
    for image, own in zip(cut, streams, strict=True):
        image[:, own.permutation(blocks**2)[: round(share * blocks**2)]] = fill[..., None]
    return _join_blocks(cut, blocks)


def shift_pixels(images: Pixels, streams: Streams, *, pixels: int, fill: Pixels) -> Pixels:
    """The image moved by so many pixels, up, down, left or right at random; one color where it has been."""
    found = np.broadcast_to(fill, images.shape).copy()
    for image, moved, own in zip(images, found, streams, strict=True):
        axis, sign = own.integers(2), own.integers(2)
        start, end = (slice(pixels, None), slice(None, -pixels)) if sign else (slice(None, -pixels), slice(pixels, None))
        moved.swapaxes(1, 1 + axis)[:, start] = image.swapaxes(1, 1 + axis)[:, end]
    return found


def _cut_blocks(images: Pixels, blocks: int) -> Pixels:
    """b c h w -> b c (blocks blocks) rows columns."""
    b, c, h, _ = images.shape
    side = h // blocks
    return images.reshape(b, c, blocks, side, blocks, side).swapaxes(3, 4).reshape(b, c, blocks**2, side, side)


def _join_blocks(cut: Pixels, blocks: int) -> Pixels:
    b, c, _, side, _ = cut.shape
    return cut.reshape(b, c, blocks, blocks, side, side).swapaxes(3, 4).reshape(b, c, blocks * side, blocks * side)


def add_noise(images: Pixels, streams: Streams, *, level: float) -> Pixels:
    """Independent normal noise with this standard deviation, of values in [0, 1]."""
    noise = np.stack([own.normal(scale=255 * level, size=images.shape[1:]) for own in streams])
    return _round(images + noise)


def blur(images: Pixels, _: Streams, *, level: float) -> Pixels:
    """A Gaussian blur with this standard deviation in pixels, cut off at four of them; borders go on as they are."""
    return _round(gaussian_filter(images.astype(float), (0, 0, level, level), mode="nearest", truncate=4.0))


def reduce_contrast(images: Pixels, _: Streams, *, level: float) -> Pixels:
    """This share of each value's distance from the mean of its channel."""
    means = images.mean(axis=(2, 3), keepdims=True)
    return _round((images - means) * level + means)


def pixelate(images: Pixels, _: Streams, *, level: float) -> Pixels:
    """Resized to this share of the size and back, each pixel the mean of the area that it covers."""
    size = images.shape[-1]
    small = max(1, int(size * level))

    def resize(image: Image.Image) -> Image.Image:
        reduced = image.resize((small, small), Image.Resampling.BOX)
        return reduced.resize((size, size), Image.Resampling.BOX)

    return _map_pictures(images, resize)


def compress(images: Pixels, _: Streams, *, level: float) -> Pixels:
    """Saved as JPEG with this quality."""

    def save(image: Image.Image) -> Image.Image:
        image.save(file := io.BytesIO(), "JPEG", quality=int(level))
        return Image.open(file)

    return _map_pictures(images, save)


def _round(values: npt.NDArray[np.float64]) -> Pixels:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def _map_pictures(images: Pixels, change: Callable[[Image.Image], Image.Image]) -> Pixels:
    """A change of Pillow's images, of one channel or three."""
    pictures = [Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)) for image in images]
    changed = np.stack([np.asarray(change(picture)) for picture in pictures])
    return changed[:, None] if changed.ndim == 3 else changed.transpose(0, 3, 1, 2)


CORRUPTIONS: Mapping[str, tuple[Callable[..., Pixels], tuple[float, ...], tuple[float, ...]]] = MappingProxyType(
    {
        "gaussian_noise": (add_noise, (0.04, 0.06, 0.08, 0.09, 0.1), (0.08, 0.12, 0.18, 0.26, 0.38)),
        "gaussian_blur": (blur, (0.4, 0.6, 0.7, 0.8, 1.0), (1.0, 2.0, 3.0, 4.0, 6.0)),
        "contrast": (reduce_contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
        "pixelate": (pixelate, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),
        "jpeg": (compress, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
    }
)
"""By name, the corruption and its five levels for small and for larger images."""
