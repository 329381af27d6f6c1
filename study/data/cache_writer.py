"""Writes the arrays of a store of `study.data.cache`, and a whole store from images in memory."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from study.atomic_io import flush
from study.data.cache import ReportProgress, publish_store, require_disk_space
from study.data.dataset_info import SourceInfo
from study.data.images import Pixels, resize_array
from study.data.stratified_order import Int64Array, draw_stratified_order

ImageArrays = Mapping[str, tuple[Pixels, Int64Array]]  # per stored part: images `n h w 3` or `n h w`, labels `n`

_ROWS_PER_REPORT = 256


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
