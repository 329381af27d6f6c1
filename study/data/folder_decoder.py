"""Builds a store of `study.data.cache` from a folder of image files, by many processes.

Files are decoded in chunks of rows. This process alone writes: a chunk's pixels to their place in the array, then,
once they are on disk, one line to the journal. An interrupted build goes on after the last such line.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np

from study.atomic_io import whole_file
from study.data.cache import PARTS, Report, check_space, finish
from study.data.cache_writer import PixelFile, save_rows
from study.data.dataset_info import SourceInfo
from study.data.image_folder import Scan
from study.data.images import Pixels, UnreadableImage, decoded, from_moments, moments
from study.errors import Problem, UserError

CHUNK_BYTES = 4 << 20
CHUNK_ROWS = 256


@dataclass(frozen=True)
class Plan:
    """What is to be decoded: per part the files in stored order, to squares of `side` pixels, below `root`."""

    root: Path
    files: dict[str, list[str]]
    side: int
    resize: bool  # False: every file must have this size already

    @property
    def shapes(self) -> dict[str, tuple[int, int, int, int]]:
        return {part: (len(names), 3, self.side, self.side) for part, names in self.files.items()}

    @property
    def images(self) -> int:
        return sum(map(len, self.files.values()))

    def chunks(self) -> Iterator[Chunk]:
        rows = max(1, min(CHUNK_ROWS, CHUNK_BYTES // (3 * self.side**2)))
        for part, names in self.files.items():
            for start in range(0, len(names), rows):
                yield Chunk(part, start, tuple(names[start : start + rows]), str(self.root), self.side, self.resize)


@dataclass(frozen=True)
class Chunk:
    """Rows to decode in one process: the files in stored order from row `start` of `part`."""

    part: str
    start: int
    files: tuple[str, ...]
    root: str
    side: int
    resize: bool


@dataclass(frozen=True)
class Entry:
    """A journal line: a chunk that is on disk, with what is needed of its files without reading them again."""

    part: str
    start: int
    sha256: list[str]
    moments: list[list[int]]


def build_folder(scan: Scan, *, image_size: int | None, cache: Path, building: Path, workers: int, report: Report) -> Path:
    """A store of a scanned folder; raises UserError that names every file that can't be used."""
    building.mkdir(parents=True, exist_ok=True)
    order = {part: save_rows(building, part, scan.labels[part]) for part in PARTS}
    files = {part: [scan.files[part][at] for at in order[part]] for part in PARTS}
    plan = Plan(scan.root, files, side=image_size or _own_size(scan), resize=image_size is not None)
    entries = _decode_all(plan, building, workers=workers, report=report)
    (building / "journal.jsonl").unlink()
    return finish(building, _facts(plan, entries, scan.class_names), cache)


def _own_size(scan: Scan) -> int:
    """The size of the first training image, which all others must share where no image_size is given."""
    path = scan.root / scan.files["train"][0]
    try:
        _, height, width = decoded(path.read_bytes(), None).shape
    except UnreadableImage as error:
        raise UserError(Problem(str(error), place=str(path), key="data.root")) from error
    if height != width:
        raise UserError(Problem(f"images of {width}x{height} are not square; set data.image_size", place=str(path)))
    return int(height)


def _pixel_files(plan: Plan, building: Path) -> dict[str, PixelFile]:
    there = sum(file.stat().st_size for file in building.glob("*_images.npy"))
    check_space(building, plan.images * 3 * plan.side**2 - there)
    return {part: PixelFile(building / f"{part}_images.npy", shape) for part, shape in plan.shapes.items()}


def _decode_all(plan: Plan, building: Path, *, workers: int, report: Report) -> list[Entry]:
    """Decode what the journal doesn't hold yet; returns the entries of all chunks."""
    journal = building / "journal.jsonl"
    entries = _read_journal(journal)
    held = {(entry.part, entry.start) for entry in entries}
    chunks = [chunk for chunk in plan.chunks() if (chunk.part, chunk.start) not in held]
    pixels, bad = _pixel_files(plan, building), list[Problem]()
    done = plan.images - sum(len(chunk.files) for chunk in chunks)
    with open(journal, "a") as lines:
        for chunk, (images, digests, unreadable) in _in_turn(chunks, workers):
            bad += unreadable
            if not bad:
                pixels[chunk.part].write(chunk.start, images)
                entries.append(Entry(chunk.part, chunk.start, digests, moments(images).tolist()))
                lines.write(json.dumps(asdict(entries[-1])) + "\n")
                lines.flush()
                os.fsync(lines.fileno())
            done += len(chunk.files)
            report("decoding images", done, plan.images)
    if bad:
        shutil.rmtree(building)  # the folder has to change, and a changed folder is another build
        told = f"{len(bad):,} of {plan.images:,} images can't be used; mend or remove them"
        raise UserError(Problem(told, place=str(plan.root), key="data.root"), *bad)
    return entries


def _read_journal(journal: Path) -> list[Entry]:
    """The chunks on disk; a torn last line is a chunk that is not."""
    if not journal.exists():
        return []
    whole = journal.read_text().rpartition("\n")[0].splitlines()
    with whole_file(journal) as draft:
        draft.write_text("".join(line + "\n" for line in whole))
    return [Entry(**json.loads(line)) for line in whole]


Decoded = tuple[Pixels, list[str], list[Problem]]


def _in_turn(chunks: Sequence[Chunk], workers: int) -> Iterator[tuple[Chunk, Decoded]]:
    """Chunks with what was decoded of them, in order; at most 2 x workers are under way, so memory is bounded."""
    if workers <= 1:
        yield from ((chunk, decode_chunk(chunk)) for chunk in chunks)
        return
    under_way: deque[tuple[Chunk, Future[Decoded]]] = deque()
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_end_with_parent)
    try:
        for chunk in chunks:
            under_way.append((chunk, pool.submit(decode_chunk, chunk)))
            if len(under_way) >= 2 * workers:
                first, future = under_way.popleft()
                yield first, future.result()
        yield from ((chunk, future.result()) for chunk, future in under_way)
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Leave interrupts to the parent process, and end when it is gone: killed, it can't tell its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None, "a worker is started by another process"

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def decode_chunk(chunk: Chunk) -> Decoded:
    """Pixels `k c h w` and sha256 of each file of a chunk, and a problem for each that can't be used (left black)."""
    images = np.zeros((len(chunk.files), 3, chunk.side, chunk.side), dtype=np.uint8)
    digests, bad = [], []
    for image, name in zip(images, chunk.files, strict=True):
        path = Path(chunk.root, name)
        try:
            content = path.read_bytes()
            picture = decoded(content, chunk.side if chunk.resize else None)
            if picture.shape != image.shape:
                told = f"{picture.shape[2]}x{picture.shape[1]}, others {chunk.side}x{chunk.side}"
                raise UnreadableImage(f"is {told}; set data.image_size to resize all")
            image[:] = picture
            digests.append(hashlib.sha256(content).hexdigest())
        except (OSError, UnreadableImage) as error:
            bad.append(Problem(str(error), place=str(path)))
    return images, digests, bad


def _facts(plan: Plan, entries: Sequence[Entry], class_names: tuple[str, ...]) -> SourceInfo:
    content, sums = [], np.zeros((2, 3), dtype=np.int64)
    for entry in entries:
        names = plan.files[entry.part][entry.start : entry.start + len(entry.sha256)]
        content += [f"{name}\0{sha}" for name, sha in zip(names, entry.sha256, strict=True)]
        if entry.part == "train":
            sums += np.array(entry.moments)
    mean, std = from_moments(sums, len(plan.files["train"]) * plan.side**2)
    return SourceInfo(
        name="folder",
        digest=hashlib.sha256("\n".join(sorted(content)).encode(errors="surrogateescape")).hexdigest(),
        image_size=plan.side,
        channels=3,
        class_names=class_names,
        train_images=len(plan.files["train"]),
        test_images=len(plan.files["test"]),
        mean=mean,
        std=std,
        fraction_of=len(plan.files["train"]),
    )
