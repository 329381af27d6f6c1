"""From positions in a split to what a step consumes: augmented images and their targets, or plain images for evaluation."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from study.config.run import Run
from study.data.feeding import Feeder, fits_on_device
from study.data.splits import Split, Splits
from study.streams import stream
from study.training.augmentation import Augmentation, Target

EVALUATION_PIXELS = 2**20
"""Pixels of one evaluation batch: 1,024 images of 32 x 32. A constant, as the batch's size may change the last bits."""


class TrainingBatches:
    """The training images of `run`, each epoch in an order of its own, as augmented batches."""

    def __init__(self, run: Run, split: Split, *, device: torch.device, layout: torch.memory_format):
        self._run, self._device, self._layout = run, device, layout
        self._feeder = Feeder(split, device, resident=fits_on_device(split, device))
        self._augmentation = Augmentation(run.augment)

    def epoch(self, epoch: int, *, first: int, count: int) -> Iterator[tuple[Tensor, Target]]:
        """Batches `first`, ..., `count` - 1 of an epoch counted from 0: images `b c h w` and their targets."""
        size = self._run.train.batch_size
        order = shuffled(self._run.seed, epoch, images=self._run.data.train_images)
        positions = list(order[: count * size].split(size))[first:]
        for at, (images, labels) in zip(positions, self._feeder.batches(positions), strict=True):
            yield images, labels


def shuffled(seed: int, epoch: int, *, images: int) -> Tensor:
    """The order of the training images in an epoch: a function of seed and epoch alone, so that runs are paired."""
    return torch.from_numpy(stream(seed, "shuffle", epoch).permutation(images))
