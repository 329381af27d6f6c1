"""The models that are timed: of CIFAR-10 size, each as built by this project and by timm, with equal parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from study.backbones import specify
from study.config.options import AugmentOptions, ResolvedData, TrainOptions
from study.config.run import Run
from study.data.dataset_info import DatasetInfo
from study.data.torchvision_schema import declare_missing_operators

CLASSES, CHANNELS, IMAGES = 10, 3, 50_000
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)


@dataclass(frozen=True)
class Subject:
    """One architecture under one name, and the recipe that its steps and its augmentation follow."""

    name: str
    backbone: str
    settings: Mapping[str, Any]
    image_size: int = 32


def convmixer(kernel_size: int, *, dim: int = 256, depth: int = 8, patch_size: int = 2) -> Subject:
    settings = {"dim": dim, "depth": depth, "kernel_size": kernel_size, "patch_size": patch_size}
    return Subject(f"ConvMixer-{dim}/{depth} k{kernel_size} p{patch_size}", "convmixer", settings)


SUBJECTS: Mapping[str, Subject] = {
    "convmixer_k3": convmixer(3),
    "convmixer_k5": convmixer(5),
    "convmixer_k7": convmixer(7),
    "convmixer_k9": convmixer(9),
    "vit": Subject("ViT-192/6 p4", "vit", {"dim": 192, "depth": 6, "heads": 6, "patch_size": 4}),
    "mlp_mixer": Subject("Mixer-192/6 p4", "mlp_mixer", {"dim": 192, "depth": 6, "patch_size": 4}),
    "small_convmixer": convmixer(5, dim=96, patch_size=4),  # these three of about 100,000 parameters
    "small_vit": Subject("ViT-32/6 p4", "vit", {"dim": 32, "depth": 6, "heads": 4, "patch_size": 4}),
    "small_mlp_mixer": Subject("Mixer-40/6 p4", "mlp_mixer", {"dim": 40, "depth": 6, "patch_size": 4}),
    "toy_convmixer": convmixer(5, dim=16, depth=1, patch_size=8),
    "toy_vit": Subject("ViT-32/1 p8", "vit", {"dim": 32, "depth": 1, "heads": 1, "patch_size": 8}),
    "toy_mlp_mixer": Subject("Mixer-16/1 p8", "mlp_mixer", {"dim": 16, "depth": 1, "patch_size": 8}),
}

RECIPE = AugmentOptions(flip=True, randaugment_n=2, randaugment_m=12)  # of ConvMixer's 25-epoch recipe


def run_of(subject: Subject, *, batch_size: int, precision: str, images: int = IMAGES, epochs: int = 1) -> Run:
    """The run whose steps are timed, on images of CIFAR-10's shape."""
    data = ResolvedData(
        name="cifar10",
        digest="benchmark",
        image_size=subject.image_size,
        train_images=images,
        val_images=images,
        test_images=images,
        num_classes=CLASSES,
        channels=CHANNELS,
    )
    shape = {"image_size": subject.image_size, "num_classes": CLASSES, "in_channels": CHANNELS}
    train = {"epochs": epochs, "batch_size": batch_size, "precision": precision, "weight_decay": 0.005, "decay": "all"}
    return Run(
        backbone=subject.backbone,
        model=specify(subject.backbone, {**subject.settings, **shape}),
        data=data,
        augment=RECIPE,
        train=TrainOptions.model_validate(train),
        seed=0,
    )


def facts_of(run: Run) -> DatasetInfo:
    """The facts of `run_of`'s data, for random images."""
    return DatasetInfo(
        name=run.data.name,
        digest=run.data.digest,
        image_size=run.data.image_size,
        channels=CHANNELS,
        class_names=tuple("0123456789"),
        train_images=run.data.train_images,
        val_images=run.data.val_images,
        test_images=run.data.test_images,
        mean=CIFAR10_MEAN,
        std=CIFAR10_STD,
    )


def timm_model(subject: Subject) -> nn.Module:
    """timm's model of the same sizes: the class that its published variants are built from."""
    declare_missing_operators()
    from timm.models.convmixer import ConvMixer
    from timm.models.mlp_mixer import MlpMixer
    from timm.models.vision_transformer import VisionTransformer

    wanted, size = subject.settings, subject.image_size
    dim, depth, patch_size = wanted["dim"], wanted["depth"], wanted["patch_size"]
    if subject.backbone == "convmixer":
        return ConvMixer(dim, depth, kernel_size=wanted["kernel_size"], patch_size=patch_size, num_classes=CLASSES)
    if subject.backbone == "mlp_mixer":
        return MlpMixer(img_size=size, patch_size=patch_size, num_classes=CLASSES, embed_dim=dim, num_blocks=depth)
    return VisionTransformer(
        img_size=size,
        patch_size=patch_size,
        num_classes=CLASSES,
        embed_dim=dim,
        depth=depth,
        num_heads=wanted["heads"],
        class_token=False,
        global_pool="avg",
        fc_norm=False,
    )
