"""What a training returns, an outcome to record.

`done` and `diverged` are outcomes, both functions of the run alone. A failure is an exception.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from study.records.progress_file import WorkerProgress
from study.records.record import Measurements, Result
from study.training.evaluation import Predictions
from study.training.fingerprint import Fingerprint

CURVE_NAMES = ("epoch", "train_loss", "train_accuracy", "val_accuracy", "val_loss", "lr")

Curves = dict[str, list[float | None]]
"""One list per name of `CURVE_NAMES`, one entry per finished epoch, counted from 1. `train_accuracy` is None where labels are
mixed; `lr` is the rate of the epoch's last step."""

ProgressReport = Callable[[WorkerProgress, Curves], None]
"""Called with the curves of all finished epochs, to which the training keeps appending."""


@dataclass(frozen=True)
class Resume:
    """One continuation of the training from a checkpoint, after `step` steps; `changes` is empty where it was exact."""

    step: int
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outcome(Result, Measurements):
    """The outcome of a training. Accuracies are fractions, of the weights that `train.evaluate` names.

    What is of the test images is missing where `train.read_test` is off, what is of validation images where the run was
    fitted on those too, and `test_top5` with five classes or fewer, where it is always 1. Of a diverged training only curves
    (of its finished epochs), timings and `diverged_step`, counted from 1, the step whose loss violated the rule, are known.
    `train_seconds` is time spent on training steps, over all attempts, without evaluation and checkpoints; steps that a
    killed attempt had not saved are in none of the figures. `peak_memory_mib` is the allocator's peak on a GPU, the
    process's resident peak on a CPU (torch itself included); None where the system doesn't report it.
    """

    status: Literal["done", "diverged"]
    curves: Curves
    fingerprint: Fingerprint
    resumes: tuple[Resume, ...] = ()
    notes: tuple[str, ...] = ()
    weights: Mapping[str, Tensor] = field(default_factory=dict)  # on the CPU
    predictions: Predictions | None = None  # of the test images
    # By split (val, test), `images` in its order; empty with `data.correctness: false`.
    correct: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """Whether the bits are those of an uninterrupted training at the same fingerprint."""
        return not any(resume.changes for resume in self.resumes)
