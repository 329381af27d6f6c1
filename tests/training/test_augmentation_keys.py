"""Laws of augmentation's random numbers: an image's pixels are a function of (seed, epoch, image, operation) alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from study.config.options import AugmentOptions
from study.data import DatasetInfo
from study.data.batch_loader import BatchLoader
from study.data.splits import Split
from study.training.augmentation import Augmentation, EpochAugmentation, Normalization
from study.training.batches import repeat_images

CPU = torch.device("cpu")
IMAGES, SIZE = 60, 12
EVERYTHING: dict[str, Any] = {
    "resized_crop": 0.4,
    "flip": True,
    "crop": 2,
    "color_jitter": 0.3,
    "randaugment_n": 2,
    "randaugment_m": 12,
    "erasing": 0.5,
    "mixup": 0.4,
    "cutmix": 1.0,
}
STATISTICS = {3: ((0.49, 0.48, 0.45), (0.25, 0.24, 0.26)), 1: ((0.3,), (0.4,))}


def facts(channels: int = 3) -> DatasetInfo:
    mean, std = STATISTICS[channels]
    names = tuple("abcd")
    return DatasetInfo("set", "0", SIZE, channels, names, IMAGES, 5, mean, std, val_images=5)


def split(channels: int = 3) -> Split:
    random = np.random.default_rng(0)
    pixels = torch.from_numpy(random.integers(0, 256, (IMAGES, channels, SIZE, SIZE), dtype=np.uint8))
    return Split.whole(pixels, torch.arange(IMAGES) % 4)


def epoch_of(*, seed: int = 3, epoch: int = 1, images: int = IMAGES, channels: int = 3, **options: Any) -> EpochAugmentation:
    augmentation = Augmentation(AugmentOptions(**options), facts(channels), seed=seed, images=images)
    return augmentation.epoch(epoch, device=CPU, layout=torch.contiguous_format)


def augmented(today: EpochAugmentation, ids: Tensor, channels: int = 3) -> tuple[Tensor, Tensor | None, Tensor | None]:
    images, target = today(*BatchLoader(split(channels), CPU, resident=False).load_batch(today.rows(ids)), ids)
    return images, target.partners, target.weight


@settings(deadline=None, max_examples=25)
@given(ids=st.lists(st.integers(0, IMAGES - 1), min_size=1, max_size=IMAGES), channels=st.sampled_from([1, 3]))
def test_an_image_has_the_same_bits_alone_and_in_any_batch(ids: list[int], channels: int) -> None:
    """Whatever batch an image is in, its pixels, its partner's label and its weight are those it has alone."""
    today = epoch_of(channels=channels, **EVERYTHING)
    images, partners, weight = augmented(today, torch.tensor(ids), channels)
    for k, image in enumerate(ids):
        alone, partner_alone, weight_alone = augmented(today, torch.tensor([image]), channels)
        assert torch.equal(images[k : k + 1], alone)
        assert partners is not None and partner_alone is not None and torch.equal(partners[k : k + 1], partner_alone)
        assert weight is not None and weight_alone is not None and torch.equal(weight[k : k + 1], weight_alone)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_threads_and_memory_layout_change_no_bit(layout: torch.memory_format) -> None:
    """The same numbers come out in either memory layout and with one thread or two."""
    expected, _, _ = augmented(epoch_of(**EVERYTHING), torch.arange(IMAGES))
    threads = torch.get_num_threads()
    today = Augmentation(AugmentOptions(**EVERYTHING), facts(), seed=3, images=IMAGES).epoch(1, device=CPU, layout=layout)
    try:
        torch.set_num_threads(2)
        images, _, _ = augmented(today, torch.arange(IMAGES))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(images, expected)
    assert images.is_contiguous(memory_format=layout)


def test_seed_and_epoch_each_change_the_images() -> None:
    """Another seed or another epoch gives other images; the same ones give the same again."""
    ids = torch.arange(IMAGES)
    first, again = augmented(epoch_of(**EVERYTHING), ids)[0], augmented(epoch_of(**EVERYTHING), ids)[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, augmented(epoch_of(seed=4, **EVERYTHING), ids)[0])
    assert not torch.equal(first, augmented(epoch_of(epoch=2, **EVERYTHING), ids)[0])


@pytest.mark.parametrize("added", sorted(EVERYTHING.keys() - {"randaugment_m"}))
def test_an_operation_that_is_added_changes_no_other_operations_numbers(added: str) -> None:
    """Every parameter of the other operations is what it was without the added one."""
    before = epoch_of(**{key: value for key, value in EVERYTHING.items() if key != added})
    after = epoch_of(**EVERYTHING)
    if added != "flip" and added != "crop":
        assert torch.equal(before.framing, after.framing)
    elif added == "flip":
        assert torch.equal(before.framing[:, :2], after.framing[:, :2])
    else:
        assert torch.equal(before.framing[:, 2], after.framing[:, 2])
    if added != "randaugment_n":
        assert torch.equal(before.policy.chosen, after.policy.chosen)
    if added != "color_jitter":
        assert torch.equal(before.jitter.factors, after.jitter.factors)
    if added != "resized_crop":
        assert torch.equal(before.cropped, after.cropped)
    if added != "erasing":
        assert torch.equal(before.erasing.box, after.erasing.box)
    assert torch.equal(before.mixing.partner, after.mixing.partner)
    if added not in ("mixup", "cutmix"):
        assert torch.equal(before.mixing.weight, after.mixing.weight)


def test_a_third_layer_of_randaugment_leaves_the_first_two() -> None:
    """Layers have streams of their own."""
    assert torch.equal(epoch_of(randaugment_n=3).policy.chosen[:, :2], epoch_of(randaugment_n=2).policy.chosen)


def test_repeats_are_further_augmentations_of_an_image() -> None:
    """Row i is as without repeats; i + n and i + 2 n are others of the same image."""
    options = {"crop": 2, "auto_augment": "cifar10", "erasing": 0.5, "erasing_mode": "pixel"}
    once, thrice = epoch_of(**options), epoch_of(repeats=3, **options)
    pixels, rows = split().images, torch.arange(IMAGES)
    first, second, third = (thrice.augment_pixels(pixels, rows + k * IMAGES) for k in range(3))
    assert torch.equal(once.augment_pixels(pixels, rows), first)
    for one, other in ((first, second), (second, third)):
        assert (one != other).flatten(1).any(dim=1).float().mean() > 0.9


@pytest.mark.parametrize("images", [12, 13, 14])
def test_repeats_fill_an_epoch_of_the_same_length(images: int) -> None:
    """An epoch has as many rows as without repeats, of the first images in its order, each `repeats` times in a row."""
    order = torch.randperm(images)
    rows = repeat_images(order, 3)
    assert len(rows) == images and torch.equal(rows % images, order.repeat_interleave(3)[:images])
    assert len(rows.unique()) == images  # each row once, so no augmentation twice
    assert torch.equal(repeat_images(order, 1), order)


def test_a_subset_keeps_its_images_augmentation() -> None:
    """An image of a smaller training set is augmented as in a larger one (partners apart: they are of other sets)."""
    options = {key: value for key, value in EVERYTHING.items() if key not in ("mixup", "cutmix")}
    ids = torch.arange(20)
    few, _, _ = augmented(epoch_of(images=20, **options), ids)
    many, _, _ = augmented(epoch_of(images=IMAGES, **options), ids)
    assert torch.equal(few, many)


def test_operations_and_signs_are_drawn_evenly() -> None:
    """Over many images each of the 28 variants of RandAugment comes up equally often (chi-squared, 27 degrees)."""
    drawn = Augmentation(AugmentOptions(randaugment_n=1), facts(), seed=0, images=28_000).epoch(
        0, device=CPU, layout=torch.contiguous_format
    )
    counts = np.bincount(drawn.policy.chosen[:, 0].numpy(), minlength=28)
    assert ((counts - 1000) ** 2 / 1000).sum() < 55.5  # p = 0.001


@pytest.mark.parametrize("channels", [1, 3])
def test_without_options_images_are_only_normalized(channels: int) -> None:
    """All off: (value / 255 - mean) / std in float64, to a float32's rounding."""
    images, partners, weight = augmented(epoch_of(channels=channels), torch.arange(IMAGES), channels)
    mean, std = (np.array(values)[None, :, None, None] for values in STATISTICS[channels])
    expected = (split(channels).images.numpy() / 255 - mean) / std
    np.testing.assert_allclose(images.numpy(), expected, atol=1e-6)
    assert partners is None and weight is None
    evaluated = Normalization(facts(channels), device=CPU, layout=torch.contiguous_format)(split(channels).images)
    assert torch.equal(images, evaluated)
