"""Which images of a split a run classified correctly: one bit an image, in the split's order, padded to whole bytes.

A record keeps them as base64 text (`Record.correct`), a report as the bytes themselves (`correctness.parquet`). Test images
have the stored order, which all runs of a data set share; validation images have that of their seed.
"""

import base64

import numpy as np
import numpy.typing as npt

from study.errors import Problem, UserError


def pack_correctness(correct: npt.NDArray[np.bool_]) -> str:
    """The text of a record for `correct` `images`; 10,000 images are 1,668 characters."""
    return base64.b64encode(np.packbits(correct).tobytes()).decode()


def decode_correctness(text: str, images: int) -> bytes:
    """The bytes of a record's text. UserError unless they are of so many images."""
    try:
        packed = base64.b64decode(text, validate=True)
    except ValueError:
        packed = b""
    if len(packed) != -(-images // 8):
        raise UserError(Problem(f"{len(packed)} bytes are not the correctness of {images} images: restore the records' file"))
    return packed


def unpack_correctness(packed: bytes, images: int) -> npt.NDArray[np.bool_]:
    """The correctness `images` of so many images."""
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=images).astype(bool)
