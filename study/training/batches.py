"""Batches for training (augmented images with targets) and for evaluation (normalized images with labels)."""

from collections.abc import Iterator

import torch
from torch import Tensor

from study.config.run import Run
from study.data import DatasetInfo
from study.data.batch_loader import BatchLoader, can_fit_on_device
from study.data.permutation import find_permutation, permute_positions
from study.data.splits import Split, Splits
from study.rng import stream
from study.training.augmentation import Augmentation, Normalization, Target
from study.training.augmentation.mixing import mixes_images
from study.training.distributed import SINGLE_RANK, Ranks
from study.training.memory_layout import to_memory_format
from study.training.optimizer import count_epoch_steps

EVALUATION_PIXELS = 2**20
"""Pixels of an evaluation batch: 1,024 images of 32 x 32. A constant, as the batch size may change the last bits."""

AUGMENTATION_PIXELS = {"cpu": 2**17, "cuda": 2**22}
"""Pixels that are augmented in one call, unless one batch has more. Several batches of small images are augmented at once, as
there the calls cost more than the pixels. An image's bits don't depend on it (`study.training.augmentation`)."""


class TrainingBatches:
    """The images that `run` is fitted on as augmented batches on `device`, in a different order in each epoch.

    Each of several ranks gets its part of every batch. Raises UserError where the images don't fill one batch.
    """

    def __init__(
        self, run: Run, splits: Splits, *, device: torch.device, layout: torch.memory_format, ranks: Ranks = SINGLE_RANK
    ):
        split = splits.train_and_val if run.train.fit_on == "train+val" else splits.train
        self._seed, self._device, self._layout, self._ranks = run.seed, device, layout, ranks
        self._batch_size, self._images = run.train.batch_size, len(split)
        self.epoch_steps = count_epoch_steps(self._images, self._batch_size)
        self.steps = run.train.count_steps(self.epoch_steps)  # of the whole training, whose last epoch may be shorter
        pixels = run.data.image_size**2 * self._batch_size // ranks.size
        self._group = max(1, AUGMENTATION_PIXELS[device.type] // pixels)
        self._loader = BatchLoader(split, device, resident=can_fit_on_device(split, device))
        self._augmentation = Augmentation(run.augment, splits.info, seed=run.seed, images=self._images)
        self._permutation = find_input_permutation(run, device)
        self._options = run.augment

    def mixes_labels(self, epoch: int) -> bool:
        """Whether images of an epoch have two labels, so that hits are no accuracy."""
        return mixes_images(self._options, epoch)

    def epoch(self, epoch: int, *, first: int = 0) -> Iterator[tuple[Tensor, Target]]:
        """The batches of an epoch (counted from 0) from number `first` on: images `b c h w` and their targets."""
        steps = min(self.epoch_steps, self.steps - epoch * self.epoch_steps)
        ids = repeat_images(shuffle_images(self._seed, epoch, images=self._images), self._options.repeats)
        ids = ids[: steps * self._batch_size]
        ids = self._ranks.split_batches(ids.view(steps, self._batch_size)[first:])
        size = ids.shape[1]
        ids = ids.flatten()
        if self._loader.resident:  # all at once, as a transfer per batch would make the host wait for the device
            ids = ids.to(self._device)
        groups = torch.split(ids, size * self._group) if len(ids) else ()
        augment = self._augmentation.epoch(epoch, device=self._device, layout=self._layout)
        fed = self._loader.load_batches(augment.rows(group) % self._images for group in groups)
        for group, (pixels, labels) in zip(groups, fed, strict=True):
            augmented, target = augment(pixels, labels, group)
            images = to_memory_format(permute_positions(augmented, self._permutation), self._layout)
            parts = len(group) // size
            yield from zip(images.chunk(parts), target.chunk(parts), strict=True)


class EvaluationBatches:
    """One split's images in stored order, normalized, with their labels, as batches on `device`.

    Each of several ranks gets some of the batches; how images are grouped into batches doesn't depend on the number of ranks.
    """

    def __init__(
        self,
        split: Split,
        *,
        facts: DatasetInfo,
        device: torch.device,
        layout: torch.memory_format,
        ranks: Ranks = SINGLE_RANK,
        permutation: Tensor | None = None,
    ):
        self._normalize = Normalization(facts, device=device, layout=layout)
        self._permutation = permutation
        self._loader = BatchLoader(split, device, resident=can_fit_on_device(split, device))
        positions = torch.split(torch.arange(len(split)), max(1, EVALUATION_PIXELS // facts.image_size**2))
        self._positions = ranks.split_items(positions)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for pixels, labels in self._loader.load_batches(self._positions):
            yield self._normalize(permute_positions(pixels, self._permutation)), labels


def find_input_permutation(run: Run, device: torch.device) -> Tensor | None:
    """The permutation of the run's images (`study.data.permutation`), on its device."""
    found = find_permutation(run.data, image_size=run.data.image_size, patch_size=run.model.patch_size)
    return None if found is None else found.to(device)


def repeat_images(order: Tensor, repeats: int) -> Tensor:
    """As many rows as there are images: the first images of the epoch's order, each augmented `repeats` times in a row.

    So an epoch is as long as without repeats (Hoffer et al., "Augment your batch", CVPR 2020, as DeiT's sampler does it).
    """
    images = len(order)
    return (order[: -(-images // repeats)][:, None] + images * torch.arange(repeats)).flatten()[:images]


def shuffle_images(seed: int, epoch: int, *, images: int) -> Tensor:
    """The order of the training images in an epoch: a function of seed and epoch alone, so that runs of a seed are paired."""
    return torch.from_numpy(stream(seed, "shuffle", epoch).permutation(images))
