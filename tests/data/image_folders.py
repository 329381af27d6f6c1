"""Small image folders that tests write, the options to read them, and the functions that second processes run.

Nothing here imports torch, so these processes start fast.
"""

from __future__ import annotations

import time
from multiprocessing.queues import Queue
from pathlib import Path

import numpy as np
from PIL import Image

from study.config.options import DataOptions
from study.data import DatasetInfo, prepare_dataset
from study.data.cache import hold_build_lock

CLASSES = ("ant", "bee", "cat")


def write_folder(
    root: Path, *, train: int = 20, test: int = 6, size: int = 12, suffix: str = "png", test_name: str = "test"
) -> Path:
    """Writes `train` and `test` images of random pixels per class below `root`."""
    random = np.random.default_rng(0)
    for part, count in (("train", train), (test_name, test)):
        for name in CLASSES:
            folder = root / part / name
            folder.mkdir(parents=True)
            for k in range(count):
                noise = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(noise).save(folder / f"{k:03d}.{suffix}")
    return root


def folder_options(root: Path, **options: object) -> DataOptions:
    """Options for a folder with its cache next to it."""
    return DataOptions.model_validate({"name": "folder", "root": str(root), "cache": str(root.parent / "cache"), **options})


def silent(what: str, done: int, total: int) -> None:
    """A progress report that is ignored."""


def prepare_in_process(options: DataOptions, messages: Queue[DatasetInfo]) -> None:
    """Prepares the images and sends their description."""
    messages.put(prepare_dataset(options, workers=1, report=silent))


def prepare_first_chunk(options: DataOptions, messages: Queue[int]) -> None:
    """Prepares with two workers, sends the progress after the first chunk and then blocks."""

    def send_and_block(what: str, done: int, total: int) -> None:
        messages.put(done)
        time.sleep(600)

    prepare_dataset(options, workers=2, report=send_and_block)


def acquire_lock(cache: Path, messages: Queue[str]) -> None:
    """Acquires the lock, sending the reports meanwhile."""
    with hold_build_lock(cache, "key", lambda what, done, total: messages.put(what)):
        messages.put("acquired")
