"""The size of the GPU benchmark: full, or a toy size that checks the logic on a CPU."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from study.training.device import DeviceChoice


@dataclass(frozen=True)
class Scale:
    """Sizes of everything that is timed."""

    choice: DeviceChoice
    precision: str
    subjects: tuple[str, ...]  # whose steps are timed
    epochs_of: tuple[str, ...]  # whose epochs are timed
    compiled: tuple[str, ...]  # whose steps are timed under torch.compile, which takes half a minute for each variant
    batch_size: int
    images: int  # of an epoch
    loader_images: int  # that peer (a) loads with its workers; its epoch is extrapolated
    kernel_images: int  # of the kernels' table
    kernel_features: int
    kernel_grid: int
    rounds: int
    calls: int  # steps in a turn

    @property
    def kind(self) -> str:
        return self.choice.kind

    @property
    def device(self) -> torch.device:
        return self.choice.device


GPU = Scale(
    choice=DeviceChoice("cuda", deterministic=False),
    precision="fp16",
    subjects=("convmixer_k3", "convmixer_k5", "convmixer_k7", "convmixer_k9", "vit", "mlp_mixer"),
    epochs_of=("convmixer_k5", "convmixer_k9", "vit", "mlp_mixer"),
    compiled=("convmixer_k5", "convmixer_k9", "vit", "mlp_mixer"),
    batch_size=512,
    images=50_000,
    loader_images=10_240,
    kernel_images=512,
    kernel_features=256,
    kernel_grid=16,
    rounds=5,
    calls=10,
)

TOY = Scale(
    choice=DeviceChoice("cpu"),
    precision="fp32",
    subjects=("toy_convmixer", "toy_vit", "toy_mlp_mixer"),
    epochs_of=("toy_convmixer",),
    compiled=("toy_mlp_mixer",),
    batch_size=16,
    images=64,
    loader_images=64,
    kernel_images=2,
    kernel_features=16,
    kernel_grid=6,
    rounds=2,
    calls=1,
)


@dataclass(frozen=True)
class Request:
    """The request of one call of the benchmark: sizes, real images if there are any, and the deadline."""

    scale: Scale
    images: Path | None
    ends: float  # of time.monotonic()

    def left(self) -> float:
        """Seconds until the end."""
        return self.ends - time.monotonic()
