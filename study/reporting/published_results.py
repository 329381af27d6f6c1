"""Accuracies published elsewhere, each with its source: shown next to the study's cells as hollow marks.

They were obtained with other recipes, epochs and seeds, mostly on all training images and with one seed; they show the
state of the field and say nothing about the comparison of the sweep.
"""

from dataclasses import dataclass

import pandas as pd

from study.analysis import labels


@dataclass(frozen=True)
class PublishedResult:
    """One published result: top-1 on the test set as a fraction, parameters of the network as published."""

    name: str
    backbone: str
    patch_size: int
    params: int
    epochs: int
    accuracy: float
    source: str

    @property
    def summary(self) -> str:
        """The result with its source, on one line."""
        recipe = f"patch size {self.patch_size}, {self.epochs} epochs"
        return f"{self.name}, {recipe}, {labels.format_percent(self.accuracy)} % ({self.source})"


_KENTARO = "kentaroy47/vision-transformers-cifar10"

CIFAR10_RESULTS = (
    PublishedResult("ConvMixer-256/8 k5", "convmixer", 2, 594_186, 25, 0.925, "locuslab/convmixer-cifar10"),
    PublishedResult("ConvMixer-256/8 k9", "convmixer", 1, 706_570, 200, 0.9603, "locuslab/convmixer#15"),
    PublishedResult("ConvMixer-256/16 k8", "convmixer", 1, 1_340_000, 400, 0.963, _KENTARO),
    PublishedResult("ViT-Lite-7/4", "vit", 4, 3_720_000, 200, 0.9138, "SHI-Labs/Compact-Transformers"),
    PublishedResult("ViT 512/6", "vit", 4, 9_520_000, 200, 0.80, _KENTARO),
    PublishedResult("ViT 512/6", "vit", 4, 9_520_000, 500, 0.88, _KENTARO),
    PublishedResult("MLP-Mixer nano 128/8", "mlp_mixer", 4, 670_000, 300, 0.9083, "omihub777/MLP-Mixer-CIFAR"),
    PublishedResult("MLP-Mixer 512/6", "mlp_mixer", 4, 1_820_000, 500, 0.88, _KENTARO),
)
"""CIFAR-10 from scratch, as stated in the named repositories."""


def find_published_results(table: pd.DataFrame) -> tuple[PublishedResult, ...]:
    """The published results on the table's data; none where it holds other data sets or images of another size."""
    names = set(table["data_name"].dropna()) if "data_name" in table else set()
    sizes = set(table["image_size"].dropna()) if "image_size" in table else set()
    return CIFAR10_RESULTS if names == {"cifar10"} and sizes <= {32} else ()
