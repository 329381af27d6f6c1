"""What a linear model on pixels reaches: below it a network has learned nothing worth a comparison.

Multinomial logistic regression (scikit-learn, lbfgs) on standardised pixels, its L2 penalty chosen on the validation images;
fitted once per data set and remembered. At most 5,000 training images are used, the first of the stored order, so every
class is there in proportion.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from study.config.options import ResolvedData
from study.data import describe_dataset
from study.data.splits import Split, load_splits

MOST_IMAGES = 5_000
MOST_PIXELS = 32  # a side
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)  # scikit-learn's C, the inverse of the penalty
ITERATIONS = 100


@dataclass(frozen=True)
class Baseline:
    """A linear model's accuracy (a fraction) on the test images of one data set."""

    digest: str
    image_size: int
    train_images: int
    test_images: int
    fitted_on: int
    baseline_accuracy: float


def fit_baseline(data: ResolvedData) -> Baseline:
    """Fits on training images, never on validation or test ones, and reads the test images once."""
    splits = load_splits(data, describe_dataset(data))
    pixels, labels = _flat(splits.train, slice(MOST_IMAGES))
    scaler = StandardScaler().fit(pixels)
    models = [_fitted(scaler.transform(pixels), labels, penalty=penalty) for penalty in PENALTIES]

    def accuracy(model: LogisticRegression, split: Split) -> float:
        hits = 0
        for start in range(0, len(split), MOST_IMAGES):
            images, truth = _flat(split, slice(start, start + MOST_IMAGES))
            hits += int((model.predict(scaler.transform(images)) == truth).sum())
        return hits / len(split)

    best = max(models, key=lambda model: accuracy(model, splits.val))  # the strongest penalty among equals
    sizes = (data.image_size, data.train_images, data.test_images)
    return Baseline(data.digest, *sizes, fitted_on=len(labels), baseline_accuracy=accuracy(best, splits.test))


def _fitted(pixels: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], *, penalty: float) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last digits of a baseline decide nothing
        return LogisticRegression(C=penalty, max_iter=ITERATIONS).fit(pixels, labels)


def _flat(split: Split, rows: slice) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Images `n c h w` as rows of pixels in [0, 1], means over areas where an image has more than 32 pixels a side."""
    images = split.images[rows].float() / 255
    if images.shape[-1] > MOST_PIXELS:
        images = functional.adaptive_avg_pool2d(images, MOST_PIXELS)
    return images.flatten(1).numpy(), split.labels[rows].numpy()
