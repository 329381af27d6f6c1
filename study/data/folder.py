"""Any folder of images: `train/<class>/*` and `test/<class>/*`, or `val/<class>/*` where there is no `test/`.

Where both `test/` and `val/` exist, `test/` is the test set and `val/` is not read: the validation split is cut from
the training images, as for every data set. Class folders are read to any depth, links are followed, files of other
kinds and hidden files are passed over. Everything that is wrong with a folder is told at once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from study.data.order import Integers
from study.errors import Problem, UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif")
LAYOUT = "an image folder holds train/<class>/* and test/<class>/* (or val/<class>/*)"


@dataclass(frozen=True)
class Scan:
    """A folder as it was found: its classes in sorted order, and per stored array its files and their labels.

    Files are paths below `root`, sorted by their bytes; `labels` `n` go with them. `key` changes whenever a file's
    path, size or time of change does.
    """

    root: Path
    class_names: tuple[str, ...]
    files: dict[str, list[str]]
    labels: dict[str, Integers]
    key: str


def scan(root: Path) -> Scan:
    """Find every image below `root`; raises UserError for a missing part, an empty class or unequal classes."""
    folders = _part_folders(root)
    classes = {name: _subfolders(folder) for name, folder in folders.items()}
    problems = [
        Problem(f"class {odd!r} is missing in {folders[name].name}/", place=str(root), key="data.root")
        for name, other in (("test", "train"), ("train", "test"))
        for odd in sorted(set(classes[other]) - set(classes[name]))
    ]
    found = {name: [(c, sorted(_images(folder / c, root))) for c in classes[name]] for name, folder in folders.items()}
    problems += [
        Problem(f"class {c!r} has no images in {folders[name].name}/", place=str(root), key="data.root")
        for name, per_class in found.items()
        for c, images in per_class
        if not images
    ]
    if not classes["train"]:
        problems.append(Problem(f"no class folders in train/: {LAYOUT}", place=str(root), key="data.root"))
    if problems:
        raise UserError(*problems)
    label = {c: k for k, c in enumerate(classes["train"])}
    entries = {name: sorted((path, label[c]) for c, images in part for path, _ in images) for name, part in found.items()}
    stats = [(path, told) for part in found.values() for _, images in part for path, told in images]
    return Scan(
        root=root,
        class_names=tuple(classes["train"]),
        files={name: [path for path, _ in part] for name, part in entries.items()},
        labels={name: np.array([k for _, k in part], dtype=np.int64) for name, part in entries.items()},
        key=hashlib.sha256("\n".join(f"{path}\0{told}" for path, told in sorted(stats)).encode()).hexdigest(),
    )


def _part_folders(root: Path) -> dict[str, Path]:
    test = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if not (root / "train").is_dir() or test is None:
        found = sorted(path.name for path in root.iterdir())[:8] if root.is_dir() else "no such folder"
        raise UserError(Problem(LAYOUT, place=str(root), key="data.root", value=found))
    return {"train": root / "train", "test": test}


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _images(folder: Path, root: Path) -> Iterator[tuple[str, str]]:
    """Path below `root`, and size and time of change, of every image below `folder`."""
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _images(Path(entry.path), root)
        elif entry.name.lower().endswith(SUFFIXES):
            status = entry.stat()
            yield Path(entry.path).relative_to(root).as_posix(), f"{status.st_size} {status.st_mtime_ns}"
