"""Arrays of a store of `study.data.cache` while it is built, and building one from images in memory."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from study.data.cache import Report, check_space, finish, save_array
from study.data.dataset_info import SourceInfo
from study.data.images import Pixels, fitted
from study.data.stratified_order import Integers, stratified_order
from study.data.torchvision_datasets import Parts

STRIDE = 256  # rows between two reports


class PixelFile:
    """A `.npy` array of uint8 `n c h w` that is written in stretches of rows, its disk space taken in advance."""

    def __init__(self, path: Path, shape: tuple[int, int, int, int]):
        self.path = path
        self.row_bytes = int(np.prod(shape[1:]))
        there = path.stat().st_size if path.exists() else 0
        with open(path, "r+b" if there else "w+b") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            file.flush()
            self.start = file.tell()
            size = self.start + shape[0] * self.row_bytes
            if there < size:
                _reserve(file.fileno(), size)

    def write(self, row: int, images: Pixels) -> None:
        """Put `images` `k c h w` at rows `row`..`row + k` and wait until they are on disk."""
        content = memoryview(images.tobytes())
        with open(self.path, "r+b", buffering=0) as file:
            file.seek(self.start + row * self.row_bytes)
            while content:
                content = content[file.write(content) :]
            os.fsync(file.fileno())


def _reserve(handle: int, size: int) -> None:
    """Take `size` bytes of disk now, so that a full disk is told before the work and not in its middle."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:
        os.truncate(handle, size)  # macOS has no such call


def save_rows(building: Path, part: str, labels: Integers) -> Integers:
    """Write a part's labels and order; returns the order."""
    order = stratified_order(labels, part)
    save_array(building / f"{part}_order.npy", order)
    save_array(building / f"{part}_labels.npy", labels[order])
    return order


def build_arrays(stored: SourceInfo, parts: Parts, *, cache: Path, building: Path, report: Report) -> Path:
    """A store of images in memory, resized where their size differs from the facts'; returns its folder."""
    building.mkdir(parents=True, exist_ok=True)
    total, done = sum(len(images) for images, _ in parts.values()), 0
    check_space(building, total * stored.channels * stored.image_size**2)
    for part, (images, labels) in parts.items():
        order = save_rows(building, part, labels)
        shape = (len(images), stored.channels, stored.image_size, stored.image_size)
        file = PixelFile(building / f"{part}_images.npy", shape)
        for start in range(0, len(images), STRIDE):
            rows = [_resized(images[at], stored.image_size) for at in order[start : start + STRIDE]]
            file.write(start, np.stack(rows))
            done += len(rows)
            report(f"storing {stored.name}", done, total)
    return finish(building, stored, cache)


def _resized(image: Pixels, image_size: int) -> Pixels:
    """`h w c` as `c image_size image_size`."""
    plain = image[..., 0] if image.shape[-1] == 1 else image
    return np.atleast_3d(fitted(np.ascontiguousarray(plain), image_size)).transpose(2, 0, 1)
