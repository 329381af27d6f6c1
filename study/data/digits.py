"""scikit-learn's digits: 1,797 real 8x8 images of handwritten digits that are installed with the package.

There is no official test set: a fixed stratified third, 599 images, is. Of the other 1,198, round(val_fraction x 1,797) are
validation images (180 at the default of 0.1, which leaves 1,018 for training). The digest covers the choice of test
images too: version 0.1 tested on 360. The values 0..16 are mapped to 0..255 as round(v x 255 / 16), so that the set is
stored like every other; the map is one-to-one.
Source: Alpaydin & Kaynak, "Optical recognition of handwritten digits", UCI, 1998 (its test part).
"""

import hashlib

import numpy as np

from study.config.options import DataOptions
from study.data.cache import ReportProgress, StoredArrays
from study.data.data_source import DataSource
from study.data.dataset_info import DatasetInfo, SourceInfo, check_labels, select_images
from study.data.images import mean_and_std, resize_array, sum_moments
from study.data.stratified_order import draw_stratified_order

DIGITS_SIZE = 8
_IMAGES, _TEST_IMAGES, _LEVELS = 1797, 599, 16


class Digits(DataSource):
    """Images that need no preparation: they are read where they are used."""

    def describe(self, options: DataOptions) -> DatasetInfo:
        source, arrays = read_digits(options.image_size or DIGITS_SIZE)
        info = select_images(source, options)
        check_labels(info, arrays.labels)
        return info

    def prepare(self, options: DataOptions, *, workers: int, report: ReportProgress) -> DatasetInfo:
        return self.describe(options)

    def open_arrays(self, options: DataOptions, info: DatasetInfo) -> StoredArrays:
        return read_digits(info.image_size)[1]


def read_digits(image_size: int) -> tuple[SourceInfo, StoredArrays]:
    """The source's description and arrays, as `study.data.cache` gives them for other sets: images `n 1 h w`."""
    from sklearn.datasets import load_digits  # a second to import, and only digits need it

    bunch = load_digits()
    values, labels = bunch.images, bunch.target.astype(np.int64)
    assert values.shape == (_IMAGES, DIGITS_SIZE, DIGITS_SIZE) and values.min() == 0 and values.max() == _LEVELS
    images = np.round(values * 255 / _LEVELS).astype(np.uint8)
    mixed = draw_stratified_order(labels, "digits")
    order = {"test": mixed[:_TEST_IMAGES], "train": mixed[_TEST_IMAGES:]}
    digest = hashlib.sha256(images.tobytes() + labels.tobytes() + order["test"].tobytes()).hexdigest()
    resized = np.stack([resize_array(image, image_size) for image in images])
    pixels = {part: resized[rows][:, None] for part, rows in order.items()}
    mean, std = mean_and_std(sum_moments(pixels["train"]), pixels["train"].size)
    source = SourceInfo(
        name="digits",
        digest=digest,
        image_size=image_size,
        channels=1,
        class_names=tuple("0123456789"),
        train_images=len(order["train"]),
        test_images=_TEST_IMAGES,
        mean=mean,
        std=std,
        fraction_of=_IMAGES,
    )
    return source, StoredArrays(images=pixels, labels={part: labels[rows] for part, rows in order.items()}, order=order)
