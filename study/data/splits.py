"""The images of a run as tensors: three splits that are slices of memory-mapped arrays.

Nothing is copied: a split of any size costs address space, and pages that are read are shared between workers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from study.config.options import DataOptions
from study.data.cache import Arrays, open_store, read_stored, store_path
from study.data.dataset_info import DatasetInfo, check_labels, rows
from study.data.datasets import UNPREPARED
from study.data.digits import read_digits
from study.errors import Problem, UserError


@dataclass(frozen=True)
class Split:
    """Images uint8 `n c h w` (memory-mapped), labels int64 `n`, and `indices` int64 `n`: positions in the source.

    The source's own order is torchvision's for the published sets, scikit-learn's for digits, and for a folder its
    classes and in each its paths, sorted. Augmentation knows an image by its position in its split.
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
    train_and_val: Split  # for final runs that are fitted on all labelled training images
    info: DatasetInfo


def load_splits(options: DataOptions, facts: DatasetInfo) -> Splits:
    """The splits that `facts` describes; raises UserError where the cache lacks them or doesn't fit them."""
    arrays = _arrays(options, facts)
    check_labels(facts, arrays.labels)
    pieces = {name: _split(arrays, part, piece) for name, (part, piece) in rows(facts).items()}
    fitted_on = slice(0, facts.val_images + facts.train_images)
    return Splits(**pieces, train_and_val=_split(arrays, "train", fitted_on), info=facts)


def _split(arrays: Arrays, part: str, piece: slice) -> Split:
    return Split(
        images=torch.from_numpy(arrays.images[part][piece]),
        labels=torch.from_numpy(arrays.labels[part][piece]),
        indices=torch.from_numpy(arrays.order[part][piece]),
    )


def _arrays(options: DataOptions, facts: DatasetInfo) -> Arrays:
    if facts.name == "digits":
        return read_digits(facts.image_size)[1]
    store = store_path(Path(options.cache), name=facts.name, digest=facts.digest, image_size=facts.image_size)
    stored = read_stored(store)
    if stored is None:
        rule = f"{facts.name} is not prepared at {facts.image_size} px: {UNPREPARED}"
        raise UserError(Problem(rule, place=str(store), key="data.cache"))
    return open_store(store, stored)
