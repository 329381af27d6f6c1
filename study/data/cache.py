"""The decoded cache: one folder ("store") per source and image size, published whole or not at all, then never changed.

    <cache>/cifar10-32px-<key>/  train_images.npy   uint8 `n c h w`, memory-mapped by every reader
                                 train_labels.npy   int64 `n`
                                 train_order.npy    int64 `n`, each row's position in the source's own order
                                 test_*.npy         likewise
                                 facts.json         `SourceInfo`, written last
    <cache>/scans/<key>.json     which store holds the image folder whose scan has this key
    <cache>/building/<key>/      being built, or interrupted and resumed by the next `prepare`
    <cache>/locks/<key>.lock     held by the one process that builds <key>

Rows are in the fixed order of `study.data.stratified_order`.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from study.atomic_io import flush, whole_file
from study.config.documents import read_document
from study.data.dataset_info import SourceInfo
from study.data.images import Pixels, resize_array
from study.data.stratified_order import Int64Array, draw_stratified_order
from study.errors import Problem, UserError, notify

STORED_PARTS = ("train", "test")
BUILD_ANEW = "`study.prepare` builds it anew"
_ROWS_PER_REPORT = 256
_CACHE_VERSION = 1  # of layout, row order and resizing; stores of another version are ignored

ReportProgress = Callable[[str, int, int], None]  # what is being done, amount done, total amount
ImageArrays = Mapping[str, tuple[Pixels, Int64Array]]  # per stored part: images `n h w 3` or `n h w`, labels `n`


@dataclass(frozen=True)
class StoredArrays:
    """A source's content by part ("train", "test"): images uint8 `n c h w`, labels int64 `n`, source positions `n`."""

    images: dict[str, Pixels]
    labels: dict[str, Int64Array]
    order: dict[str, Int64Array]


def short_hash(*words: object) -> str:
    return hashlib.sha256(json.dumps([_CACHE_VERSION, *words]).encode()).hexdigest()[:12]


def store_path(cache: Path, *, name: str, digest: str, image_size: int) -> Path:
    return cache / f"{name}-{image_size}px-{short_hash(digest, image_size)}"


def scan_path(cache: Path, *, scan_key: str, image_size: int | None) -> Path:
    return cache / "scans" / f"{short_hash(scan_key, image_size)}.json"


def is_whole(store: Path) -> bool:
    """Whether there is a store that can be opened; a notice says what is wrong with one that can't."""
    try:
        source = read_source_info(store)
        return source is not None and bool(open_store(store, source))
    except UserError as error:
        notify(error.summary())
        return False


def read_source_info(store: Path) -> SourceInfo | None:
    """The description of a published store, or None where there is none."""
    path = store / "facts.json"
    return read_document(path, SourceInfo, hint=BUILD_ANEW) if path.exists() else None


def open_store(store: Path, source: SourceInfo) -> StoredArrays:
    """The arrays of a published store, its images memory-mapped.

    The maps are private and copy-on-write: their pages are shared between workers and nothing is written to the files.
    Raises UserError where a file is missing, truncated or of another shape than `source` says.
    """
    size = source.image_size
    counts = {"train": source.train_images, "test": source.test_images}
    try:
        mapped: list[dict[str, Any]] = [
            {part: np.lib.format.open_memmap(store / f"{part}_{kind}.npy", mode="c") for part in STORED_PARTS}
            for kind in ("images", "labels", "order")
        ]
        images, labels, order = mapped
        for part, count in counts.items():
            shapes = [images[part].shape, labels[part].shape, order[part].shape]
            if shapes != [(count, source.channels, size, size), (count,), (count,)]:
                raise ValueError(f"{part} arrays have the shapes {shapes}")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError) as error:
        rule = f"damaged cache ({error}): {BUILD_ANEW}"
        raise UserError(Problem(rule, place=str(store), key="data.cache")) from error
    small = ({part: np.array(array) for part, array in each.items()} for each in (labels, order))
    return StoredArrays(images, *small)


def publish_store(building: Path, source: SourceInfo, cache: Path) -> Path:
    """Rename a complete building folder to its store in one step; an equal store that exists already is kept if it is whole."""
    store = store_path(cache, name=source.name, digest=source.digest, image_size=source.image_size)
    with whole_file(building / "facts.json") as draft:
        draft.write_text(json.dumps(asdict(source), indent=1))
    if store.exists() and not is_whole(store):
        shutil.rmtree(store)
    try:
        os.rename(building, store)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        shutil.rmtree(building)
    flush(cache)
    return store


@contextmanager
def hold_build_lock(cache: Path, key: str, report: ReportProgress) -> Iterator[None]:
    """Hold the lock on `key`, waiting for another process that builds it; the lock of a dead process is free at once."""
    path = cache / "locks" / f"{key}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another process that prepares the same images", 0, 0)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def explain_disk_errors(cache: Path) -> Iterator[None]:
    """Let an OSError raised inside name a file, and say which option chooses another folder."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(error.filename or cache), None
        error.__notes__ = ["write prepared images (data.cache=... chooses another folder) to"]
        raise


def require_disk_space(cache: Path, needed: int) -> None:
    """Raise UserError if the disk has less than `needed` bytes left."""
    free = shutil.disk_usage(cache).free
    if needed > free:
        rule = f"not enough disk space: the decoded images take {needed / 1e9:,.2f} GB, and {free / 1e9:,.2f} GB are free"
        raise UserError(Problem(rule, place=str(cache), key="data.cache"))


class PixelFile:
    """A `.npy` array of uint8 `n c h w` that is written in ranges of rows, its disk space allocated in advance."""

    def __init__(self, path: Path, shape: tuple[int, int, int, int]):
        self.path = path
        self.row_bytes = int(np.prod(shape[1:]))
        present = path.stat().st_size if path.exists() else 0
        with open(path, "r+b" if present else "w+b") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            file.flush()
            self.start = file.tell()
            size = self.start + shape[0] * self.row_bytes
            if present < size and hasattr(os, "posix_fallocate"):  # a full disk is reported before the work begins
                os.posix_fallocate(file.fileno(), 0, size)
            elif present < size:
                os.truncate(file.fileno(), size)  # macOS has no such call

    def write(self, row: int, images: Pixels) -> None:
        """Write `images` `k c h w` to rows `row`..`row + k` and wait until they are on disk."""
        content = memoryview(images.tobytes())
        with open(self.path, "r+b", buffering=0) as file:
            file.seek(self.start + row * self.row_bytes)
            while content:
                content = content[file.write(content) :]
            os.fsync(file.fileno())


def write_labels(building: Path, part: str, labels: Int64Array) -> Int64Array:
    """Write a part's order and its labels in that order; returns the order."""
    order = draw_stratified_order(labels, part)
    for path, array in ((building / f"{part}_order.npy", order), (building / f"{part}_labels.npy", labels[order])):
        np.save(path, array)
        flush(path)
    return order


def write_store(source: SourceInfo, parts: ImageArrays, *, cache: Path, building: Path, report: ReportProgress) -> Path:
    """Build a store from images in memory, resized to the source's `image_size`; returns its folder."""
    building.mkdir(parents=True, exist_ok=True)
    total, done = sum(len(images) for images, _ in parts.values()), 0
    require_disk_space(building, total * source.channels * source.image_size**2)
    for part, (images, labels) in parts.items():
        order = write_labels(building, part, labels)
        shape = (len(images), source.channels, source.image_size, source.image_size)
        file = PixelFile(building / f"{part}_images.npy", shape)
        for start in range(0, len(images), _ROWS_PER_REPORT):
            rows = (np.ascontiguousarray(images[index]) for index in order[start : start + _ROWS_PER_REPORT])
            resized = [np.atleast_3d(resize_array(row, source.image_size)).transpose(2, 0, 1) for row in rows]
            file.write(start, np.stack(resized))
            done += len(resized)
            report(f"storing {source.name}", done, total)
    return publish_store(building, source, cache)
