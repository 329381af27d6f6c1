"""One picture from a file or an array to a square of 8-bit values, and the statistics of many.

Decoding is Pillow's, to RGB, without the orientation tag of EXIF (as torchvision's ImageFolder does it). A picture
of another size is cut to its centred square and reduced or enlarged in one bicubic pass that is antialiased (each
output pixel weighs all input pixels under its footprint).
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


class UnreadableImage(Exception):
    """A file that is no picture this study can train on; its message says why, without the file's name."""


def decoded(content: bytes, image_size: int | None) -> Pixels:
    """The pixels `3 h w` of a file's content, at `image_size` or, where that is None, at the file's own size."""
    if not content:
        raise UnreadableImage("empty file")
    try:
        picture: Image.Image = Image.open(io.BytesIO(content))
        picture.load()
    except Exception as error:  # Pillow's decoders raise a dozen kinds, some of them struct's and zlib's
        raise UnreadableImage(f"not readable: {error or type(error).__name__}") from error
    if picture.mode not in EIGHT_BIT_MODES:
        raise UnreadableImage(f"pixel format {picture.mode}: 8 bits per channel are needed")
    if picture.mode in ("P", "PA"):  # Pillow warns where a palette's transparency is dropped without this step
        picture = picture.convert("RGBA")
    picture = picture.convert("RGB")
    return np.asarray(_square(picture, image_size) if image_size else picture).transpose(2, 0, 1)


def fitted(image: Pixels, image_size: int) -> Pixels:
    """An image `h w` or `h w 3` as `image_size` `image_size` (3)."""
    if image.shape[:2] == (image_size, image_size):
        return image
    return np.asarray(_square(Image.fromarray(image), image_size))


def _square(picture: Image.Image, size: int) -> Image.Image:
    side = min(picture.size)
    left, top = (round((length - side) / 2) for length in picture.size)
    centre = picture.crop((left, top, left + side, top + side))
    return centre.resize((size, size), Image.Resampling.BICUBIC)


def moments(images: Pixels) -> npt.NDArray[np.int64]:
    """Sum and sum of squares per channel of `n c h w`, as whole numbers `2 c`: exact in any order of addition."""
    wide = images.astype(np.int64)
    return np.stack([wide.sum(axis=(0, 2, 3)), (wide * wide).sum(axis=(0, 2, 3))])


def statistics(images: Pixels) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of `n c h w`, of values scaled to [0, 1]."""
    return from_moments(moments(images), images.size // images.shape[1])


def from_moments(sums: npt.NDArray[np.int64], pixels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel from sums `2 c` over that many pixels, rounded to 6 places."""
    mean = sums[0] / pixels
    deviation = np.sqrt(np.maximum(sums[1] / pixels - mean**2, 0))
    # A constant channel has no scale of its own; 1/255 keeps the division finite.
    std = np.maximum(deviation, 1) / 255
    return tuple(round(float(m) / 255, 6) for m in mean), tuple(round(float(s), 6) for s in std)
