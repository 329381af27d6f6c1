"""Runs that train in milliseconds: striped 8x8 images in six classes, and backbones of a thousand parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from study.backbones import specify
from study.config.options import AugmentOptions, ResolvedData, TrainOptions, Variant
from study.config.run import Run
from study.data.dataset_info import DatasetInfo
from study.data.splits import Split, Splits
from study.rng import stream
from study.training.checkpoint import Checkpoints
from study.training.device import DeviceChoice
from study.training.engine import train
from study.training.outcome import Outcome, ProgressReport

CLASSES, CHANNELS, SIZE = 6, 3, 8
MODELS: dict[str, dict[str, Any]] = {
    "convmixer": {"dim": 8, "depth": 2, "kernel_size": 3},
    "vit": {"dim": 8, "depth": 2, "heads": 1},
    "mlp_mixer": {"dim": 8, "depth": 2},
}
CPU = DeviceChoice("cpu")
TRAIN, VAL, TEST = 52, 18, 24  # with batches of 16: three steps an epoch, and four images left over

FACTS = DatasetInfo(
    name="toy",
    digest="toy",
    image_size=SIZE,
    channels=CHANNELS,
    class_names=tuple("abcdef"),
    train_images=TRAIN,
    val_images=VAL,
    test_images=TEST,
    mean=(0.3,) * CHANNELS,
    std=(0.2,) * CHANNELS,
)


def split(name: str, images: int) -> Split:
    """Noise with stripes: the class is its color (one of three channels) and direction."""
    noise = stream("toy images", name)
    labels = torch.arange(images) % CLASSES
    pixels = torch.from_numpy(noise.integers(0, 128, (images, CHANNELS, SIZE, SIZE)).astype("uint8"))
    for image, label in zip(pixels, labels.tolist(), strict=True):
        channel = image[label % CHANNELS]
        (channel if label < CHANNELS else channel.T)[::2] = 255
    return Split.whole(pixels, labels)


def splits() -> Splits:
    train_split, val = split("train", TRAIN), split("val", VAL)
    both = Split.whole(*(torch.cat([getattr(val, c), getattr(train_split, c)]) for c in ("images", "labels")))
    return Splits(train=train_split, val=val, test=split("test", TEST), train_and_val=both, info=FACTS)


def toy_run(
    backbone: str = "vit",
    *,
    seed: int = 0,
    patch_size: int = 2,
    epochs: int = 3,
    augment: dict[str, Any] | None = None,
    **train_options: Any,
) -> Run:
    settings = {"image_size": SIZE, "in_channels": CHANNELS, "num_classes": CLASSES, "patch_size": patch_size}
    data = ResolvedData(
        name="folder",
        digest="toy",
        image_size=SIZE,
        train_images=TRAIN,
        val_images=VAL,
        test_images=TEST,
        num_classes=CLASSES,
        channels=CHANNELS,
    )
    return Run(
        backbone=backbone,
        model=specify(backbone, settings | MODELS[backbone]),
        data=data,
        augment=AugmentOptions(**(augment or {})),
        train=TrainOptions(**{"epochs": epochs, "batch_size": 16, "lr": 5e-3} | train_options),
        seed=seed,
    )


class Killed(Exception):
    """Stands for a SIGKILL: nothing is saved on the way out."""


class Fate:
    """A `stop` that is asked after each step: at the steps named it asks for an interruption, or kills."""

    def __init__(self, *, interrupt_after: int | None = None, kill_after: int | None = None):
        self.interrupt_after, self.kill_after, self.steps = interrupt_after, kill_after, 0

    def __call__(self) -> bool:
        self.steps += 1
        if self.steps == self.kill_after:
            raise Killed
        return self.steps == self.interrupt_after


class EveryNthStep(Checkpoints):
    """Checkpoints that are due by count and not by the clock."""

    def __init__(self, folder: Path, run: Run, *, every: int, restart: int = 0):
        super().__init__(folder, run.run_id, f"launch-0-{restart}")
        self.every, self.asked = every, 0

    def due(self) -> bool:
        self.asked += 1
        return self.asked % self.every == 0


def attempt(
    run: Run,
    folder: Path,
    *,
    fate: Fate | None = None,
    every: int = 1000,
    restart: int = 0,
    report: ProgressReport = lambda *_: None,
    device: DeviceChoice = CPU,
    variant: Variant | None = None,
) -> Outcome | None:
    """One attempt at `run` on the toy images."""
    return train(
        run,
        splits(),
        device=device,
        checkpoints=EveryNthStep(folder, run, every=every, restart=restart),
        stop=fate or Fate(),
        report=report,
        variant=variant,
    )


def finished(run: Run, folder: Path) -> Outcome:
    """The outcome of an uninterrupted attempt."""
    outcome = attempt(run, folder)
    assert isinstance(outcome, Outcome)
    return outcome


def assert_same_bits(one: Outcome, other: Outcome) -> None:
    """Weights, curves and figures are equal in every bit."""
    assert one.weights.keys() == other.weights.keys()
    for name in one.weights:
        assert torch.equal(one.weights[name], other.weights[name]), name
    assert {split: bits.tolist() for split, bits in one.correct.items()} == {
        split: bits.tolist() for split, bits in other.correct.items()
    }
    for name in ("curves", "val_accuracy", "val_loss", "test_accuracy", "test_top5", "test_loss", "diverged_step"):
        assert getattr(one, name) == getattr(other, name), name
