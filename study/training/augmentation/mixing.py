"""Mixup and CutMix, by which an image and its label are mixed with those of a partner, and the target that results.

The partner of image i is the i-th of a permutation of the training set that is keyed by (seed, epoch); it isn't a
neighbor in the batch. It is augmented with its own parameters first. Zhang et al., "mixup", ICLR 2018, equation 1,
with a weight per image; Yun et al., "CutMix", ICCV 2019. Where both are on, each image draws one of the two with
probability 1/2.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from study.config.options import AugmentOptions
from study.training.augmentation.draws import Draws


@dataclass(frozen=True)
class Target:
    """Labels int64 `b`; where images are mixed also their partners' labels `b` and the weight of `labels`, float `b`.

    The loss of an image is weight x loss(labels) + (1 - weight) x loss(partners).
    """

    labels: Tensor
    partners: Tensor | None = None
    weight: Tensor | None = None

    def chunk(self, parts: int) -> list["Target"]:
        """The targets of the parts of the batch, as `Tensor.chunk` makes them of its images."""
        labels = self.labels.chunk(parts)
        if self.partners is None or self.weight is None:
            return [Target(own) for own in labels]
        columns = labels, self.partners.chunk(parts), self.weight.chunk(parts)
        return [Target(*column) for column in zip(*columns, strict=True)]


@dataclass(frozen=True)
class Mixing:
    """One epoch's partners and weights; a row per image."""

    partner: Tensor  # int64 `n`
    partner_on_host: Tensor  # the same, as images that are streamed are fetched by the host
    weight: Tensor  # float32 `n`: of the image, and of its label, in the mixture
    box: Tensor  # int64 `n 4`: what is pasted from the partner; empty where the two are blended
    blends: Tensor  # bool `n`

    def to(self, device: torch.device) -> "Mixing":
        moved = {each.name: getattr(self, each.name).to(device) for each in fields(self)}
        return Mixing(**moved | {"partner_on_host": self.partner_on_host})

    def partners(self, ids: Tensor) -> Tensor:
        """The partners of the images `ids`, on their device."""
        return self.partner_on_host[ids] if ids.device.type == "cpu" else self.partner[ids]

    def __call__(self, images: Tensor, partners: Tensor, at: Tensor) -> Tensor:
        """`images` float `b c h w` of the rows `at` `b`, mixed with their `partners`."""
        pasted = fill_boxes(self.box[at], images.shape[-1])
        constant = self.weight[at].view(-1, 1, 1, 1)
        own = torch.where(self.blends[at].view(-1, 1, 1, 1), constant, (~pasted).to(images.dtype))
        return images * own + partners * (1 - own)


def mixes_images(options: AugmentOptions, epoch: int) -> bool:
    """Whether images are mixed in an epoch, counted from 0."""
    return bool(options.mixup or options.cutmix) and not 0 < options.mixup_off_epoch <= epoch


def draw_mixing(draws: Draws, options: AugmentOptions) -> Mixing | None:
    """An epoch's mixing, or None where there is none."""
    if not mixes_images(options, draws.epoch):
        return None
    if options.mixup and options.cutmix:
        blends = draws.below("mixup or cutmix", 2)[:, 0] == 0
    else:
        blends = np.full(draws.images, bool(options.mixup))
    weight, box = np.ones(draws.images), np.zeros((draws.images, 4), dtype=np.int64)
    if options.cutmix:
        box = np.where(blends[:, None], 0, draws.draw_cutmix(options.cutmix))
        weight = 1 - (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2]) / draws.size**2
    if options.mixup:
        weight = np.where(blends, draws.beta("mixup", options.mixup), weight)
    if options.mixup_prob < 1:  # an image that stays has the weight 1 in a mixture without a rectangle
        mixed = draws.uniform("mixed", 1)[:, 0] < options.mixup_prob
        blends, weight, box = blends & mixed, np.where(mixed, weight, 1.0), np.where(mixed[:, None], box, 0)
    partner = torch.from_numpy(draws.permutation("partner"))
    return Mixing(
        partner=partner,
        partner_on_host=partner,
        weight=torch.from_numpy(weight.astype(np.float32)),
        box=torch.from_numpy(box),
        blends=torch.from_numpy(blends),
    )


def fill_boxes(box: Tensor, size: int) -> Tensor:
    """Masks of the pixels inside each rectangle (top, bottom, left, right) `b 4`, bool `b 1 h w`."""
    at = torch.arange(size, device=box.device)
    top, bottom, left, right = (edge[:, None] for edge in box.unbind(1))
    rows, columns = (at >= top) & (at < bottom), (at >= left) & (at < right)
    return (rows[:, :, None] & columns[:, None, :])[:, None]
