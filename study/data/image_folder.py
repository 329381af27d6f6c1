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

from study.data.stratified_order import Integers
from study.errors import Problem, UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif")
LAYOUT = "an image folder holds train/<class>/* and test/<class>/* (or val/<class>/*)"


@dataclass(frozen=True)
class Scan:
    """A folder as it was found: its classes in sorted order, and per stored array its files and their labels.

    Files are paths below `root`, class by class and sorted within each (torchvision's ImageFolder order); `labels` `n`
    go with them. `key` changes whenever a file's path, size or time of change does.
    """

    root: Path
    class_names: tuple[str, ...]
    files: dict[str, list[str]]
    labels: dict[str, Integers]
    key: str


def scan(root: Path) -> Scan:
    """Find every image below `root`; raises UserError for a missing part, an empty class or unequal classes."""
    folders = _part_folders(root)
    try:
        classes = {part: subfolders(folder) for part, folder in folders.items()}
        found = {
            part: [(label, path, told) for label, name in enumerate(names) for path, told in images_below(folders[part], name)]
            for part, names in classes.items()
        }
    except OSError as error:  # a folder that may not be read, a link to nowhere
        raise UserError(Problem(str(error.strerror), place=str(error.filename), key="data.root")) from error
    _refuse_gaps(root, folders, classes, found)
    for images in found.values():
        images.sort()
    stats = "\n".join(f"{folders[part].name}/{path}\0{told}" for part, images in found.items() for _, path, told in images)
    return Scan(
        root=root,
        class_names=tuple(classes["train"]),
        files={part: [f"{folders[part].name}/{path}" for _, path, _ in images] for part, images in found.items()},
        labels={part: np.array([label for label, _, _ in images], dtype=np.int64) for part, images in found.items()},
        key=hashlib.sha256(stats.encode(errors="surrogateescape")).hexdigest(),
    )


Found = list[tuple[int, str, str]]  # label, path below the part's folder, size and time of change


def _refuse_gaps(root: Path, folders: dict[str, Path], classes: dict[str, list[str]], found: dict[str, Found]) -> None:
    rules = [
        f"class {odd!r} is missing in {folders[part].name}/"
        for part, other in (("test", "train"), ("train", "test"))
        for odd in sorted(set(classes[other]) - set(classes[part]))
    ]
    for part, names in classes.items():
        filled = {label for label, _, _ in found[part]}
        empty = [name for label, name in enumerate(names) if label not in filled]
        rules += [f"class {name!r} has no images in {folders[part].name}/" for name in empty]
    if not classes["train"]:
        rules.append(f"no class folders in train/: {LAYOUT}")
    if rules:
        raise UserError(*(Problem(rule, place=str(root), key="data.root") for rule in rules))


def _part_folders(root: Path) -> dict[str, Path]:
    test = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if not (root / "train").is_dir() or test is None:
        found = sorted(path.name for path in root.iterdir())[:8] if root.is_dir() else "no such folder"
        raise UserError(Problem(LAYOUT, place=str(root), key="data.root", value=found))
    return {"train": root / "train", "test": test}


def subfolders(folder: Path) -> list[str]:
    """The names of its subfolders in sorted order, hidden ones passed over."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def images_below(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """Path below `folder`, and size and time of change, of every image in its subfolder `name`."""
    with os.scandir(folder / name) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from images_below(folder, f"{name}/{entry.name}")
            elif entry.name.lower().endswith(SUFFIXES):
                status = entry.stat()
                yield f"{name}/{entry.name}", f"{status.st_size} {status.st_mtime_ns}"
