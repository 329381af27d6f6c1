"""Any folder of images: `train/<class>/*` and `test/<class>/*`, or `val/<class>/*` where there is no `test/`.

Where both `test/` and `val/` exist, `test/` is the test set and `val/` is not read, unless `data.test_folder` names it: the
validation split is cut from the training images, as for every data set. Class folders are read to any depth, links are
followed, hidden files are ignored, and files of other types are counted. Everything that is wrong with a folder is reported
at once.
"""

import errno
import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from study.data.stratified_order import Int64Array
from study.errors import Problem, UserError, and_more

_SUFFIXES = tuple(".jpg .jpeg .jpe .jfif .png .apng .ppm .pgm .pbm .pnm .bmp .dib .tif .tiff .webp .gif".split())
_LAYOUT = "an image folder holds train/<class>/* and test/<class>/* (or val/<class>/*)"


@dataclass(frozen=True)
class FolderScan:
    """The image files of a folder: its classes in sorted order, and per stored part its files and their labels.

    Files are paths below `root`, class by class and sorted within each (torchvision's ImageFolder order); `labels` `n`
    are theirs. `key` changes whenever a file's path, size or modification time does. `notes` say which files are no images.
    """

    root: Path
    class_names: tuple[str, ...]
    files: dict[str, list[str]]
    labels: dict[str, Int64Array]
    key: str
    notes: tuple[str, ...] = ()


def scan_folder(root: Path, *, test_folder: str | None = None) -> FolderScan:
    """Find every image below `root`; raises UserError for a missing part, an empty class, unequal classes or a single class."""
    folders = _find_parts(root, test_folder)
    others = Counter[str]()
    try:
        classes = {part: list_subfolders(folder) for part, folder in folders.items()}
        images = {  # label, path below the part's folder, size and modification time
            part: sorted(
                (label, *image) for label, name in enumerate(names) for image in find_images(folders[part], name, others)
            )
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
    elif not classes["test"]:
        named = ", ".join(name for name in list_subfolders(root) if name not in ("train", folders["test"].name))
        elsewhere = f"; data.test_folder names another folder to test on (here: {named})" if named else ""
        rules = [f"no class folders in {folders['test'].name}/, so its images have no labels{elsewhere}"]
    elif len(classes["train"]) == 1:
        rules.append("a single class: there is nothing to tell apart")
    ignored = [f"{count:,} {suffix}" for suffix, count in sorted(others.items(), key=lambda each: (-each[1], each[0]))]
    notes = (f"not read as images: {', '.join(and_more(ignored, 8))}",) if ignored else ()
    if rules:
        raise UserError(*(Problem(rule, place=str(root), key="data.root") for rule in (*rules, *notes)))
    stats = "\n".join(f"{folders[part].name}/{path}\0{stat}" for part, found in images.items() for _, path, stat in found)
    return FolderScan(
        root=root,
        class_names=tuple(classes["train"]),
        files={part: [f"{folders[part].name}/{path}" for _, path, _ in found] for part, found in images.items()},
        labels={part: np.array([label for label, _, _ in found], dtype=np.int64) for part, found in images.items()},
        key=hashlib.sha256(stats.encode(errors="surrogateescape")).hexdigest(),
        notes=notes,
    )


def _find_parts(root: Path, test_folder: str | None) -> dict[str, Path]:
    names = [test_folder] if test_folder else ["test", "val"]
    test = next((root / name for name in names if (root / name).is_dir()), None)
    if test is None and test_folder and (root / "train").is_dir():
        raise UserError(
            Problem("no such folder of test images", str(root), "data.test_folder", test_folder, list_subfolders(root))
        )
    if not (root / "train").is_dir() or test is None:
        found = sorted(path.name for path in root.iterdir())[:8] if root.is_dir() else "no such folder"
        raise UserError(Problem(_LAYOUT, place=str(root), key="data.root", value=found))
    return {"train": root / "train", "test": test}


def list_subfolders(folder: Path) -> list[str]:
    """The names of its subfolders in sorted order, without hidden ones."""
    entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    for entry in entries:
        if entry.is_symlink() and not os.path.exists(entry.path):  # a class that would be missing in silence
            raise FileNotFoundError(errno.ENOENT, "a link that leads nowhere", entry.path)
    return sorted(entry.name for entry in entries if entry.is_dir())


def find_images(folder: Path, name: str, others: Counter[str] | None = None) -> Iterator[tuple[str, str]]:
    """Path below `folder`, and size and modification time, of every image in its subfolder `name`.

    Files of other types are counted in `others` by their suffix. Raises OSError for a link that leads nowhere.
    """
    with os.scandir(folder / name) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from find_images(folder, f"{name}/{entry.name}", others)
                continue
            status = entry.stat()
            if not entry.name.lower().endswith(_SUFFIXES):
                if others is not None:
                    others[os.path.splitext(entry.name)[1].lower() or "without a suffix"] += 1
            else:
                yield f"{name}/{entry.name}", f"{status.st_size} {status.st_mtime_ns}"
