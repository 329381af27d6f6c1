"""What has a name on disk is complete: a file appears under it with all of its content, flushed, or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path, *, draft: Path | None = None) -> Iterator[Path]:
    """A draft to be written in the block; at its end `path` has the content, and a power cut takes nothing of it.

    The draft lies beside `path` under a name that no other process has, unless one is given. A block that fails leaves
    nothing of it.
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
    """Waits until a file's content is on disk, or a folder's names are."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
