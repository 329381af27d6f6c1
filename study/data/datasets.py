"""From data options to facts, and to images that are ready: the two questions every command asks of a data set.

`facts` is cheap and needs no torch: digits are installed, published sets are known, and a folder's facts were
written when it was prepared (it is only scanned, to see that it hasn't changed). `prepare` fetches and decodes.
"""

from __future__ import annotations

import json
from pathlib import Path

from study.atomic_io import whole_file
from study.config.options import DataOptions, ResolvedData
from study.data.cache import Report, only_builder, open_store, read_stored, scan_path, short_hash, store_path, told_of_disk
from study.data.cache_writer import build_arrays
from study.data.dataset_info import DatasetInfo, SourceInfo, check_labels, select
from study.data.digits import SIZE, read_digits
from study.data.folder_decoder import build_folder
from study.data.image_folder import Scan, scan
from study.data.torchvision_datasets import PUBLISHED, read
from study.errors import Problem, UserError

UNPREPARED = "run `python -m study.prepare SWEEP` first"


class NotPrepared(UserError):
    """Images that are not in the cache yet, or have changed since: `study.prepare` mends it."""


def describe_dataset(options: DataOptions) -> DatasetInfo:
    """What the options' data set is; raises UserError where it must be prepared first or has too few images.

    A run's `ResolvedData` name their content by its digest: for them `data.root` isn't looked at.
    """
    if options.name == "digits":
        stored, arrays = read_digits(options.image_size or SIZE)
        found = select(stored, options)
        check_labels(found, arrays.labels)
    elif options.name in PUBLISHED:
        found = select(PUBLISHED[options.name].stored(options.image_size), options)
    else:
        found = _checked(_resolved_store(options) if isinstance(options, ResolvedData) else _scanned_store(options), options)
    if isinstance(options, ResolvedData) and options.digest != found.digest:
        raise UserError(Problem(f"{found.name} is not what it was when the run was planned", key="data.digest"))
    return found


def prepare_dataset(options: DataOptions, *, workers: int, report: Report) -> DatasetInfo:
    """Fetch and decode what isn't in the cache yet, with `workers` processes; safe when done twice at a time.

    `report(what, done, total)` is called as the work goes on. Raises UserError for bad images (all of them at once),
    a folder that can't be written to, a full disk, a failed download, and all that `facts` refuses.
    """
    if options.name == "digits":
        return describe_dataset(options)
    if options.name in PUBLISHED:
        stored = PUBLISHED[options.name].stored(options.image_size)
        select(stored, options)  # refuse before a download
        return _checked(_published_store(stored, options, report), options)
    return _checked(_folder_store(scan(Path(options.root)), options, workers=workers, report=report), options)


def _checked(store: Path, options: DataOptions) -> DatasetInfo:
    stored = read_stored(store)
    assert stored is not None, store
    found = select(stored, options)
    check_labels(found, open_store(store, stored).labels)
    return found


def _published_store(stored: SourceInfo, options: DataOptions, report: Report) -> Path:
    cache = Path(options.cache)
    store = store_path(cache, name=stored.name, digest=stored.digest, image_size=stored.image_size)
    if read_stored(store) is not None:
        return store
    with told_of_disk(cache), only_builder(cache, store.name, report):
        if read_stored(store) is not None:  # built by the process that was waited for
            return store
        report(f"reading {stored.name}", 0, 0)
        parts = read(PUBLISHED[stored.name], Path(options.root))
        return build_arrays(stored, parts, cache=cache, building=cache / "building" / store.name, report=report)


def _folder_store(found: Scan, options: DataOptions, *, workers: int, report: Report) -> Path:
    cache, size = Path(options.cache), options.image_size
    if (store := _known_store(found, options)) is not None:
        return store
    key = short_hash(found.key, size)
    with told_of_disk(cache), only_builder(cache, key, report):
        if (store := _known_store(found, options)) is not None:
            return store
        building = cache / "building" / key
        store = build_folder(found, image_size=size, cache=cache, building=building, workers=workers, report=report)
        entry = {"store": store.name, "root": str(found.root.resolve())}
        with whole_file(scan_path(cache, scan_key=found.key, image_size=size)) as draft:
            draft.write_text(json.dumps(entry))
        return store


def _known_store(found: Scan, options: DataOptions) -> Path | None:
    """The store that holds the folder as it was scanned just now, or None."""
    cache = Path(options.cache)
    path = scan_path(cache, scan_key=found.key, image_size=options.image_size)
    if not path.exists():
        return None
    store = cache / str(json.loads(path.read_text())["store"])
    return store if read_stored(store) is not None else None


def _scanned_store(options: DataOptions) -> Path:
    store = _known_store(scan(Path(options.root)), options)
    if store is None:
        rule = f"these images are not prepared, or changed since: {UNPREPARED}"
        raise NotPrepared(Problem(rule, place=options.root, key="data.root"))
    return store


def _resolved_store(options: ResolvedData) -> Path:
    cache = Path(options.cache)
    store = store_path(cache, name=options.name, digest=options.digest, image_size=options.image_size)
    if read_stored(store) is None:
        raise NotPrepared(Problem(f"these images are not prepared here: {UNPREPARED}", place=str(store), key="data.cache"))
    return store
