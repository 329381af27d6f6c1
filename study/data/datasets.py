"""From data options to a data set's description, and to images that are ready: what every command asks of a data set.

`describe_dataset` is cheap and needs no torch: digits are installed, published sets are known, and a folder's description
was written when it was prepared (it is only scanned, to check that it hasn't changed). `prepare_dataset` downloads and decodes.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from study.atomic_io import whole_file
from study.config.documents import STORED, Name, read_document
from study.config.options import DataOptions, ResolvedData
from study.data.cache import (
    ReportProgress,
    explain_disk_errors,
    hold_build_lock,
    open_store,
    read_source_info,
    scan_path,
    short_hash,
    store_path,
    write_store,
)
from study.data.dataset_info import DatasetInfo, SourceInfo, check_labels, select_images
from study.data.digits import DIGITS_SIZE, read_digits
from study.data.folder_decoder import decode_folder
from study.data.image_folder import FolderScan, scan_folder
from study.data.torchvision_datasets import PUBLISHED_DATASETS, read_published
from study.errors import Problem, UserError, notify

HOW_TO_PREPARE = "run `python -m study.prepare SWEEP` first"


class NotPrepared(UserError):
    """The images are not in the cache yet, or have changed since: `study.prepare` decodes them."""


def describe_dataset(options: DataOptions) -> DatasetInfo:
    """The data set that the options choose; raises UserError where it must be prepared first or has too few images.

    A run's `ResolvedData` names its content by digest: `data.root` is then not read.
    """
    if options.name == "digits":
        source, arrays = read_digits(options.image_size or DIGITS_SIZE)
        info = select_images(source, options)
        check_labels(info, arrays.labels)
    elif options.name in PUBLISHED_DATASETS:
        info = select_images(_published_source(options), options)
    elif isinstance(options, ResolvedData):
        store = store_path(Path(options.cache), name=options.name, digest=options.digest, image_size=options.image_size)
        if read_source_info(store) is None:
            rule = f"these images are not prepared here: {HOW_TO_PREPARE}"
            raise NotPrepared(Problem(rule, place=str(store), key="data.cache"))
        info = _select_and_check(store, options)
    else:
        known = _find_scanned_store(scan_folder(Path(options.root), test_folder=options.test_folder), options)
        if known is None:
            rule = f"these images are not prepared, or changed since: {HOW_TO_PREPARE}"
            raise NotPrepared(Problem(rule, place=options.root, key="data.root"))
        info = _select_and_check(known, options)
    if isinstance(options, ResolvedData) and options.digest != info.digest:
        raise UserError(Problem(f"{info.name} has changed since the run was planned", key="data.digest"))
    return info


def prepare_dataset(options: DataOptions, *, workers: int, report: ReportProgress) -> DatasetInfo:
    """Download and decode what isn't in the cache yet, with `workers` processes; safe when run twice at a time.

    `report(what, done, total)` is called as the work proceeds. Raises UserError for unusable images (all of them at once),
    a folder that can't be written to, a full disk, a failed download, and whatever `describe_dataset` refuses.
    """
    if options.name == "digits":
        return describe_dataset(options)
    if options.name in PUBLISHED_DATASETS:
        source = _published_source(options)
        select_images(source, options)  # raises before a download
        return _select_and_check(_prepare_published(source, options, report), options)
    scan = scan_folder(Path(options.root), test_folder=options.test_folder)
    info = _select_and_check(_prepare_folder(scan, options, workers=workers, report=report), options)
    return replace(info, notes=(*scan.notes, *info.notes))


def _published_source(options: DataOptions) -> SourceInfo:
    source = PUBLISHED_DATASETS[options.name].source
    return replace(source, image_size=options.image_size or source.image_size)


def _select_and_check(store: Path, options: DataOptions) -> DatasetInfo:
    source = read_source_info(store)
    assert source is not None, store
    info = select_images(source, options)
    check_labels(info, open_store(store, source).labels)
    return info


def _prepare_published(source: SourceInfo, options: DataOptions, report: ReportProgress) -> Path:
    cache = Path(options.cache)
    store = store_path(cache, name=source.name, digest=source.digest, image_size=source.image_size)
    if read_source_info(store) is not None:
        return store
    with explain_disk_errors(cache), hold_build_lock(cache, store.name, report):
        if read_source_info(store) is not None:  # built by the process that held the lock
            return store
        report(f"reading {source.name}", 0, 0)
        parts = read_published(PUBLISHED_DATASETS[source.name], Path(options.root))
        return write_store(source, parts, cache=cache, building=cache / "building" / store.name, report=report)


@dataclass(frozen=True)
class _Scan:
    """The store that a scanned folder was decoded to."""

    __pydantic_config__ = STORED
    store: Name


def _prepare_folder(scan: FolderScan, options: DataOptions, *, workers: int, report: ReportProgress) -> Path:
    cache, size = Path(options.cache), options.image_size
    if (store := _find_scanned_store(scan, options)) is not None:
        return store
    key = short_hash(scan.key, size)
    with explain_disk_errors(cache), hold_build_lock(cache, key, report):
        if (store := _find_scanned_store(scan, options)) is not None:
            return store
        building = cache / "building" / key
        store = decode_folder(scan, image_size=size, cache=cache, building=building, workers=workers, report=report)
        entry = {"store": store.name, "root": str(scan.root.resolve())}
        with whole_file(scan_path(cache, scan_key=scan.key, image_size=size)) as draft:
            draft.write_text(json.dumps(entry))
        return store


def _find_scanned_store(scan: FolderScan, options: DataOptions) -> Path | None:
    """The store that holds the folder as it was scanned just now, or None."""
    cache = Path(options.cache)
    path = scan_path(cache, scan_key=scan.key, image_size=options.image_size)
    if not path.exists():
        return None
    try:
        store = cache / read_document(path, _Scan, hint="the folder is decoded again").store
    except UserError as error:
        notify(error.summary())
        return None
    return store if read_source_info(store) is not None else None
