"""All augmentation of a run, in its fixed order: resized crop, crop, flip, RandAugment, color jitter; normalize; erase, mix.

    augmentation = Augmentation(run.augment, splits.info, seed=run.seed, images=len(split))
    augment = augmentation.epoch(epoch, device=device, layout=torch.channels_last)
    images, target = augment(*loader.load_batch(augment.rows(ids)), ids)

On a GPU a call launches the same kernels whatever is drawn and never makes the host wait. It may process the images of
several batches at once, which saves launches: an image's bits don't depend on its batch.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from study.config.options import AugmentOptions
from study.data import DatasetInfo
from study.training.augmentation.draws import Draws
from study.training.augmentation.jitter import Jitter, draw_jitter
from study.training.augmentation.mixing import Mixing, Target, draw_mixing, fill_boxes
from study.training.augmentation.pixels import enlarge_boxes, locate_framed_pixels, move_pixels
from study.training.augmentation.randaugment import RandAugment, draw_variants, make_randaugment


class Normalization:
    """From uint8 `b c h w` to float32 of zero mean and unit deviation per channel, in the given memory layout."""

    def __init__(self, facts: DatasetInfo, *, device: torch.device, layout: torch.memory_format):
        mean, std = (torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1) for values in (facts.mean, facts.std))
        self.scale = (1 / (255 * std)).float().to(device)
        self.shift = (mean / std).float().to(device)
        self.layout = layout

    def __call__(self, images: Tensor) -> Tensor:
        return images.to(torch.float32, memory_format=self.layout).mul_(self.scale).sub_(self.shift)


class Augmentation:
    """The augmentation of a run's `images` training images, in all epochs."""

    def __init__(self, options: AugmentOptions, facts: DatasetInfo, *, seed: int, images: int):
        self.options, self.facts, self.seed, self.images = options, facts, seed, images
        self.operations = make_randaugment(options.randaugment_m, facts.image_size) if options.randaugment_n else None

    def epoch(self, epoch: int, *, device: torch.device, layout: torch.memory_format) -> "EpochAugmentation":
        """The augmentation of one epoch, counted from 0, with its parameters drawn and on the device."""
        options = self.options
        draws = Draws(seed=self.seed, epoch=epoch, images=self.images, size=self.facts.image_size)
        mixing = draw_mixing(draws, options)
        jitter = draw_jitter(draws, options.color_jitter) if options.color_jitter else None

        def to_device(rows: npt.NDArray[np.int64] | None) -> Tensor | None:
            return None if rows is None else torch.from_numpy(rows).to(device)

        return EpochAugmentation(
            normalize=Normalization(self.facts, device=device, layout=layout),
            cropped=to_device(draws.draw_crops(options.resized_crop) if options.resized_crop < 1 else None),
            framing=to_device(draws.draw_framing(crop=options.crop, flip=options.flip)),
            operations=self.operations and self.operations.to(device),
            variants=to_device(draw_variants(draws, options.randaugment_n) if options.randaugment_n else None),
            jitter=jitter and jitter.to(device),
            erased=to_device(draws.draw_erasing(options.erasing) if options.erasing else None),
            mixing=mixing and mixing.to(device),
        )


@dataclass(frozen=True)
class EpochAugmentation:
    """One epoch's parameters, a row per training image, and how they are applied. None: the operation is off."""

    normalize: Normalization
    cropped: Tensor | None  # int64 `n 4`
    framing: Tensor | None  # int64 `n 3`
    operations: RandAugment | None
    variants: Tensor | None  # int64 `n layers`
    jitter: Jitter | None
    erased: Tensor | None  # int64 `n 4`
    mixing: Mixing | None

    def rows(self, ids: Tensor) -> Tensor:
        """The images that a batch of the images `ids` `b` needs: `ids`, then the partner of each where mixed."""
        if self.mixing is None:
            return ids
        return torch.cat([ids, self.mixing.partners(ids)])

    def __call__(self, images: Tensor, labels: Tensor, ids: Tensor) -> tuple[Tensor, Target]:
        """Images uint8 and labels of `rows(ids)`, as float32 `b c h w` and the target of the images `ids` `b`."""
        ids = ids.to(images.device, non_blocking=True)
        if self.mixing is None:
            return self.augment_pixels(images, ids), Target(labels)
        augmented = self.augment_pixels(images, self.rows(ids))
        (own, partners), (own_labels, partner_labels) = augmented.chunk(2), labels.chunk(2)
        target = Target(own_labels, partner_labels, self.mixing.weight[ids])
        return self.mixing(own, partners, ids), target

    def augment_pixels(self, images: Tensor, ids: Tensor) -> Tensor:
        """Images uint8 `b c h w` of the rows `ids` `b`, augmented and normalized but not mixed."""
        if self.cropped is not None:
            images = enlarge_boxes(images, self.cropped[ids])
        if self.framing is not None:
            images = move_pixels(images, locate_framed_pixels(self.framing[ids], images.shape[-1]))
        if self.operations is not None and self.variants is not None:
            for variant in self.variants[ids].unbind(1):
                images = self.operations(images, variant)
        if self.jitter is not None:
            images = self.jitter(images, ids)
        normal = self.normalize(images)
        if self.erased is not None:
            normal.masked_fill_(fill_boxes(self.erased[ids], normal.shape[-1]), 0.0)  # 0 is the mean here
        return normal
