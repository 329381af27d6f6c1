"""The run table of a large sweep, kept in `cache/runs-<digest>.parquet`, so that it is read again in a moment.

The cache is a copy and never more. It holds a signature (size, times, inode) of every file that the table was made from. Rows
whose files are all the same are taken from it; what a worker has recorded since is read again. Files that changed less than
two seconds before they were read, and those with lines that count for nothing, have no signature: they are always read again.
A damaged cache is made anew, with a notice; where the folder can't be written to there is none.
"""

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from study.atomic_io import whole_file
from study.records.ledger import read_launch
from study.records.record import Attempts, read_records
from study.records.sweep_folder import SweepFolder, find_writers

MIN_RUNS = 1000
"""Smaller tables are read quickly without a cache."""

RECORDED_BY = "recorded_by"
"""A column of the cache: the workers that recorded a run, as `launch-task`, separated by spaces."""

_SETTLED_NS = 2_000_000_000
_KEY = b"study"

Signatures = Mapping[str, str]
"""By worker, or by the path of any other file, the signature of the files."""


@dataclass(frozen=True, eq=False)
class TableCache:
    """A table that was kept, with `RECORDED_BY`, and the signatures of its files."""

    table: pd.DataFrame
    fixed: Signatures  # of plan, benchmarks, baselines and the code that makes tables: where one differs, nothing counts
    workers: Signatures

    def find_changed(self, workers: Signatures) -> set[str]:
        """The workers whose files are other than those of the cache, or gone."""
        return {worker for worker in {*self.workers, *workers} if self.workers.get(worker, "") != workers.get(worker)}


def sign_fixed(folder: SweepFolder) -> dict[str, str]:
    """The signatures of all files that no worker writes, and of the code that makes a table of them."""
    plans = {read_launch(folder, launch_id).plan for launch_id in folder.launch_ids()[-1:]}
    paths = [folder.plans / f"{plan}.json" for plan in plans]
    paths += sorted(path for place in (folder.benchmarks, folder.baselines) for path in place.glob("*.json"))
    sources = (Path(__file__).with_name(f"{name}.py") for name in ("table", "columns", "record", "lost_time", "benchmark_file"))
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    return {"code": code, **{str(path.relative_to(folder.path)): _sign([path]) for path in paths if path.exists()}}


def sign_workers(folder: SweepFolder) -> dict[str, str] | None:
    """The signature of each worker's records, journals and progress; None where a file of records has no worker's name."""
    paths: dict[str, list[Path]] = defaultdict(list)
    for place, ending in ((folder.records, ".jsonl"), (folder.journals, ".jsonl"), (folder.progress, ".json")):
        for writer, path in find_writers(place, ending):
            paths[f"{writer.launch}-{writer.task}"].append(path)
    named = sum(path.parent == folder.records for own in paths.values() for path in own)
    return {worker: _sign(own) for worker, own in paths.items()} if named == len(list(folder.records.glob("*.jsonl"))) else None


def _sign(paths: Iterable[Path]) -> str:
    """The signature of files; of what is there without being a readable file, that of the name."""
    states = [(path.name, path.lstat()) for path in paths]
    return " ".join(f"{name}:{at.st_size}:{at.st_mtime_ns}:{at.st_ctime_ns}:{at.st_ino}" for name, at in states)


def read_by_worker(folder: SweepFolder, workers: Iterable[str]) -> tuple[dict[str, Attempts], dict[str, str]]:
    """The attempts recorded by some workers, and by run id the workers that recorded it (`RECORDED_BY`)."""
    recorded, by = dict[str, Attempts](), defaultdict[str, list[str]](list)
    for worker in sorted(workers):
        own = read_records(folder.records, workers={_parse_worker(worker)})
        for run_id, each in own.items():  # a table has nothing of the rest, most of the memory
            record = replace(each.record, run={}, cost={}, match={}, curves={}, correct={})
            recorded[run_id] = replace(each, record=record)
            by[run_id].append(worker)
    shared = {run_id for run_id, own in by.items() if len(own) > 1}
    if shared:  # read together, which merges attempts and finds contradictions
        several = {_parse_worker(worker) for run_id in shared for worker in by[run_id]}
        merged = read_records(folder.records, workers=several)
        recorded |= {run_id: merged[run_id] for run_id in shared}
    return recorded, {run_id: " ".join(own) for run_id, own in by.items()}


def _parse_worker(worker: str) -> tuple[str, int]:
    launch, _, task = worker.rpartition("-")
    return launch, int(task)


def read_cache(folder: SweepFolder, *, fixed: Signatures) -> TableCache | None:
    """The cache, unless there is none, it is damaged, or it is of another plan or version."""
    paths = list((folder.path / "cache").glob("runs-*.parquet"))
    if not paths:
        return None
    try:
        path = max(paths, key=lambda path: path.stat().st_mtime_ns)
        content = path.read_bytes()
        if _name_cache(folder, content) != path:
            raise ValueError("its content isn't what its name says")
        found = pq.read_table(pa.BufferReader(content))
        known = json.loads(found.schema.metadata[_KEY])
        if known["fixed"] != fixed:
            return None
        return TableCache(found.to_pandas(), known["fixed"], known["workers"])
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
        print(f"{paths[0]} is damaged ({error}): the table is read from the records again", file=sys.stderr)
        return None


def write_cache(folder: SweepFolder, cache: TableCache, *, began: float) -> None:
    """Keep a table that was made from files signed at the time `began`, if its folder can be written to."""
    settled = {worker: own for worker, own in cache.workers.items() if _is_settled(folder, worker, cache.table, began=began)}
    table = pa.Table.from_pandas(cache.table, preserve_index=False)
    document = json.dumps({"fixed": cache.fixed, "workers": settled}).encode()
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: document})
    written = pa.BufferOutputStream()
    pq.write_table(table, written)
    path = _name_cache(folder, written.getvalue().to_pybytes())
    with suppress(OSError):
        with whole_file(path) as draft:
            draft.write_bytes(written.getvalue())
        for former in path.parent.glob("runs-*.parquet"):
            if former != path:
                former.unlink(missing_ok=True)


def _name_cache(folder: SweepFolder, content: bytes) -> Path:
    return folder.path / "cache" / f"runs-{hashlib.sha256(content).hexdigest()[:16]}.parquet"


def _is_settled(folder: SweepFolder, worker: str, table: pd.DataFrame, *, began: float) -> bool:
    """Whether a worker's files are older than the table."""
    paths = [path for place in (folder.records, folder.journals, folder.progress) for path in place.glob(f"{worker}-*.json*")]
    return all(path.stat().st_mtime_ns < began * 1e9 - _SETTLED_NS for path in paths)
