"""All augmentation of a run, in its fixed order: resized crop, crop, flip, policy, color jitter; normalize; erase, mix.

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
from study.training.augmentation.pixels import change_selected, enlarge_boxes, locate_framed_pixels, move_pixels
from study.training.augmentation.policies import DrawnPolicy, make_policy
from study.training.keyed_bits import draw_normal


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
    """The augmentation of a run's `images` training images, in all epochs.

    With `repeats` r an image i is augmented as each of the r rows i, i + `images`, i + 2 `images`, ...
    """

    def __init__(self, options: AugmentOptions, facts: DatasetInfo, *, seed: int, images: int):
        self.options, self.facts, self.seed, self.images = options, facts, seed, images
        self.policy = make_policy(options, facts)

    def epoch(self, epoch: int, *, device: torch.device, layout: torch.memory_format) -> "EpochAugmentation":
        """The augmentation of one epoch, counted from 0, with its parameters drawn and on the device."""
        options = self.options
        draws = Draws(seed=self.seed, epoch=epoch, images=self.images * options.repeats, size=self.facts.image_size)
        mixing = draw_mixing(draws, options)
        jitter = draw_jitter(draws, options.color_jitter) if options.color_jitter else None

        def to_device(rows: npt.NDArray[np.int64] | None) -> Tensor | None:
            return None if rows is None else torch.from_numpy(rows).to(device)

        return EpochAugmentation(
            normalize=Normalization(self.facts, device=device, layout=layout),
            cropped=to_device(draws.draw_crops(options.resized_crop) if options.resized_crop < 1 else None),
            framing=to_device(draws.draw_framing(crop=options.crop, flip=options.flip)),
            policy=None if self.policy is None else self.policy.draw(draws).to(device),
            jitter=jitter and jitter.to(device),
            erasing=self._draw_erasing(draws, device),
            mixing=mixing and mixing.to(device),
        )

    def _draw_erasing(self, draws: Draws, device: torch.device) -> "Erasing | None":
        options = self.options
        if not options.erasing:
            return None
        keys = draws.keys("erasing noise").to(device) if options.erasing_mode == "pixel" else None
        return Erasing(torch.from_numpy(draws.draw_erasing(options.erasing, options.erasing_mode)).to(device), keys)


@dataclass(frozen=True)
class Erasing:
    """Rectangles of normalized images that are set to the mean, or with `keys` to noise of unit variance."""

    box: Tensor  # int64 `n 4`
    keys: Tensor | None  # int32 `n 2`

    def __call__(self, normal: Tensor, rows: Tensor) -> Tensor:
        """Images float `b c h w` of the rows `b`, in the same memory."""
        if self.keys is None:
            return normal.masked_fill_(fill_boxes(self.box[rows], normal.shape[-1]), 0.0)  # 0 is the mean here
        noisy = change_selected(self.box[rows].any(dim=1), normal, lambda at: self._add_noise(normal[at], rows[at]))
        return normal.copy_(noisy)

    def _add_noise(self, normal: Tensor, rows: Tensor) -> Tensor:
        assert self.keys is not None
        noise = draw_normal(self.keys[rows], normal[0].numel()).view_as(normal)
        return torch.where(fill_boxes(self.box[rows], normal.shape[-1]), noise, normal)


@dataclass(frozen=True)
class EpochAugmentation:
    """One epoch's parameters, a row per training image, and how they are applied. None: the operation is off."""

    normalize: Normalization
    cropped: Tensor | None  # int64 `n 4`
    framing: Tensor | None  # int64 `n 3`
    policy: DrawnPolicy | None
    jitter: Jitter | None
    erasing: Erasing | None
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
        if self.policy is not None:
            images = self.policy(images, ids)
        if self.jitter is not None:
            images = self.jitter(images, ids)
        normal = self.normalize(images)
        return normal if self.erasing is None else self.erasing(normal, ids)
