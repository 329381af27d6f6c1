"""The accuracy of a linear model on pixels: a network below it has learned nothing worth a comparison.

Multinomial logistic regression (scikit-learn, lbfgs) on standardized pixels, its L2 penalty chosen on the validation images;
fitted once per data set and recorded, on the fixed split whatever `data.split` is. At most 5,000 training images are used,
the first of the stored order, so that classes are in proportion.
"""

import warnings

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from study.config.options import ResolvedData
from study.data.datasets import describe_dataset
from study.data.splits import Split, load_splits

_MAX_IMAGES = 5_000  # trained on, and predicted at a time
_MAX_SIZE = 32  # pixels a side
_INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)  # scikit-learn's C
_ITERATIONS = 100


def fit_linear_baseline(data: ResolvedData) -> float:
    """Its accuracy on the test images (a fraction), which are read once.

    Fitted on training images alone, with the penalty chosen on validation images.
    """
    splits = load_splits(data.model_copy(update={"split": "fixed"}), describe_dataset(data))
    pixels, labels = _flatten_images(splits.train, slice(_MAX_IMAGES))
    scaler = StandardScaler().fit(pixels)

    def fit(inverse_penalty: float) -> LogisticRegression:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a baseline needs no last digits
            return LogisticRegression(C=inverse_penalty, max_iter=_ITERATIONS).fit(scaler.transform(pixels), labels)

    def measure_accuracy(model: LogisticRegression, split: Split) -> float:
        correct = 0
        for start in range(0, len(split), _MAX_IMAGES):
            images, truth = _flatten_images(split, slice(start, start + _MAX_IMAGES))
            correct += int((model.predict(scaler.transform(images)) == truth).sum())
        return correct / len(split)

    # Of equally accurate models, the first: the strongest penalty.
    best = max(map(fit, _INVERSE_PENALTIES), key=lambda model: measure_accuracy(model, splits.val))
    return measure_accuracy(best, splits.test)


def _flatten_images(split: Split, rows: slice) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Images `n c h w` as rows of pixels in [0, 1], average-pooled where an image has more than 32 pixels a side."""
    images = split.stored[split.rows[rows]].float() / 255
    if images.shape[-1] > _MAX_SIZE:
        images = functional.adaptive_avg_pool2d(images, _MAX_SIZE)
    return images.flatten(1).numpy(), split.labels[rows].numpy()
