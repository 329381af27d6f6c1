"""The images of a run as tensors: three splits that are slices of memory-mapped arrays.

Nothing is copied: a split of any size costs address space, and pages that are read are shared between workers.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from study.config.options import DataOptions
from study.data.cache import StoredArrays, open_store, read_source_info, store_path
from study.data.dataset_info import DatasetInfo, check_labels, locate_splits
from study.data.datasets import HOW_TO_PREPARE
from study.data.digits import read_digits
from study.errors import Problem, UserError
from study.rng import stream


@dataclass(frozen=True)
class Split:
    """Images uint8 `n c h w` (memory-mapped), labels int64 `n`, and `indices` int64 `n`: positions in the source.

    The source's own order is torchvision's for the published sets, scikit-learn's for digits, and for a folder its
    classes and in each its paths, sorted. Augmentation is keyed by an image's position in its split.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Splits:
    """What a run trains on, selects by, and is tested on once."""

    train: Split
    val: Split
    test: Split
    train_and_val: Split  # for final runs that are trained on all labelled training images
    info: DatasetInfo


def load_splits(options: DataOptions, info: DatasetInfo) -> Splits:
    """The splits that `info` describes; raises UserError if the cache lacks them or doesn't match them."""
    arrays = _open_arrays(options, info)
    check_labels(info, arrays.labels)

    def cut(part: str, rows: slice) -> Split:
        stored = (arrays.images, arrays.labels, arrays.order)
        return Split(*(torch.from_numpy(kind[part][rows]) for kind in stored))

    splits = {name: cut(part, rows) for name, (part, rows) in locate_splits(info).items()}
    return Splits(**splits, train_and_val=cut("train", slice(0, info.val_images + info.train_images)), info=info)


def make_random_splits(info: DatasetInfo, *, images: int) -> Splits:
    """Splits of `images` random images each, for whatever depends on shapes alone, where the real ones may be missing.

    Pixels are independent and uniform, and labels run through the classes in turn.
    """
    shape = (images, info.channels, info.image_size, info.image_size)
    indices = torch.arange(images)

    def draw(name: str) -> Split:
        pixels = stream("noise", name).integers(0, 256, shape, dtype="uint8")
        return Split(torch.from_numpy(pixels), labels=indices % info.num_classes, indices=indices)

    train, val, test = map(draw, ("train", "val", "test"))
    both = Split(torch.cat([val.images, train.images]), torch.cat([val.labels, train.labels]), torch.arange(2 * images))
    sized = replace(info, train_images=images, val_images=images, test_images=images)
    return Splits(train=train, val=val, test=test, train_and_val=both, info=sized)


def _open_arrays(options: DataOptions, info: DatasetInfo) -> StoredArrays:
    if info.name == "digits":
        return read_digits(info.image_size)[1]
    store = store_path(Path(options.cache), name=info.name, digest=info.digest, image_size=info.image_size)
    source = read_source_info(store)
    if source is None:
        rule = f"{info.name} is not prepared at {info.image_size} px: {HOW_TO_PREPARE}"
        raise UserError(Problem(rule, place=str(store), key="data.cache"))
    return open_store(store, source)
