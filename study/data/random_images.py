"""Random images in the shape of a data set: for whatever depends on shapes alone, where the real ones may be missing."""

from __future__ import annotations

import dataclasses

import torch

from study.data.dataset_info import DatasetInfo
from study.data.splits import Split, Splits
from study.rng import stream


def make_random_splits(facts: DatasetInfo, *, images: int) -> Splits:
    """Splits of `images` images each, every pixel drawn by itself, labelled class by class in turn."""
    train, val, test = (_noise(facts, images, name) for name in ("train", "val", "test"))
    both = Split(
        images=torch.cat([val.images, train.images]),
        labels=torch.cat([val.labels, train.labels]),
        indices=torch.arange(2 * images),
    )
    sized = dataclasses.replace(facts, train_images=images, val_images=images, test_images=images)
    return Splits(train=train, val=val, test=test, train_and_val=both, info=sized)


def _noise(facts: DatasetInfo, images: int, name: str) -> Split:
    shape = (images, facts.channels, facts.image_size, facts.image_size)
    pixels = stream("noise", name).integers(0, 256, shape, dtype="uint8")
    at = torch.arange(images)
    return Split(images=torch.from_numpy(pixels), labels=at % facts.num_classes, indices=at)
