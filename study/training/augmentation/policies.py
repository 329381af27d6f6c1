"""Policies: which operations each image gets, and how strong they are.

RandAugment (Cubuk et al., 2019), AutoAugment (Cubuk et al., CVPR 2019) and TrivialAugment (Müller and Hutter, ICCV 2021) have
the magnitudes and the pixels of torchvision's on Pillow images, as the recipes that use them were trained on these. Each
image's draws are keyed; given the same operation, bin and sign, its pixels are torchvision's. timm's RandAugment, whose
magnitudes are drawn from a continuum, is in `study.training.augmentation.timm_randaugment`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from study.config.options import AugmentOptions
from study.data import DatasetInfo
from study.registries import Registry
from study.training.augmentation.draws import Draws
from study.training.augmentation.operations import OPERATIONS, SIGNS, Variants, make_variants
from study.training.augmentation.timm_randaugment import TimmRandAugment

BINS = 31  # of RandAugment and TrivialAugment; AutoAugment's policies have ten
_FOURTEEN = OPERATIONS[:14]
_MAGNITUDES = {
    "shear_x": (0.0, 0.3),
    "shear_y": (0.0, 0.3),
    "translate_x": (0.0, 150.0 / 331.0),
    "translate_y": (0.0, 150.0 / 331.0),
    "rotate": (0.0, 30.0),
    **dict.fromkeys(("brightness", "color", "contrast", "sharpness"), (0.0, 0.9)),
    "posterize": (8.0, 4.0),
    "solarize": (255.0, 0.0),
}
"""torchvision's magnitudes at the first and the last bin, before their sign; of translations in units of the image's size."""
_WIDE = {
    **dict.fromkeys(("shear_x", "shear_y", "brightness", "color", "contrast", "sharpness"), (0.0, 0.99)),
    "translate_x": (0.0, 32.0),
    "translate_y": (0.0, 32.0),
    "rotate": (0.0, 135.0),
    "posterize": (8.0, 2.0),
    "solarize": (255.0, 0.0),
}
"""The same of TrivialAugment's wide space, whose translations are in pixels."""


class Policy(Protocol):
    """What a run does to its images in all epochs."""

    def draw(self, draws: Draws) -> "DrawnPolicy": ...


class DrawnPolicy(Protocol):
    """An epoch's operations, a row per image."""

    def to(self, device: torch.device) -> "DrawnPolicy": ...

    def __call__(self, images: Tensor, rows: Tensor) -> Tensor:
        """Images uint8 `b c h w` after the operations in the rows `b`."""
        ...


@dataclass(frozen=True)
class DrawnVariants:
    """Variants that are applied to each image one after the other: `chosen` int64 `n layers`."""

    variants: Variants
    chosen: Tensor

    def to(self, device: torch.device) -> "DrawnVariants":
        return DrawnVariants(self.variants.to(device), self.chosen.to(device))

    def __call__(self, images: Tensor, rows: Tensor) -> Tensor:
        for variant in self.chosen[rows].unbind(1):
            images = self.variants(images, variant)
        return images


class RandAugment:
    """`layers` operations per image, each uniform over fourteen, at one magnitude of 0..30 and with a uniform sign."""

    def __init__(self, *, layers: int, magnitude: int, image_size: int) -> None:
        self._layers = layers
        pairs = [(name, find_strength(name, magnitude, image_size)) for name in _FOURTEEN]
        self.variants = make_variants([(name, sign * strength) for name, strength in pairs for sign in SIGNS], image_size)

    def draw(self, draws: Draws) -> DrawnVariants:
        numbers = [draws.below(f"randaugment {layer}", len(_FOURTEEN), len(SIGNS)) for layer in range(self._layers)]
        return _choose(self.variants, np.stack([drawn[:, 0] * len(SIGNS) + drawn[:, 1] for drawn in numbers], axis=1))


class TrivialAugment:
    """One operation per image, uniform over fourteen, at a magnitude uniform over 31 and with a uniform sign."""

    def __init__(self, *, image_size: int) -> None:
        pairs = [(name, find_wide_strength(name, magnitude)) for name in _FOURTEEN for magnitude in range(BINS)]
        self.variants = make_variants([(name, sign * strength) for name, strength in pairs for sign in SIGNS], image_size)

    def draw(self, draws: Draws) -> DrawnVariants:
        bounds = len(_FOURTEEN), BINS, len(SIGNS)
        return _choose(self.variants, np.ravel_multi_index(tuple(draws.below("trivialaugment", *bounds).T), bounds)[:, None])


class AutoAugment:
    """One of the 25 pairs of operations that were found for a data set, each applied with its own probability.

    The pairs are torchvision's, named as there: `imagenet`, `cifar10`, `svhn`.
    """

    def __init__(self, found_for: str, *, image_size: int) -> None:
        from study.data.torchvision_schema import declare_missing_operators

        declare_missing_operators()
        from torchvision.transforms import autoaugment

        policies = autoaugment.AutoAugment(autoaugment.AutoAugmentPolicy(found_for)).policies
        self._chances = np.array([[chance for _, chance, _ in policy] for policy in policies])  # `policies 2`
        pairs = [("identity", 0.0)]
        for name, _, magnitude in (operation for policy in policies for operation in policy):
            own = _OWN_NAMES[name]
            strength = 0.0 if magnitude is None else find_strength(own, magnitude, image_size, bins=10)
            pairs += [(own, sign * strength) for sign in SIGNS]
        self.variants = make_variants(pairs, image_size)

    def draw(self, draws: Draws) -> DrawnVariants:
        drawn = draws.below("autoaugment", len(self._chances), len(SIGNS), len(SIGNS))
        policy, signs = drawn[:, :1], drawn[:, 1:]
        applied = draws.uniform("autoaugment chance", 2) < self._chances[policy[:, 0]]
        return _choose(self.variants, np.where(applied, 1 + (2 * policy + [[0, 1]]) * len(SIGNS) + signs, 0))


_OWN_NAMES = {name.title().replace("_", ""): name for name in OPERATIONS} | {"AutoContrast": "autocontrast"}


@dataclass(frozen=True)
class AugmentationPart:
    """How to make a policy for the images of a data set."""

    construct: Callable[[DatasetInfo], Policy]


AUGMENTATIONS = Registry("augmentation", AugmentationPart, calls={"construct": ("the data set",)})
AUGMENTATIONS.register("imagenet", AugmentationPart(lambda facts: AutoAugment("imagenet", image_size=facts.image_size)))
AUGMENTATIONS.register("cifar10", AugmentationPart(lambda facts: AutoAugment("cifar10", image_size=facts.image_size)))
AUGMENTATIONS.register("svhn", AugmentationPart(lambda facts: AutoAugment("svhn", image_size=facts.image_size)))
AUGMENTATIONS.register("ta_wide", AugmentationPart(lambda facts: TrivialAugment(image_size=facts.image_size)))
AUGMENTATIONS.register("rand-m9-mstd0.5-inc1", AugmentationPart(TimmRandAugment))


def make_policy(options: AugmentOptions, facts: DatasetInfo) -> Policy | None:
    """The policy that the options name, or None."""
    size = facts.image_size
    if options.randaugment_n:
        return RandAugment(layers=options.randaugment_n, magnitude=options.randaugment_m, image_size=size)
    if options.auto_augment == "none":
        return None
    return AUGMENTATIONS.find(options.auto_augment, key="augment.auto_augment").construct(facts)


def find_strength(name: str, magnitude: int, image_size: int, *, bins: int = BINS) -> float:
    """An operation's strength at one of `bins` magnitudes, before its sign; 0 where it has none."""
    first, last = _MAGNITUDES.get(name, (0.0, 0.0))
    return float(torch.linspace(first, last * image_size if name.startswith("translate") else last, bins)[magnitude])


def find_wide_strength(name: str, magnitude: int) -> float:
    """The same in TrivialAugment's space."""
    return float(torch.linspace(*_WIDE.get(name, (0.0, 0.0)), BINS)[magnitude])


def _choose(variants: Variants, chosen: npt.NDArray[np.int64]) -> DrawnVariants:
    return DrawnVariants(variants, torch.from_numpy(chosen))
