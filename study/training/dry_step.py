"""A dry step: the same model, recipe and code on a few images, one step long.

What would end a run in its first second, on a node and after hours in a queue, fails here.
"""

import dataclasses
import tempfile
from pathlib import Path

from study.config.run import Run
from study.data import describe_dataset
from study.data.splits import Split, Splits, load_splits, make_random_splits
from study.errors import UserError
from study.training.checkpoint import Checkpoints
from study.training.device import DeviceChoice
from study.training.engine import train
from study.training.outcome import Outcome

IMAGES_PER_MICRO_BATCH = 2  # with a single image BatchNorm has no variance


def run_dry_step(run: Run, splits: Splits, *, device: DeviceChoice) -> str | None:
    """Train a shortened run, evaluate it, and return what went wrong, or None. Leaves no files behind."""
    # One epoch of one small batch; sizes that the model was built for stay as they are.
    batch_size = min(run.train.batch_size, IMAGES_PER_MICRO_BATCH * run.train.accumulate)
    options = {"epochs": 1, "warmup_epochs": 0.0, "cooldown_epochs": 0, "batch_size": batch_size, "keep": "none"}
    short = dataclasses.replace(run, train=run.train.model_copy(update=options))
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), short.run_id, "dry-step")
        try:
            outcome = train(
                short,
                take_first(splits, batch_size),
                device=device,
                checkpoints=checkpoints,
                stop=lambda: False,
                report=lambda *_: None,
            )
        except Exception as error:  # any exception: the run would have ended with it
            return f"{type(error).__name__}: {error}".splitlines()[0]
    assert isinstance(outcome, Outcome)
    return "the loss of the first step is not finite" if outcome.status == "diverged" else None


def take_first(splits: Splits, images: int) -> Splits:
    """The first `images` images of each split, at most."""
    train, val, test, train_and_val = (
        Split(split.stored, split.rows[:images], split.labels[:images], split.indices[:images])
        for split in (splits.train, splits.val, splits.test, splits.train_and_val)
    )
    info = dataclasses.replace(splits.info, train_images=len(train), val_images=len(val), test_images=len(test))
    return Splits(train, val, test, train_and_val, info=info)


def load_dry_step_images(run: Run) -> tuple[Splits, bool]:
    """The run's images and True where they are prepared, else random ones of their shape and False."""
    info = describe_dataset(run.data)
    try:
        return load_splits(run.data, info, seed=run.seed), True
    except UserError:
        return make_random_splits(info, images=IMAGES_PER_MICRO_BATCH * run.train.accumulate), False
