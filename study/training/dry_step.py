"""A training in shrink: the same model, recipe and code on a handful of images, one step long.

What would break a run in its first second, on a node and after hours in a queue, breaks here.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from study.config.run import Run
from study.data import describe_dataset
from study.data.random_images import make_random_splits
from study.data.splits import Split, Splits, load_splits
from study.errors import UserError
from study.training.checkpoint import Checkpoints
from study.training.device import DeviceChoice
from study.training.engine import train
from study.training.outcome import Outcome

IMAGES_PER_PART = 2  # of a batch; with one alone BatchNorm has no variance


def run_dry_step(run: Run, splits: Splits, *, device: DeviceChoice) -> str | None:
    """Trains a run in shrink, evaluates it, and tells what went wrong, or None. Leaves nothing behind."""
    small = shrink(run)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), small.run_id, "rehearsal")
        try:
            outcome = train(
                small,
                few(splits, small.train.batch_size),
                device=device,
                checkpoints=checkpoints,
                stop=lambda: False,
                report=lambda _: None,
            )
        except Exception as error:  # whatever it is: it is what the run would have ended with
            return f"{type(error).__name__}: {error}".splitlines()[0]
    assert isinstance(outcome, Outcome)
    return "the loss of the first step is not finite" if outcome.status == "diverged" else None


def shrink(run: Run) -> Run:
    """The run with one epoch of one small batch; sizes that the model was built for stay as they are."""
    batch_size = min(run.train.batch_size, IMAGES_PER_PART * run.train.accumulate)
    short = {"epochs": 1, "warmup_epochs": 0.0, "batch_size": batch_size, "keep": "none"}
    return dataclasses.replace(run, train=run.train.model_copy(update=short))


def few(splits: Splits, images: int) -> Splits:
    """The first `images` images of each split, at most."""
    train, val, test, both = (_first(split, images) for split in (splits.train, splits.val, splits.test, splits.train_and_val))
    sized = dataclasses.replace(splits.info, train_images=len(train), val_images=len(val), test_images=len(test))
    return Splits(train, val, test, both, info=sized)


def _first(split: Split, images: int) -> Split:
    return Split(split.images[:images], split.labels[:images], split.indices[:images])


def load_dry_step_images(run: Run) -> tuple[Splits, bool]:
    """The run's images and True where they are prepared, else noise of their shape and False."""
    found = describe_dataset(run.data)
    try:
        return load_splits(run.data, found), True
    except UserError:
        return make_random_splits(found, images=IMAGES_PER_PART * run.train.accumulate), False
