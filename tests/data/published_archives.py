"""Small archives in the layouts of the published sets, and a local web server that torchvision downloads them from.

The archives hold a few random images; torchvision's own classes download, verify, extract and read them, with only
their addresses and checksums replaced.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.io import savemat

TRAIN, TEST, CLASSES = 60, 20, 10
Part = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


def example(size: int, channels: int, *, classes: int = CLASSES) -> dict[str, Part]:
    """Random images `n h w c` and labels that hold every class."""
    random = np.random.default_rng(0)
    counts = {"train": TRAIN, "test": max(TEST, classes)} if classes == CLASSES else {"train": 3 * classes, "test": classes}
    return {
        part: (
            random.integers(0, 256, (count, size, size, channels), dtype=np.uint8),
            random.permutation(np.arange(count) % classes),
        )
        for part, count in counts.items()
    }


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


class OldArray:
    """Pickled as the arrays of 2009 are: with the dtype's `align` as a number, which numpy 2.4 deprecates."""

    def __init__(self, array: npt.NDArray[np.uint8]):
        self.array = array

    def __reduce__(self) -> tuple[object, ...]:
        return _old_array, (self.array.tobytes(), self.array.shape)


def _old_array(content: bytes, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(content, np.dtype("u1", 0, 1)).reshape(shape)  # type: ignore[call-overload]


def write_cifar(folder: Path, parts: dict[str, Part], *, fine: bool) -> dict[str, str]:
    """cifar-10-python.tar.gz (or cifar-100-python.tar.gz) below `folder`; md5 of it and of each file in it."""
    base, meta_name, names = (
        ("cifar-100-python", "meta", "fine_label_names") if fine else ("cifar-10-batches-py", "batches.meta", "label_names")
    )
    files = (
        {"train": ["train"], "test": ["test"]}
        if fine
        else {"train": [f"data_batch_{k}" for k in range(1, 6)], "test": ["test_batch"]}
    )
    contents = {meta_name: pickle.dumps({names: [f"class {k}" for k in range(100 if fine else 10)]}, 2)}
    for part, (images, labels) in parts.items():
        flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        for name, rows in zip(files[part], np.array_split(np.arange(len(images)), len(files[part])), strict=True):
            key = "fine_labels" if fine else "labels"
            contents[name] = pickle.dumps({"data": OldArray(flat[rows]), key: labels[rows].tolist()}, 2)
    archive = folder / (f"cifar-{100 if fine else 10}-python.tar.gz")
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"{base}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return {"archive": md5(archive)} | {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}


def write_fashion_mnist(folder: Path, parts: dict[str, Part]) -> list[tuple[str, str]]:
    """The four IDX files, gzipped; name and md5 of each."""
    written = []
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = parts[part]
        idx = {
            f"{prefix}-images-idx3-ubyte.gz": struct.pack(">IIII", 0x803, *images.shape[:3]) + images.tobytes(),
            f"{prefix}-labels-idx1-ubyte.gz": struct.pack(">II", 0x801, len(labels)) + labels.astype(np.uint8).tobytes(),
        }
        for name, content in idx.items():
            (folder / name).write_bytes(gzip.compress(content))
            written.append((name, md5(folder / name)))
    return written


def write_svhn(folder: Path, parts: dict[str, Part]) -> dict[str, str]:
    """train_32x32.mat and test_32x32.mat, the digit 0 labelled 10; md5 by part."""
    for part, (images, labels) in parts.items():
        stored = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        savemat(folder / f"{part}_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": stored})
    return {part: md5(folder / f"{part}_32x32.mat") for part in parts}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        """Nothing on stderr."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address below which `folder` is served while the context lasts."""
    server = HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
