"""From positions in a split to what a step consumes: augmented images with targets, or plain images for evaluation."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from study.config.run import Run
from study.data.feeding import Feeder, fits_on_device
from study.data.splits import Splits
from study.streams import stream
from study.training.augmentation import Augmentation, Normalisation, Target

EVALUATION_PIXELS = 2**20
"""Pixels of one evaluation batch: 1,024 images of 32 x 32. A constant, as the batch's size may change the last bits."""

AUGMENTATION_PIXELS = 2**17
"""Pixels that are augmented in one go, unless one batch has more; small images come many batches at a time, since
there the calls cost more than the pixels. An image's bits don't depend on it (`study.training.augmentation`)."""


class TrainingBatches:
    """The training images of `run`, each epoch in an order of its own, as augmented batches on `device`."""

    def __init__(self, run: Run, splits: Splits, *, device: torch.device, layout: torch.memory_format):
        self._seed, self._device, self._layout = run.seed, device, layout
        self._batch_size = run.train.batch_size
        self._images = len(splits.train)
        self._group = max(1, AUGMENTATION_PIXELS // (run.data.image_size**2 * self._batch_size))
        self._feeder = Feeder(splits.train, device, resident=fits_on_device(splits.train, device))
        self._augmentation = Augmentation(run.augment, splits.facts, seed=run.seed, images=self._images)
        self.mixes_labels = bool(run.augment.mixup or run.augment.cutmix)

    def epoch(self, epoch: int, *, first: int, count: int) -> Iterator[tuple[Tensor, Target]]:
        """Batches `first`, ..., `count` - 1 of an epoch counted from 0: images `b c h w` and their targets."""
        size = self._batch_size
        ids = shuffled(self._seed, epoch, images=self._images)[first * size : count * size]
        groups = torch.split(ids, size * self._group) if len(ids) else ()
        augment = self._augmentation.epoch(epoch, device=self._device, layout=self._layout)
        fed = self._feeder.batches(map(augment.rows, groups))
        for group, (pixels, labels) in zip(groups, fed, strict=True):
            images, target = augment(pixels, labels, group)
            parts = len(group) // size
            yield from zip(images.chunk(parts), target.chunk(parts), strict=True)


class EvaluationBatches:
    """One split's images in stored order, normalised, with their labels, as batches on `device`."""

    def __init__(self, splits: Splits, name: str, *, device: torch.device, layout: torch.memory_format):
        split = {"val": splits.val, "test": splits.test}[name]
        self._normalise = Normalisation(splits.facts, device=device, layout=layout)
        self._feeder = Feeder(split, device, resident=fits_on_device(split, device))
        self._positions = torch.split(torch.arange(len(split)), max(1, EVALUATION_PIXELS // splits.facts.image_size**2))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for pixels, labels in self._feeder.batches(self._positions):
            yield self._normalise(pixels), labels


def shuffled(seed: int, epoch: int, *, images: int) -> Tensor:
    """The order of the training images in an epoch: a function of seed and epoch alone, so that runs are paired."""
    return torch.from_numpy(stream(seed, "shuffle", epoch).permutation(images))
