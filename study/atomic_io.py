"""Atomic file writes: a file appears under its name with all of its content, flushed to disk, or not at all; bounded reads.

What the system refuses is an OSError that names the file and the operation (`refusal`), also where Python's own names neither.
"""

import errno
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def refusal(operation: str, path: Path) -> Iterator[None]:
    """Let an OSError raised inside name the file that the user knows, and in a note the operation."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        if not hasattr(error, "__notes__"):
            error.add_note(operation)
        raise


@contextmanager
def whole_file(path: Path, *, draft: Path | None = None) -> Iterator[Path]:
    """Yield a draft to write to; when the block ends it replaces `path`, flushed to disk. A block that fails leaves no file.

    The draft is in the folder of `path`, under a name that no other process uses, unless one is given.
    """
    draft = draft or path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with refusal("write", path):
        make_folder(path.parent)
        try:
            yield draft
            flush(draft)
            draft.replace(path)
        except BaseException:
            with suppress(OSError):  # the disk that refused the draft may keep it too
                draft.unlink(missing_ok=True)
            raise
        flush(path.parent)


def make_folder(path: Path) -> None:
    """Create a folder, and those above it that are missing, unless it exists; their names are on disk when this returns."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        flush(each.parent)


def flush(path: Path) -> None:
    """Wait until a file's content is on disk, or the names in a folder, which some network file systems can't flush."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with refusal("flush", path):
            os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def read_regular(path: Path, most: int) -> bytes:
    """A file's content. OSError also for a folder, pipe or device, which could be endless, and for more than `most` bytes."""
    with refusal("read", path), open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        content = b"" if status.st_size > most else file.read(max(status.st_size, min(most, 1 << 20)) + 1)  # /proc says 0
        if max(status.st_size, len(content)) > most:
            raise OSError(errno.EFBIG, f"larger than {most:,} bytes")
        return content
