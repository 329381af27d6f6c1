"""From a file or an array to one square 8-bit image, and the mean and deviation of many.

Decoding is Pillow's, to RGB, without the orientation tag of EXIF (as torchvision's ImageFolder does it). An image of
another size is cropped to its central square and resized in one antialiased bicubic pass (each output pixel weighs all
input pixels under its footprint).
"""

import errno
import io
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from study.atomic_io import read_regular

Pixels = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
"""Pillow's other decoders are never called, whatever a file contains: some of them start programs (PostScript)."""
MAX_FILE_BYTES = 256 << 20

_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


class UnreadableImage(Exception):
    """A file that can't be used as an image; the message says why, without the file's name."""


def read_image_file(path: Path) -> bytes:
    """A file's content. Raises UnreadableImage for a pipe or device, which could be endless, and for a file above 256 MiB."""
    try:
        return read_regular(path, MAX_FILE_BYTES)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EFBIG):
            raise
        raise UnreadableImage(f"is {error.strerror}") from None


def decode_image(content: bytes, image_size: int | None) -> Pixels:
    """The pixels `3 h w` of a file's content, at `image_size` or, if that is None, at the file's own size."""
    if not content:
        raise UnreadableImage("empty file")
    try:
        image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
        bits = _count_bits(image, content)
        image.load()
    except Exception as error:  # Pillow's decoders raise a dozen types, some of them struct's and zlib's
        raise UnreadableImage(f"not readable: {error or type(error).__name__}") from error
    if image.mode not in _EIGHT_BIT_MODES or bits > 8:  # Pillow drops the lower half of 16-bit colors in silence
        raise UnreadableImage(f"pixel format {image.mode}, {bits} bits: 8 bits per channel are required")
    if image.mode in ("P", "PA"):  # Pillow warns where a palette's transparency is dropped without this step
        image = image.convert("RGBA")
    image = image.convert("RGB")
    return np.asarray(_resize_square(image, image_size) if image_size else image).transpose(2, 0, 1)


def _count_bits(image: Image.Image, content: bytes) -> int:
    """Bits per channel in the file, where its format may have more than the decoded image's 8."""
    if image.format == "PNG":
        return content[24]  # of the header, the first chunk
    if image.format == "TIFF":
        return int(max(image.tag_v2.get(258, (8,))))  # type: ignore[attr-defined]
    if image.format == "PPM":
        tokens = re.sub(rb"#[^\n]*", b"", content[:1000]).split(maxsplit=4)
        return int(tokens[3]).bit_length() if tokens[0] in (b"P2", b"P3", b"P5", b"P6") else 8
    return 8


def resize_array(image: Pixels, image_size: int) -> Pixels:
    """An image `h w` or `h w 3`, cropped to its central square and resized to `image_size` `image_size` (3)."""
    if image.shape[:2] == (image_size, image_size):
        return image
    return np.asarray(_resize_square(Image.fromarray(image), image_size))


def _resize_square(image: Image.Image, size: int) -> Image.Image:
    side = min(image.size)
    left, top = (round((length - side) / 2) for length in image.size)
    return image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)


def sum_moments(images: Pixels) -> npt.NDArray[np.int64]:
    """Sum and sum of squares per channel of `n c h w`, as integers `2 c`: exact in any order of addition."""
    wide = images.astype(np.int64)
    return np.stack([wide.sum(axis=(0, 2, 3)), (wide * wide).sum(axis=(0, 2, 3))])


def mean_and_std(sums: npt.NDArray[np.int64], pixels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, of values in [0, 1], from `sum_moments` over that many pixels (6 places)."""
    mean = sums[0] / pixels
    deviation = np.sqrt(np.maximum(sums[1] / pixels - mean**2, 0))
    std = np.maximum(deviation, 1) / 255  # a constant channel has no scale; 1/255 keeps the division finite
    return tuple(round(float(m) / 255, 6) for m in mean), tuple(round(float(s), 6) for s in std)
