"""Small image folders that tests write, the options to read them, and what second processes do with them.

No import of torch: a process that only prepares images needs none, and starts at once.
"""

from __future__ import annotations

import time
from multiprocessing.queues import Queue
from pathlib import Path

import numpy as np
from PIL import Image

from study.config.options import DataOptions
from study.data import DatasetInfo, prepare_dataset
from study.data.cache import only_builder

CLASSES = ("ant", "bee", "cat")


def write_folder(
    root: Path, *, train: int = 20, test: int = 6, size: int = 12, suffix: str = "png", test_name: str = "test"
) -> Path:
    """`train` and `test` pictures per class below `root`, each of noise of its own."""
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
    """Options for a folder whose cache lies beside it."""
    return DataOptions.model_validate({"name": "folder", "root": str(root), "cache": str(root.parent / "cache"), **options})


def silent(what: str, done: int, total: int) -> None:
    """A report that nobody reads."""


def prepare_and_tell(options: DataOptions, told: Queue[DatasetInfo]) -> None:
    """A second process that prepares the same images."""
    told.put(prepare_dataset(options, workers=1, report=silent))


def prepare_slowly_and_tell(options: DataOptions, told: Queue[int]) -> None:
    """A process with two workers that tells after its first chunk and then never goes on."""

    def tell_and_stay(what: str, done: int, total: int) -> None:
        told.put(done)
        time.sleep(600)

    prepare_dataset(options, workers=2, report=tell_and_stay)


def lock_and_tell(cache: Path, told: Queue[str]) -> None:
    """A second process that wants the lock and tells what it is told meanwhile."""
    with only_builder(cache, "key", lambda what, done, total: told.put(what)):
        told.put("mine")
