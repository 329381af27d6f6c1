"""A folder of images as a data set: scanned when it is described, decoded once, and known by what the scan found."""

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
    is_whole,
    read_source_info,
    scan_path,
    short_hash,
    store_path,
)
from study.data.data_source import HOW_TO_PREPARE, DataSource, NotPrepared, describe_store
from study.data.dataset_info import DatasetInfo
from study.data.folder_decoder import decode_folder
from study.data.image_folder import FolderScan, scan_folder
from study.errors import Problem, UserError, notify


class DecodedFolder(DataSource):
    """The images below `data.root`. A run's `ResolvedData` names their content by digest: the folder is then not read."""

    def describe(self, options: DataOptions) -> DatasetInfo:
        if isinstance(options, ResolvedData):
            store = store_path(Path(options.cache), name=options.name, digest=options.digest, image_size=options.image_size)
            if read_source_info(store) is None:
                rule = f"these images are not prepared here: {HOW_TO_PREPARE}"
                raise NotPrepared(Problem(rule, place=str(store), key="data.cache"))
            return describe_store(store, options)
        known = _find_scanned_store(scan_folder(Path(options.root), test_folder=options.test_folder), options)
        if known is None:
            rule = f"these images are not prepared, or changed since: {HOW_TO_PREPARE}"
            raise NotPrepared(Problem(rule, place=options.root, key="data.root"))
        return describe_store(known, options)

    def prepare(self, options: DataOptions, *, workers: int, report: ReportProgress) -> DatasetInfo:
        scan = scan_folder(Path(options.root), test_folder=options.test_folder)
        info = describe_store(_prepare_folder(scan, options, workers=workers, report=report), options)
        return replace(info, notes=(*scan.notes, *info.notes))


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
    return store if is_whole(store) else None
