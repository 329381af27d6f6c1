"""What every data set can do: describe itself, be prepared, and give its images.

`describe` is cheap and needs no torch; `prepare` downloads and decodes what isn't in the cache yet; `open_arrays` gives what
was prepared.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from study.config.options import DataOptions
from study.data.cache import (
    ImageArrays,
    ReportProgress,
    StoredArrays,
    explain_disk_errors,
    hold_build_lock,
    is_whole,
    open_store,
    read_source_info,
    store_path,
    write_store,
)
from study.data.dataset_info import DatasetInfo, SourceInfo, check_labels, select_images
from study.errors import Problem, UserError

HOW_TO_PREPARE = "run `python -m study.prepare SWEEP` first"


class NotPrepared(UserError):
    """The images are not in the cache yet, or have changed since: `study.prepare` decodes them."""


class DataSource(ABC):
    """A data set of `study.data.datasets.DATASETS`, before options choose a part of it."""

    @abstractmethod
    def describe(self, options: DataOptions) -> DatasetInfo:
        """What the options choose of it; UserError where it must be prepared first or has too few images."""

    @abstractmethod
    def prepare(self, options: DataOptions, *, workers: int, report: ReportProgress) -> DatasetInfo:
        """The same, with its images in the cache; safe when run twice at a time. `workers` processes decode."""

    def open_arrays(self, options: DataOptions, info: DatasetInfo) -> StoredArrays:
        """Its prepared images, which `info` describes; UserError if the cache lacks them or doesn't match them."""
        store = find_store(info, options)
        source = read_source_info(store)
        if source is None:
            rule = f"{info.name} is not prepared at {info.image_size} px: {HOW_TO_PREPARE}"
            raise UserError(Problem(rule, place=str(store), key="data.cache"))
        return open_store(store, source)


def find_store(info: SourceInfo | DatasetInfo, options: DataOptions) -> Path:
    """Where a data set is or will be in the cache."""
    return store_path(Path(options.cache), name=info.name, digest=info.digest, image_size=info.image_size)


def prepare_store(
    source: SourceInfo, options: DataOptions, *, read: Callable[[], ImageArrays], report: ReportProgress
) -> DatasetInfo:
    """What the options choose of a source whose images are in the cache, or are read and written to it now."""
    cache, store = Path(options.cache), find_store(source, options)
    if not is_whole(store):
        with explain_disk_errors(cache), hold_build_lock(cache, store.name, report):
            if not is_whole(store):  # else built by the process that held the lock
                report(f"reading {source.name}", 0, 0)
                write_store(source, read(), cache=cache, building=cache / "building" / store.name, report=report)
    return describe_store(store, options)


def describe_store(store: Path, options: DataOptions) -> DatasetInfo:
    """What the options choose of a published store, with its labels checked."""
    source = read_source_info(store)
    assert source is not None, store
    info = select_images(source, options)
    check_labels(info, open_store(store, source).labels)
    return info
