"""Builds a store of `study.data.cache` from a folder of image files, with many processes.

Files are decoded in chunks of rows. The parent process alone writes: a chunk's pixels into the array, then, once they
are on disk, one line to the journal. An interrupted build is resumed after the last such line.
"""

import hashlib
import json
import os
import shutil
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np

from study.atomic_io import whole_file
from study.config.documents import STORED, parse_document, read_json_lines
from study.data.cache import STORED_PARTS, PixelFile, ReportProgress, publish_store, require_disk_space, write_labels
from study.data.dataset_info import SourceInfo
from study.data.image_folder import FolderScan
from study.data.images import Pixels, UnreadableImage, decode_image, mean_and_std, read_image_file, sum_moments
from study.errors import Problem, UserError

CHUNK_ROWS = 256
_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class Chunk:
    """Rows to decode in one process: files below `root`, to be stored from row `start` of `part`."""

    part: str
    start: int
    files: tuple[str, ...]
    root: str
    size: int  # pixels a side
    resize: bool  # False: every file must have this size already


@dataclass(frozen=True)
class JournalEntry:
    """A chunk that is on disk, with what is needed of its files without reading them again."""

    __pydantic_config__ = STORED
    part: str
    start: int
    sha256: list[str]
    moments: list[list[int]]


DecodedChunk = tuple[Pixels, list[str], list[Problem]]  # pixels `k c h w`, sha256 of the files, unusable files


def decode_folder(
    scan: FolderScan, *, image_size: int | None, cache: Path, building: Path, workers: int, report: ReportProgress
) -> Path:
    """Build a store from a scanned folder and return its path; raises UserError naming every file that can't be used."""
    building.mkdir(parents=True, exist_ok=True)
    order = {part: write_labels(building, part, scan.labels[part]) for part in STORED_PARTS}
    files = {part: [scan.files[part][index] for index in order[part]] for part in STORED_PARTS}
    size, resize = image_size or _measure_first_image(scan), image_size is not None
    rows = max(1, min(CHUNK_ROWS, _CHUNK_BYTES // (3 * size**2)))
    chunks = [
        Chunk(part, start, tuple(names[start : start + rows]), str(scan.root), size, resize)
        for part, names in files.items()
        for start in range(0, len(names), rows)
    ]
    entries = _decode_all(chunks, building, workers=workers, report=report)
    (building / "journal.jsonl").unlink()

    content, sums, hashes = [], np.zeros((2, 3), dtype=np.int64), dict[str, list[str]]((part, []) for part in STORED_PARTS)
    for entry in entries:
        names = files[entry.part][entry.start : entry.start + len(entry.sha256)]
        hashes[entry.part] += entry.sha256
        content += [f"{name}\0{sha}" for name, sha in zip(names, entry.sha256, strict=True)]
        if entry.part == "train":
            sums += np.array(entry.moments)
    mean, std = mean_and_std(sums, len(files["train"]) * size**2)
    source = SourceInfo(
        name="folder",
        digest=hashlib.sha256("\n".join(sorted(content)).encode(errors="surrogateescape")).hexdigest(),
        image_size=size,
        channels=3,
        class_names=scan.class_names,
        train_images=len(files["train"]),
        test_images=len(files["test"]),
        mean=mean,
        std=std,
        fraction_of=len(files["train"]),
        notes=_describe_overlap(hashes["train"], hashes["test"]),
    )
    return publish_store(building, source, cache)


def _describe_overlap(train: Sequence[str], test: Sequence[str]) -> tuple[str, ...]:
    """Test images that are files of the training set too, by their sha256."""
    known = set(train)
    both = sum(sha in known for sha in test)
    if not both:
        return ()
    return (f"{both:,} of {len(test):,} test images are the same files as training images: accuracies on them are no test",)


def _measure_first_image(scan: FolderScan) -> int:
    """The size of the first training image, which all others must have where no image_size is given."""
    path = scan.root / scan.files["train"][0]
    try:
        _, height, width = decode_image(read_image_file(path), None).shape
    except UnreadableImage as error:
        raise UserError(Problem(str(error), place=str(path), key="data.root")) from error
    if height != width:
        raise UserError(Problem(f"images of {width}x{height} are not square; set data.image_size", place=str(path)))
    return int(height)


def _decode_all(chunks: Sequence[Chunk], building: Path, *, workers: int, report: ReportProgress) -> list[JournalEntry]:
    """Decode the chunks that are not in the journal yet; returns the entries of all chunks."""
    journal = building / "journal.jsonl"
    entries = _read_journal(journal)
    written = {(entry.part, entry.start) for entry in entries}
    missing = [chunk for chunk in chunks if (chunk.part, chunk.start) not in written]
    counts = {part: sum(len(chunk.files) for chunk in chunks if chunk.part == part) for part in STORED_PARTS}
    total, size = sum(counts.values()), chunks[0].size
    allocated = sum(file.stat().st_size for file in building.glob("*_images.npy"))
    require_disk_space(building, total * 3 * size**2 - allocated)
    pixels = {part: PixelFile(building / f"{part}_images.npy", (counts[part], 3, size, size)) for part in STORED_PARTS}
    done, unusable = total - sum(len(chunk.files) for chunk in missing), list[Problem]()
    with open(journal, "a") as lines:
        for chunk, (images, digests, problems) in _decode_in_order(missing, workers):
            unusable += problems
            if not unusable:
                pixels[chunk.part].write(chunk.start, images)
                entries.append(JournalEntry(chunk.part, chunk.start, digests, sum_moments(images).tolist()))
                lines.write(json.dumps(asdict(entries[-1])) + "\n")
                lines.flush()
                os.fsync(lines.fileno())
            done += len(chunk.files)
            report("decoding images", done, total)
    if unusable:
        shutil.rmtree(building)  # the folder has to change, and a changed folder is another build
        rule = f"{len(unusable):,} of {total:,} images can't be used; repair or remove them"
        raise UserError(Problem(rule, place=chunks[0].root, key="data.root"), *unusable)
    return entries


def _read_journal(journal: Path) -> list[JournalEntry]:
    """The chunks on disk; incomplete and damaged lines are removed, for their chunks are decoded again."""
    entries = list[JournalEntry]()
    for line in read_json_lines(journal, hint="") if journal.exists() else ():
        with suppress(UserError):
            entries.append(parse_document(line.content, JournalEntry, place=line.place, hint=""))
    with whole_file(journal) as draft:
        draft.write_text("".join(json.dumps(asdict(entry)) + "\n" for entry in entries))
    return entries


def _decode_in_order(chunks: Sequence[Chunk], workers: int) -> Iterator[tuple[Chunk, DecodedChunk]]:
    """Chunks with their decoded content, in order; at most 2 x workers are in flight, so that memory is bounded."""
    if workers <= 1:
        yield from ((chunk, decode_chunk(chunk)) for chunk in chunks)
        return
    in_flight: deque[tuple[Chunk, Future[DecodedChunk]]] = deque()
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_exit_with_parent)
    try:
        for chunk in chunks:
            in_flight.append((chunk, pool.submit(decode_chunk, chunk)))
            if len(in_flight) >= 2 * workers:
                first, future = in_flight.popleft()
                yield first, future.result()
        yield from ((chunk, future.result()) for chunk, future in in_flight)
    finally:
        pool.shutdown(cancel_futures=True)


def _exit_with_parent() -> None:
    """Leave interrupts to the parent process, and exit when it is gone: a killed parent can't shut its pool down."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None, "a pool's process is started by another process"

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def decode_chunk(chunk: Chunk) -> DecodedChunk:
    """Pixels `k c h w` and sha256 of each file of a chunk, and a problem for each unusable file (its pixels are black)."""
    pixels = np.zeros((len(chunk.files), 3, chunk.size, chunk.size), dtype=np.uint8)
    digests, unusable = [], []
    for row, name in zip(pixels, chunk.files, strict=True):
        path = Path(chunk.root, name)
        try:
            content = read_image_file(path)
            image = decode_image(content, chunk.size if chunk.resize else None)
            if image.shape != row.shape:
                sizes = f"{image.shape[2]}x{image.shape[1]}, others {chunk.size}x{chunk.size}"
                raise UnreadableImage(f"is {sizes}; set data.image_size to resize all")
            row[:] = image
            digests.append(hashlib.sha256(content).hexdigest())
        except (OSError, UnreadableImage) as error:
            unusable.append(Problem(str(error), place=str(path)))
    return pixels, digests, unusable
