"""Published ways to train, by name: `recipe: convmixer_cifar10_25` at the top of a sweep.

A recipe is a layer of settings between the defaults and the file's own sections; what a sweep gives itself goes before it.
It holds what concerns training and augmentation and nothing of the model, so any backbone can be trained by any recipe.
Each tells its source, the command that trains what its source trained, what that costs, and what to expect of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from study.errors import Problem


@dataclass(frozen=True)
class Recipe:
    """Settings by option key, and what stands behind them."""

    name: str
    source: str
    command: str
    petaflops: float  # of one seed of the command, as `study.plan` tells it: 10^15 FLOPs of training
    expected: str
    differs: str  # from the source
    settings: Mapping[str, Any]


FULL_SET = "its source trains on all 50,000 images, so the command refits on train + val"

CONVMIXER_25 = Recipe(
    name="convmixer_cifar10_25",
    source="locuslab/convmixer-cifar10, README: "
    "train.py --lr-max=0.05 --ra-n=2 --ra-m=12 --wd=0.005 --scale=1.0 --jitter=0 --reprob=0",
    command="python -m study.launch sweeps/convmixer_cifar10_25.yaml",
    petaflops=1.11,
    expected="around 92.5 % of CIFAR-10's test images with ConvMixer-256/8 k5 p2 (the source's logged run: 92.60)",
    differs=f"{FULL_SET}; each image draws its own augmentation and an incomplete last batch is left out",
    settings=MappingProxyType(
        {
            "train.epochs": 25,
            "train.batch_size": 512,
            "train.lr": 0.05,
            "train.schedule": "one_cycle",
            "train.weight_decay": 0.005,
            "train.decay": "all",
            "train.precision": "fp16",
            "augment.flip": True,
            "augment.randaugment_n": 2,
            "augment.randaugment_m": 12,
        }
    ),
)

CONVMIXER_100 = Recipe(
    name="convmixer_cifar10_100",
    source="locuslab/convmixer-cifar10, README: "
    "train.py --lr-max=0.05 --ra-n=2 --ra-m=12 --wd=0.005 --scale=1.0 --jitter=0.2 --reprob=0.2 --epochs=100",
    command="python -m study.launch sweeps/convmixer_cifar10_100.yaml",
    petaflops=4.44,
    expected="more than 94 % of CIFAR-10's test images with ConvMixer-256/8 k5 p2",
    differs=CONVMIXER_25.differs,
    settings=MappingProxyType(
        {**CONVMIXER_25.settings, "train.epochs": 100, "augment.color_jitter": 0.2, "augment.erasing": 0.2}
    ),
)

VIT_LITE_200 = Recipe(
    name="vit_lite_cifar10_200",
    source="SHI-Labs/Compact-Transformers, examples/main.py with its defaults, and src/vit.py for stochastic depth",
    command="python -m study.launch sweeps/vit_lite_cifar10_200.yaml",
    petaflops=15.27,
    expected="below the 91.38 % of CIFAR-10's test images that its source tells of ViT-Lite-7/4 (3.72 M parameters), "
    "whose AutoAugment is stronger and whose attention has dropout",
    differs="RandAugment (2 operations, magnitude 9) in place of AutoAugment's policy for CIFAR-10; no dropout of attention "
    f"weights; the harness's own initialization; the warm-up rises with each step, not each epoch; {FULL_SET}",
    settings=MappingProxyType(
        {
            "train.epochs": 200,
            "train.batch_size": 128,
            "train.lr": 5e-4,
            "train.schedule": "cosine",
            "train.warmup_epochs": 5.0,
            "train.weight_decay": 0.03,
            "train.decay": "all",
            "train.label_smoothing": 0.1,
            "train.stochastic_depth": 0.1,
            "augment.flip": True,
            "augment.crop": 4,
            "augment.randaugment_n": 2,
            "augment.randaugment_m": 9,
        }
    ),
)

CONVMIXER_IMAGENET = Recipe(
    name="convmixer_imagenet_150",
    source="locuslab/convmixer, README (`exactly the settings we used`), with the defaults of the timm it contains",
    command="python -m study.launch sweeps/convmixer_imagenet_150.yaml data.root=/path/to/imagenet",
    petaflops=58_920.0,
    expected="81.37 % of ImageNet-1k's validation images with ConvMixer-1536/20 in its source; not run here",
    differs="pictures are cut to a centred square of 224 px before the random crop; RandAugment is torchvision's, not "
    "rand-m9-mstd0.5-inc1; erased rectangles are the mean, not noise; mixup and cutmix draw for each image, not "
    "each batch; BatchNorm sees 640 images, not 64 on each of ten GPUs",
    settings=MappingProxyType(
        {
            "train.epochs": 150,
            "train.batch_size": 640,
            "train.lr": 0.01,
            "train.schedule": "one_cycle",
            "train.weight_decay": 2e-5,
            "train.decay": "matrices",
            "train.eps": 1e-3,
            "train.grad_clip": 1.0,
            "train.label_smoothing": 0.1,
            "train.precision": "fp16",
            "augment.flip": True,
            "augment.resized_crop": 0.08,
            "augment.randaugment_n": 2,
            "augment.randaugment_m": 9,
            "augment.erasing": 0.25,
            "augment.mixup": 0.5,
            "augment.cutmix": 0.5,
        }
    ),
)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {recipe.name: recipe for recipe in (CONVMIXER_25, CONVMIXER_100, VIT_LITE_200, CONVMIXER_IMAGENET)}
)


def unknown_recipe(name: str, *, place: str) -> Problem:
    """What is told of a name that no recipe has."""
    return Problem("no recipe of this name", place, "recipe", name, sorted(RECIPES))
