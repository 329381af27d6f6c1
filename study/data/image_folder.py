"""Any folder of images: `train/<class>/*` and `test/<class>/*`, or `val/<class>/*` where there is no `test/`.

Where both `test/` and `val/` exist, `test/` is the test set and `val/` is not read: the validation split is cut from
the training images, as for every data set. Class folders are read to any depth, links are followed, files of other
types and hidden files are ignored. Everything that is wrong with a folder is reported at once.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from study.data.stratified_order import Int64Array
from study.errors import Problem, UserError

_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif")
_LAYOUT = "an image folder holds train/<class>/* and test/<class>/* (or val/<class>/*)"


@dataclass(frozen=True)
class FolderScan:
    """The image files of a folder: its classes in sorted order, and per stored part its files and their labels.

    Files are paths below `root`, class by class and sorted within each (torchvision's ImageFolder order); `labels` `n`
    are theirs. `key` changes whenever a file's path, size or modification time does.
    """

    root: Path
    class_names: tuple[str, ...]
    files: dict[str, list[str]]
    labels: dict[str, Int64Array]
    key: str


def scan_folder(root: Path) -> FolderScan:
    """Find every image below `root`; raises UserError for a missing part, an empty class or unequal classes."""
    folders = _find_parts(root)
    try:
        classes = {part: list_subfolders(folder) for part, folder in folders.items()}
        images = {  # label, path below the part's folder, size and modification time
            part: sorted((label, *image) for label, name in enumerate(names) for image in find_images(folders[part], name))
            for part, names in classes.items()
        }
    except OSError as error:  # a folder without read permission, a broken link
        raise UserError(Problem(str(error.strerror), place=str(error.filename), key="data.root")) from error
    rules = [
        f"class {name!r} is missing in {folders[part].name}/"
        for part, other in (("test", "train"), ("train", "test"))
        for name in sorted(set(classes[other]) - set(classes[part]))
    ]
    for part, names in classes.items():
        filled = {label for label, _, _ in images[part]}
        empty = [name for label, name in enumerate(names) if label not in filled]
        rules += [f"class {name!r} has no images in {folders[part].name}/" for name in empty]
    if not classes["train"]:
        rules.append(f"no class folders in train/: {_LAYOUT}")
    if rules:
        raise UserError(*(Problem(rule, place=str(root), key="data.root") for rule in rules))
    stats = "\n".join(f"{folders[part].name}/{path}\0{stat}" for part, found in images.items() for _, path, stat in found)
    return FolderScan(
        root=root,
        class_names=tuple(classes["train"]),
        files={part: [f"{folders[part].name}/{path}" for _, path, _ in found] for part, found in images.items()},
        labels={part: np.array([label for label, _, _ in found], dtype=np.int64) for part, found in images.items()},
        key=hashlib.sha256(stats.encode(errors="surrogateescape")).hexdigest(),
    )


def _find_parts(root: Path) -> dict[str, Path]:
    test = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if not (root / "train").is_dir() or test is None:
        found = sorted(path.name for path in root.iterdir())[:8] if root.is_dir() else "no such folder"
        raise UserError(Problem(_LAYOUT, place=str(root), key="data.root", value=found))
    return {"train": root / "train", "test": test}


def list_subfolders(folder: Path) -> list[str]:
    """The names of its subfolders in sorted order, without hidden ones."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def find_images(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """Path below `folder`, and size and modification time, of every image in its subfolder `name`."""
    with os.scandir(folder / name) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from find_images(folder, f"{name}/{entry.name}")
            elif entry.name.lower().endswith(_SUFFIXES):
                status = entry.stat()
                yield f"{name}/{entry.name}", f"{status.st_size} {status.st_mtime_ns}"
