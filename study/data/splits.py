"""The images of a run as tensors: three splits that are rows of memory-mapped arrays.

No image is copied: a split of any size costs address space, and pages that are read are shared between workers.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from study.config.options import DataOptions
from study.data.cache import STORED_PARTS, StoredArrays
from study.data.dataset_info import DatasetInfo, check_labels, locate_splits
from study.data.datasets import DATASETS
from study.data.stratified_order import draw_seed_order
from study.rng import stream


@dataclass(frozen=True)
class Split:
    """Some of the stored images uint8 `m c h w` (memory-mapped): `rows`, `labels` and positions in the source, int64 `n` each.

    The source's own order is torchvision's for the published sets, scikit-learn's for digits, and for a folder its
    classes and in each its paths, sorted. Augmentation is keyed by an image's position in its split.
    """

    stored: Tensor
    rows: Tensor
    labels: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @staticmethod
    def whole(images: Tensor, labels: Tensor) -> "Split":
        """All images of an array, in its order."""
        rows = torch.arange(len(images))
        return Split(images, rows, labels=labels, indices=rows)

    @property
    def images(self) -> Tensor:
        """A copy of the split's images `n c h w`."""
        return self.stored[self.rows]


@dataclass(frozen=True)
class Splits:
    """What a run trains on, selects by, and is tested on once."""

    train: Split
    val: Split
    test: Split
    train_and_val: Split  # for final runs that are trained on all labelled training images
    info: DatasetInfo


@dataclass(frozen=True)
class StoredImages:
    """The images of a data set, of which each run gets its splits."""

    arrays: StoredArrays
    info: DatasetInfo

    @staticmethod
    def open(options: DataOptions, info: DatasetInfo) -> "StoredImages":
        """The images that `info` describes; raises UserError if the cache lacks them or doesn't match them."""
        arrays = DATASETS.find(options.name, key="data.name").open_arrays(options, info)
        check_labels(info, arrays.labels)
        return StoredImages(arrays, info)

    def divide(self, split: Literal["by_seed", "fixed"], seed: int) -> Splits:
        """The splits of a run. The test split is always the same; `by_seed`, the seed decides on the other two."""
        arrays, labels = self.arrays, self.arrays.labels
        order = {part: np.arange(len(labels[part])) for part in STORED_PARTS}
        if split == "by_seed":
            order["train"] = draw_seed_order(labels["train"], seed)

        def cut(part: str, piece: slice) -> Split:
            rows = order[part][piece]
            found = (torch.from_numpy(each) for each in (rows, labels[part][rows], arrays.order[part][rows]))
            return Split(torch.from_numpy(arrays.images[part]), *found)

        splits = {name: cut(part, piece) for name, (part, piece) in locate_splits(self.info).items()}
        both = slice(0, self.info.val_images + self.info.train_images)
        return Splits(**splits, train_and_val=cut("train", both), info=self.info)


def load_splits(options: DataOptions, info: DatasetInfo, *, seed: int | None = None) -> Splits:
    """The splits of a run with this seed, which a fixed split doesn't need; raises UserError as `StoredImages.open` does."""
    assert seed is not None or options.split == "fixed"
    return StoredImages.open(options, info).divide(options.split, seed or 0)


def make_random_splits(info: DatasetInfo, *, images: int) -> Splits:
    """Splits of `images` random images each, for whatever depends on shapes alone, where the real ones may be missing.

    Pixels are independent and uniform, and labels run through the classes in turn.
    """
    shape = (images, info.channels, info.image_size, info.image_size)

    def draw(name: str) -> Split:
        pixels = stream("noise", name).integers(0, 256, shape, dtype="uint8")
        return Split.whole(torch.from_numpy(pixels), torch.arange(images) % info.num_classes)

    train, val, test = map(draw, ("train", "val", "test"))
    both = Split.whole(torch.cat([val.stored, train.stored]), torch.cat([val.labels, train.labels]))
    sized = replace(info, train_images=images, val_images=images, test_images=images)
    return Splits(train=train, val=val, test=test, train_and_val=both, info=sized)
