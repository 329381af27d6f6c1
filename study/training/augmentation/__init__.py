"""Augmentation as batched tensor code: uint8 images in, normalized and mixed float images out, on any device.

Every image draws its own parameters, keyed by (seed, epoch, image, operation): batch size, order, accumulation and
ranks change none of them, and an operation switched on changes no other's. Pixels stay whole numbers until they are
normalized, so an image's bits don't depend on the batch it is in.
"""

from study.training.augmentation.mixing import Target
from study.training.augmentation.pipeline import Augmentation, EpochAugmentation, Normalization

__all__ = ["Augmentation", "EpochAugmentation", "Normalization", "Target"]
