"""What a data set is, in numbers: its identity, its sizes, its classes and its normalisation.

`SourceInfo` describe a whole source, before options choose a part of it; `DatasetInfo` describe what one run sees.
Neither holds an image, and nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from study.config.options import DataOptions
from study.data.stratified_order import Integers
from study.errors import Problem, UserError

SHOWN_CLASSES = 8


@dataclass(frozen=True)
class SourceInfo:
    """A whole source as it is stored: `train_images` rows from which val is cut, and `test_images` rows."""

    name: str
    digest: str  # sha256 (hex) of the content, not of where it lies
    image_size: int  # pixels; images are square
    channels: int
    class_names: tuple[str, ...]
    train_images: int  # with the validation images
    test_images: int
    mean: tuple[float, ...]  # per channel, of values in [0, 1], over training images
    std: tuple[float, ...]
    fraction_of: int  # how many images `val_fraction` is a fraction of


@dataclass(frozen=True)
class DatasetInfo:
    """What one run sees of a data set: counts are after subsetting, the digest is of the whole source."""

    name: str
    digest: str
    image_size: int
    channels: int
    class_names: tuple[str, ...]
    train_images: int
    val_images: int
    test_images: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


def select(stored: SourceInfo, options: DataOptions) -> DatasetInfo:
    """The part of a source that the options ask for; raises UserError where it asks for more than there is."""
    val_images = round(options.val_fraction * stored.fraction_of)
    available = {"train_images": stored.train_images - val_images, "test_images": stored.test_images}
    chosen = {"train_images": options.train_images, "test_images": options.test_images}
    problems = [
        Problem(f"{stored.name} has {available[key]:,} to choose from", key=f"data.{key}", value=count)
        for key, count in chosen.items()
        if count is not None and count > available[key]
    ] + [
        Problem(f"{len(stored.class_names)} classes need at least as many images", key=f"data.{key}", value=count)
        for key, count in chosen.items()
        if count is not None and count < len(stored.class_names)
    ]
    if val_images < len(stored.class_names):
        least = math.ceil(1e6 * len(stored.class_names) / stored.fraction_of) / 1e6
        rule = (
            f"leaves {val_images:,} validation images for {len(stored.class_names):,} classes, and each needs one: "
            f"{least:g} at the least"
        )
        problems.append(Problem(rule, key="data.val_fraction", value=options.val_fraction))
    if problems:
        raise UserError(*problems)
    return DatasetInfo(
        name=stored.name,
        digest=stored.digest,
        image_size=stored.image_size,
        channels=stored.channels,
        class_names=stored.class_names,
        train_images=options.train_images or available["train_images"],
        val_images=val_images,
        test_images=options.test_images or available["test_images"],
        mean=stored.mean,
        std=stored.std,
    )


def rows(facts: DatasetInfo) -> dict[str, tuple[str, slice]]:
    """Where each split lies: the stored array ("train" or "test") and its rows."""
    end = facts.val_images + facts.train_images
    return {
        "train": ("train", slice(facts.val_images, end)),
        "val": ("train", slice(0, facts.val_images)),
        "test": ("test", slice(0, facts.test_images)),
    }


def check_labels(facts: DatasetInfo, labels: dict[str, Integers]) -> None:
    """Refuse labels `n` (by stored array, in stored order) outside the classes, and splits that lack a class."""
    problems = [
        Problem(
            f"labels of {facts.name} must lie in 0..{facts.num_classes - 1}; {len(wrong):,} of the {name} set don't",
            value=sorted({int(label) for label in wrong})[:SHOWN_CLASSES],
        )
        for name, array in labels.items()
        if len(wrong := array[(array < 0) | (array >= facts.num_classes)])
    ]
    if problems:
        raise UserError(*problems)
    for split, (name, part) in rows(facts).items():
        counts = np.bincount(labels[name][part], minlength=facts.num_classes)
        missing = [facts.class_names[c] for c in np.flatnonzero(counts == 0)]
        if missing:
            problems.append(Problem(_lacking(split, missing), key=_key_that_mends(split), value=int(counts.sum())))
    if problems:
        raise UserError(*problems)


def _lacking(split: str, missing: Sequence[str]) -> str:
    shown = ", ".join(missing[:SHOWN_CLASSES]) + (", ..." if len(missing) > SHOWN_CLASSES else "")
    return f"the {split} split has no image of {len(missing)} class{'es' if len(missing) > 1 else ''} ({shown})"


def _key_that_mends(split: str) -> str:
    return {"train": "data.train_images", "val": "data.val_fraction", "test": "data.test_images"}[split]
