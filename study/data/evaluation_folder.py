"""One folder of class folders, to evaluate on: every image once, in sorted order, decoded by threads a little ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from study.data.image_folder import images_below, subfolders
from study.data.images import Pixels, UnreadableImage
from study.data.preprocessing import Preprocessing
from study.errors import Problem, UserError

AHEAD = 2  # batches that are decoded while one is used


@dataclass(frozen=True)
class LabelledFolder:
    """Images by path below `root`, with their labels: positions in the sorted class names."""

    root: Path
    class_names: tuple[str, ...]
    files: tuple[str, ...]
    labels: tuple[int, ...]


def labelled_folder(root: Path) -> LabelledFolder:
    """The images of `root/<class>/*`, or of its `test/` or `val/` where it has one; UserError where there are none."""
    part = next((root / name for name in ("test", "val") if (root / name).is_dir()), root)
    names = subfolders(part) if part.is_dir() else []
    found = sorted((label, path) for label, name in enumerate(names) for path, _ in images_below(part, name))
    empty = sorted(set(range(len(names))) - {label for label, _ in found})
    problems = [Problem(f"class {names[label]!r} has no images", place=str(part), key="--data") for label in empty]
    if not names:
        rule = "a folder of class folders is expected, or one that holds them in test/ or val/"
        problems = [Problem(rule, place=str(root), key="--data")]
    if problems:
        raise UserError(*problems)
    return LabelledFolder(part, tuple(names), tuple(path for _, path in found), tuple(label for label, _ in found))


@dataclass(frozen=True)
class LabelledBatches:
    """Normalised images `b 3 h w` with their labels `b` on `device`; raises UserError naming what can't be decoded."""

    folder: LabelledFolder
    preprocessing: Preprocessing
    image_size: int
    batch_size: int
    device: torch.device
    layout: torch.memory_format
    workers: int

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        starts = range(0, len(self.folder.files), self.batch_size)
        waiting: deque[tuple[int, list[Future[Pixels | Problem]]]] = deque()
        with ThreadPoolExecutor(self.workers) as pool:
            for start in starts:
                files = self.folder.files[start : start + self.batch_size]
                waiting.append((start, [pool.submit(self._pixels, file) for file in files]))
                if len(waiting) > AHEAD:
                    yield self._batch(*waiting.popleft())
            while waiting:
                yield self._batch(*waiting.popleft())

    def _pixels(self, file: str) -> Pixels | Problem:
        path = self.folder.root / os.fspath(file)
        try:
            return self.preprocessing.pixels(path.read_bytes(), self.image_size)
        except (UnreadableImage, OSError) as error:
            return Problem(str(error), place=str(path))

    def _batch(self, start: int, decoding: list[Future[Pixels | Problem]]) -> tuple[Tensor, Tensor]:
        pictures = [future.result() for future in decoding]
        problems = [picture for picture in pictures if isinstance(picture, Problem)]
        if problems:
            raise UserError(*problems)
        images = torch.from_numpy(np.stack([picture for picture in pictures if not isinstance(picture, Problem)]))
        labels = torch.tensor(self.folder.labels[start : start + len(pictures)])
        return self._normal(images.to(self.device)), labels.to(self.device)

    def _normal(self, images: Tensor) -> Tensor:
        mean, std = (
            torch.tensor(values, device=self.device).view(1, -1, 1, 1)
            for values in (self.preprocessing.mean, self.preprocessing.std)
        )
        return images.to(torch.float32, memory_format=self.layout).div_(255).sub_(mean).div_(std)
