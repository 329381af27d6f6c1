"""Laws of the digits: scikit-learn's images, all of them, in the documented split."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from study.config.options import DataOptions
from study.data import describe_dataset, prepare_dataset
from study.data.splits import Splits, load_splits

DIGITS = DataOptions(name="digits")


@pytest.fixture(scope="module")
def digits() -> Splits:
    return load_splits(DIGITS, describe_dataset(DIGITS))


def test_the_split_is_1018_180_599_and_stratified(digits: Splits) -> None:
    """Sizes are the stated ones, each class has its share of each split, and no image is in two splits."""
    sizes = {"train": 1018, "val": 180, "test": 599}
    overall = np.bincount(load_digits().target) / 1797
    for name, size in sizes.items():
        split = getattr(digits, name)
        assert len(split) == len(split.images) == size
        assert np.abs(split.labels.bincount().numpy() - size * overall).max() < 2
    assert (digits.info.train_images, digits.info.val_images, digits.info.test_images) == (1018, 180, 599)
    positions = torch.cat([digits.train.indices, digits.val.indices, digits.test.indices])
    assert torch.equal(positions.sort().values, torch.arange(1797))


def test_the_images_are_scikit_learns_and_none_of_their_levels_is_lost(digits: Splits) -> None:
    """Values are round(v x 255 / 16); mapped back they are scikit-learn's at the positions in `indices`."""
    source = load_digits()
    for split in (digits.train, digits.val, digits.test, digits.train_and_val):
        back = np.round(split.images[:, 0].numpy() / 255 * 16)
        assert np.array_equal(back, source.images[split.indices])
        assert np.array_equal(split.labels.numpy(), source.target[split.indices])


def test_mean_and_deviation_are_of_training_and_validation_images(digits: Splits) -> None:
    """numpy's mean and standard deviation over train and val agree to the stored places."""
    values = digits.train_and_val.images.numpy() / 255
    np.testing.assert_allclose([digits.info.mean[0], digits.info.std[0]], [values.mean(), values.std()], atol=1e-6)


def test_the_digest_identifies_the_content() -> None:
    """The digest is the same whichever subset is chosen, and not that of 0.1; preparing needs no cache folder."""
    some = DataOptions(name="digits", train_images=100, image_size=16, cache="/nowhere")
    assert prepare_dataset(some, workers=1, report=print) == describe_dataset(some)
    assert describe_dataset(some).digest == describe_dataset(DIGITS).digest
    assert not describe_dataset(some).digest.startswith("0b7e9c3202d7bcd2")
    assert (describe_dataset(some).train_images, describe_dataset(some).image_size) == (100, 16)


def test_another_size_is_pillows_bicubic(digits: Splits) -> None:
    """Digits at 16 pixels are each 8x8 image resized by Pillow."""
    options = DataOptions(name="digits", image_size=16)
    larger = load_splits(options, describe_dataset(options))
    assert torch.equal(larger.train.indices, digits.train.indices)
    for small, large in zip(digits.test.images[:20, 0].numpy(), larger.test.images[:20, 0].numpy(), strict=True):
        assert np.array_equal(large, np.asarray(Image.fromarray(small).resize((16, 16), Image.Resampling.BICUBIC)))
