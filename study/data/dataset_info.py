"""What a data set is, in numbers: its identity, sizes, classes and normalization.

`SourceInfo` describes a whole source, before options choose a part of it; `DatasetInfo` describes what one run sees.
Neither holds an image, and nothing here imports torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np

from study.config.documents import STORED
from study.config.options import DataOptions
from study.data.stratified_order import Int64Array
from study.errors import Problem, UserError

_LISTED = 8  # classes or labels per problem


@dataclass(frozen=True)
class _Info:
    __pydantic_config__ = STORED
    name: str
    digest: str  # sha256 (hex) of the content, not of its location
    image_size: int  # pixels; images are square
    channels: int
    class_names: tuple[str, ...]
    train_images: int
    test_images: int
    mean: tuple[float, ...]  # per channel, of values in [0, 1], over training images
    std: tuple[float, ...]
    notes: tuple[str, ...] = field(default=(), kw_only=True, compare=False)  # what a reader of the results should know


@dataclass(frozen=True)
class SourceInfo(_Info):
    """A whole source as it is stored: `train_images` rows, of which some become the validation split, and `test_images`."""

    fraction_of: int  # the number of images that `val_fraction` is a fraction of


@dataclass(frozen=True)
class DatasetInfo(_Info):
    """What one run sees of a data set: image counts are after subsetting, the digest is of the whole source."""

    val_images: int

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


def select_images(source: SourceInfo, options: DataOptions) -> DatasetInfo:
    """The part of a source that the options ask for; raises UserError where they ask for more than it has."""
    val_images, classes = round(options.val_fraction * source.fraction_of), len(source.class_names)
    available = {"train_images": source.train_images - val_images, "test_images": source.test_images}
    chosen = {"train_images": options.train_images, "test_images": options.test_images}
    problems = [
        Problem(f"{source.name} has {available[key]:,} to choose from", key=f"data.{key}", value=count)
        for key, count in chosen.items()
        if count is not None and count > available[key]
    ] + [
        Problem(f"{classes} classes need at least as many images", key=f"data.{key}", value=count)
        for key, count in chosen.items()
        if count is not None and count < classes
    ]
    if val_images < classes:
        least = math.ceil(1e6 * classes / source.fraction_of) / 1e6
        rule = f"leaves {val_images:,} validation images for {classes:,} classes, which need one each: at least {least:g}"
        problems.append(Problem(rule, key="data.val_fraction", value=options.val_fraction))
    if problems:
        raise UserError(*problems)
    counts = {key: count or available[key] for key, count in chosen.items()}
    shared = {each.name: getattr(source, each.name) for each in fields(_Info)}
    return DatasetInfo(**shared | counts, val_images=val_images)


def locate_splits(info: DatasetInfo) -> dict[str, tuple[str, slice]]:
    """Where each split is: the stored array ("train" or "test") and a piece of its fixed or its seed's order."""
    end = info.val_images + info.train_images
    return {
        "train": ("train", slice(info.val_images, end)),
        "val": ("train", slice(0, info.val_images)),
        "test": ("test", slice(0, info.test_images)),
    }


def check_labels(info: DatasetInfo, labels: Mapping[str, Int64Array]) -> None:
    """Raise UserError for labels `n` (by stored array, in stored order) outside the classes, and splits that lack a class.

    A seed's splits have as many images of each class as the fixed ones.
    """
    problems = [
        Problem(
            f"labels of {info.name} must be in 0..{info.num_classes - 1}; {len(wrong):,} of the {array} set are not",
            value=sorted({int(label) for label in wrong})[:_LISTED],
        )
        for array, values in labels.items()
        if len(wrong := values[(values < 0) | (values >= info.num_classes)])
    ]
    if problems:
        raise UserError(*problems)
    keys = {"train": "data.train_images", "val": "data.val_fraction", "test": "data.test_images"}
    for split, (array, rows) in locate_splits(info).items():
        counts = np.bincount(labels[array][rows], minlength=info.num_classes)
        missing = [info.class_names[label] for label in np.flatnonzero(counts == 0)]
        if missing:
            listed = ", ".join(missing[:_LISTED]) + (", ..." if len(missing) > _LISTED else "")
            classes = f"{len(missing)} class{'es' if len(missing) > 1 else ''} ({listed})"
            problems.append(Problem(f"the {split} split has no image of {classes}", key=keys[split], value=int(counts.sum())))
    if problems:
        raise UserError(*problems)
