"""Published training recipes, by name: `recipe: convmixer_cifar10_25` at the top of a sweep.

A recipe is a layer of settings between the defaults and the file's own sections, which override it. It sets training and
augmentation but nothing of the model, so that any backbone can be trained by any recipe. The sweep `sweeps/<name>.yaml`
trains what the recipe's source trained, refitted on train + val where the source trains on all 50,000 images.
"""

from dataclasses import dataclass
from typing import Any

from study.config.options import AugmentOptions, TrainOptions
from study.registries import Registry


@dataclass(frozen=True)
class Recipe:
    """What a source sets of training and augmentation, and the accuracy to expect of it."""

    name: str
    expected: str
    train: TrainOptions
    augment: AugmentOptions

    @property
    def settings(self) -> dict[str, Any]:
        """By option key, only what the recipe itself sets."""
        sections = {"train": self.train, "augment": self.augment}
        return {
            f"{section}.{name}": value
            for section, options in sections.items()
            for name, value in options.model_dump(exclude_unset=True).items()
        }


# locuslab/convmixer-cifar10, README: train.py --lr-max=0.05 --ra-n=2 --ra-m=12 --wd=0.005 --scale=1.0 --jitter=0 --reprob=0
# Differs: each image draws its own augmentation, and an incomplete last batch is dropped.
CONVMIXER_25 = Recipe(
    name="convmixer_cifar10_25",
    expected="around 92.5 % of CIFAR-10's test images with ConvMixer-256/8 k5 p2 (the source's logged run: 92.60)",
    train=TrainOptions(
        epochs=25, batch_size=512, lr=0.05, schedule="one_cycle", weight_decay=0.005, decay="all", precision="fp16"
    ),
    augment=AugmentOptions(flip=True, randaugment_n=2, randaugment_m=12),
)

# The same with --jitter=0.2 --reprob=0.2 --epochs=100.
CONVMIXER_100 = Recipe(
    name="convmixer_cifar10_100",
    expected="more than 94 % of CIFAR-10's test images with ConvMixer-256/8 k5 p2",
    train=CONVMIXER_25.train.model_copy(update={"epochs": 100}),
    augment=CONVMIXER_25.augment.model_copy(update={"color_jitter": 0.2, "erasing": 0.2}),
)

# SHI-Labs/Compact-Transformers, examples/main.py@cd11f09 with its defaults, and src/vit.py for both kinds of dropping.
# Differs: the policy comes after the crop and the flip, and its moves leave black where theirs leave gray, without
# interpolation; the harness's own initialization; the warm-up rises with each step, not each epoch.
VIT_LITE_200 = Recipe(
    name="vit_lite_cifar10_200",
    expected="91.38 % of CIFAR-10's test images with ViT-Lite-7/4 (3.72 M parameters) in its source; not run here",
    train=TrainOptions(
        epochs=200,
        batch_size=128,
        lr=5e-4,
        schedule="cosine",
        warmup_epochs=5.0,
        weight_decay=0.03,
        decay="all",
        label_smoothing=0.1,
        attention_dropout=0.1,
        stochastic_depth=0.1,
    ),
    augment=AugmentOptions(flip=True, crop=4, auto_augment="cifar10"),
)

# SHI-Labs/Compact-Transformers, configs/pretrained/cct_7-3x1_cifar10_300epochs.yml@cd11f09, over the defaults of train.py and
# src/cct.py there. 300 epochs and ten at the lowest rate.
# Differs: random crops are bilinear, not bilinear or bicubic; mixup and cutmix draw for each image, not each batch; position
# embeddings don't decay; the warm-up rises from zero with each step, not from 1e-5 with each epoch, and the cosine begins
# after it.
CCT = Recipe(
    name="cct",
    expected="96.53 % of CIFAR-10's test images with CCT-7/3x1 (3.76 M parameters) in its source; not run here",
    train=TrainOptions(
        epochs=310,
        batch_size=128,
        lr=5.5e-4,
        schedule="cosine",
        warmup_epochs=10.0,
        min_lr=1e-5,
        cooldown_epochs=10,
        weight_decay=0.06,
        decay="matrices",
        label_smoothing=0.1,
        attention_dropout=0.1,
        stochastic_depth=0.1,
        precision="fp16",
    ),
    augment=AugmentOptions(
        flip=True, resized_crop=0.8, auto_augment="rand-m9-mstd0.5-inc1", mixup=0.8, cutmix=1.0, mixup_off_epoch=175
    ),
)

# facebookresearch/deit, main.py@7e160fe with its defaults, a batch of 1,024 in all (README_deit.md) and so a rate of 5e-4 x 2.
# Differs: images are cut to a centered square of 224 px before the random crop, which is bilinear, as half of the policy's
# moves are, not bicubic; mixup and cutmix draw for each image, not each batch; the warm-up rises from zero with each step, not
# from 1e-6 with each epoch, and the cosine begins after it.
DEIT_300 = Recipe(
    name="deit_300",
    expected="79.9 % of ImageNet-1k's validation images with DeiT-S (22 M parameters) in its source; not run here",
    train=TrainOptions(
        epochs=300,
        batch_size=1024,
        lr=1e-3,
        schedule="cosine",
        warmup_epochs=5.0,
        min_lr=1e-5,
        weight_decay=0.05,
        decay="matrices",
        label_smoothing=0.1,
        stochastic_depth=0.1,
        precision="fp16",
    ),
    augment=AugmentOptions(
        flip=True,
        resized_crop=0.08,
        auto_augment="rand-m9-mstd0.5-inc1",
        erasing=0.25,
        erasing_mode="pixel",
        mixup=0.8,
        cutmix=1.0,
        repeats=3,
    ),
)

# aanna0701/SPT_LSA_ViT, main.py@54bd796 with its defaults. Its sampler repeats no image in a batch: with `--ra 3` each of the
# 100 epochs passes three times over all images, so there are 300 here, and 30 of warm-up.
# Differs: branches are dropped with a probability that rises to 0.1 in the last block, not with 0.1 in all; erased rectangles
# have at most 33 % of the area, not 40 %, and ratios of uniform logarithms; the moves of the policy as in vit_lite_cifar10_200,
# mixing as in cct.
SPT_CIFAR = Recipe(
    name="spt_cifar",
    expected="93.58 % of CIFAR-10's test images in its source with a ViT without shifted patches, 94.53 % with them and local "
    "self-attention, which this harness lacks; not run here",
    train=TrainOptions(
        epochs=300,
        batch_size=128,
        lr=1e-3,
        schedule="cosine",
        warmup_epochs=30.0,
        min_lr=1e-6,
        weight_decay=0.05,
        decay="all",
        label_smoothing=0.1,
        stochastic_depth=0.1,
    ),
    augment=AugmentOptions(flip=True, crop=4, auto_augment="cifar10", erasing=0.25, mixup=1.0, cutmix=1.0, mixup_prob=0.5),
)

# locuslab/convmixer, README ("exactly the settings we used"), with the defaults of the timm that it contains.
# Differs: images are cut to a centered square of 224 px before the random crop; mixup and cutmix draw for each image, not
# each batch; BatchNorm sees 640 images, not 64 on each of ten GPUs.
CONVMIXER_IMAGENET = Recipe(
    name="convmixer_imagenet_150",
    expected="81.37 % of ImageNet-1k's validation images with ConvMixer-1536/20 in its source; not run here",
    train=TrainOptions(
        epochs=150,
        batch_size=640,
        lr=0.01,
        schedule="one_cycle",
        weight_decay=2e-5,
        decay="matrices",
        eps=1e-3,
        grad_clip=1.0,
        label_smoothing=0.1,
        precision="fp16",
    ),
    augment=AugmentOptions(
        flip=True,
        resized_crop=0.08,
        auto_augment="rand-m9-mstd0.5-inc1",
        erasing=0.25,
        erasing_mode="pixel",
        mixup=0.5,
        cutmix=0.5,
    ),
)

RECIPES = Registry("recipe", Recipe, calls={})
RECIPES.register(CONVMIXER_25.name, CONVMIXER_25)
RECIPES.register(CONVMIXER_100.name, CONVMIXER_100)
RECIPES.register(VIT_LITE_200.name, VIT_LITE_200)
RECIPES.register(CCT.name, CCT)
RECIPES.register(SPT_CIFAR.name, SPT_CIFAR)
RECIPES.register(CONVMIXER_IMAGENET.name, CONVMIXER_IMAGENET)
RECIPES.register(DEIT_300.name, DEIT_300)
