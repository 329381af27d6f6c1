"""Random images in the shape of a data set: for whatever depends on shapes alone, where the real ones may be missing."""

from __future__ import annotations

import dataclasses

import torch

from study.data.dataset_info import DatasetInfo
from study.data.splits import Split, Splits
from study.rng import stream


def make_random_splits(info: DatasetInfo, *, images: int) -> Splits:
    """Splits of `images` images each: independent uniform pixels, and labels that run through the classes in turn."""
    shape = (images, info.channels, info.image_size, info.image_size)
    indices = torch.arange(images)

    def draw(name: str) -> Split:
        pixels = stream("noise", name).integers(0, 256, shape, dtype="uint8")
        return Split(torch.from_numpy(pixels), labels=indices % info.num_classes, indices=indices)

    train, val, test = map(draw, ("train", "val", "test"))
    both = Split(
        images=torch.cat([val.images, train.images]),
        labels=torch.cat([val.labels, train.labels]),
        indices=torch.arange(2 * images),
    )
    sized = dataclasses.replace(info, train_images=images, val_images=images, test_images=images)
    return Splits(train=train, val=val, test=test, train_and_val=both, info=sized)
