"""Atomic file writes: a file appears under its name with all of its content, flushed to disk, or not at all."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path, *, draft: Path | None = None) -> Iterator[Path]:
    """Yield a draft to write to; when the block ends it replaces `path`, flushed to disk. A block that fails leaves no file.

    The draft is in the folder of `path`, under a name that no other process uses, unless one is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft or path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield draft
        flush(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    flush(path.parent)


def flush(path: Path) -> None:
    """Wait until a file's content is on disk, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
