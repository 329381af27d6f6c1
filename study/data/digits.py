"""scikit-learn's digits: 1,797 real 8x8 images of handwritten figures that are installed with the package.

The split is fixed and stratified: 360 test images, and of the other 1,437 the first round(val_fraction x 1,797) are
validation images (180 at the default of 0.1, which leaves 1,257 for training). The values 0..16 are spread over
0..255 as round(v x 255 / 16), so that the set is stored like every other; the map is one-to-one.
Source: Alpaydin & Kaynak, "Optical recognition of handwritten digits", UCI, 1998 (its test part).
"""

from __future__ import annotations

import hashlib

import numpy as np

from study.data.cache import Arrays
from study.data.dataset_info import SourceInfo
from study.data.images import Pixels, fitted, statistics
from study.data.stratified_order import Integers, stratified_order

IMAGES, TEST_IMAGES, SIZE, LEVELS = 1797, 360, 8, 16


def read_digits(image_size: int) -> tuple[SourceInfo, Arrays]:
    """The facts, and what `study.data.cache.open_store` gives for other sets: images `n 1 h w`, labels, order."""
    images, labels, digest = _source()
    mixed = stratified_order(labels, "digits")
    order = {"test": mixed[:TEST_IMAGES], "train": mixed[TEST_IMAGES:]}
    resized = images if image_size == SIZE else np.stack([fitted(image, image_size) for image in images])
    pixels = {name: resized[at][:, None] for name, at in order.items()}
    mean, std = statistics(pixels["train"])
    facts = SourceInfo(
        name="digits",
        digest=digest,
        image_size=image_size,
        channels=1,
        class_names=tuple("0123456789"),
        train_images=len(order["train"]),
        test_images=TEST_IMAGES,
        mean=mean,
        std=std,
        fraction_of=IMAGES,
    )
    return facts, Arrays(images=pixels, labels={name: labels[at] for name, at in order.items()}, order=order)


def _source() -> tuple[Pixels, Integers, str]:
    from sklearn.datasets import load_digits  # a second to import, and only digits need it

    bunch = load_digits()
    values, labels = bunch.images, bunch.target.astype(np.int64)
    assert values.shape == (IMAGES, SIZE, SIZE) and values.min() == 0 and values.max() == LEVELS
    images = np.round(values * 255 / LEVELS).astype(np.uint8)
    return images, labels, hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
