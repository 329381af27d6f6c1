"""The folder of one sweep. Each of its files either has one writer or is immutable, so they need no database.

    runs/<sweep>/
        sweep.yaml                              the definition of a sweep that was launched from Python (`study.Sweep`)
        lock                                    held by a launch while it assigns runs
        plans/<digest>.json                     every planned run, resolved; immutable
        launches/<id>/launch.json               plan, cluster, code and number of workers; immutable
        launches/<id>/shares/<task>.json        the runs assigned to one worker, resolved, in order; immutable
        launches/<id>/runs.json                 the run ids of all shares; immutable
        launches/<id>/withdrawn/<n>.json        run ids of this launch that `study.cancel` cancelled; immutable
        launches/<id>/submissions/<n>.json      one job array and its Slurm job id; immutable
        launches/<id>/failures/<task>-<restart>-<rank>.json   why a rank failed, until the worker has recorded it
        launches/<id>/workers/<task>.lock       held by a local worker while it lives
        launches/<id>/launcher.lock             held by a local launch until its workers have ended
        launches/<id>/jobs/                     submitit's pickles and the workers' logs
        journals/<launch>-<task>-<restart>.jsonl   the events of one worker process
        progress/<launch>-<task>-<restart>.json    progress of the current run, overwritten
        baselines/<data>.json                   test accuracy of a linear classifier on the same images; immutable
        records/<launch>-<task>-<restart>.jsonl    one line per finished run
        selection.json                          the hyperparameters that tuning selected for each cell; immutable
        looks/<number>.json                     what an interim analysis saw and decided (`seeds: {until: decided}`); immutable
        predictions/<launch>-<task>-<restart>.parquet   the predicted class of each test image (`data.predictions`)
        checkpoints/<run_id>.<writer>.<step>.checkpoint   states of unfinished runs
        weights/<run_id>.safetensors            final weights (`train.keep: last`)
        probes/<run_id>.json                    what `study.probe` measured of these weights
        probes/similarity.json                  and of pairs of runs; pictures/ has its pictures
        cache/runs-<digest>.parquet             the run table of a large sweep, as last read; may be deleted
        report/                                 tables and figures of the newest report
        trackers/                               local files of the experiment trackers
        benchmarks/<time>-<device>.json         speed of the sweep's architectures on one device; immutable
        code/<hash>/study/                      the package as it was launched

The number of files grows with the number of workers, not of runs, except for checkpoints, saved weights and probes.
"""

import contextlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from study.atomic_io import flush, make_folder, refusal, whole_file
from study.errors import Problem, UserError

LATE_FILES_S = 120.0
DISCARD_LAUNCH = (
    "when none of its jobs is alive, move the launch's folder away and launch again (records and checkpoints are kept)"
)
LAUNCH_HINT = f"restore it; or, {DISCARD_LAUNCH}"
"""How to recover from an unreadable file of a launch."""


class SweepFolder:
    """The paths in the folder of one sweep."""

    def __init__(self, path: Path):
        self.path = path
        self.lock = path / "lock"
        self.plans = path / "plans"
        self.launches = path / "launches"
        self.journals = path / "journals"
        self.progress = path / "progress"
        self.baselines = path / "baselines"
        self.records = path / "records"
        self.selection = path / "selection.json"
        self.looks = path / "looks"
        self.predictions = path / "predictions"
        self.checkpoints = path / "checkpoints"
        self.weights = path / "weights"
        self.probes = path / "probes"
        self.trackers = path / "trackers"
        self.benchmarks = path / "benchmarks"
        self.code = path / "code"

    def launch_ids(self) -> list[str]:
        """The ids of all launches, oldest first: an id begins with its time in UTC."""
        return sorted(path.name for path in self.launches.glob("*") if os.path.lexists(path / "launch.json"))


@dataclass(frozen=True)
class Writer:
    """One process of a worker. No two live processes share launch, task and restart count, so no file has two writers."""

    launch: str
    task: int
    restart: int

    def __str__(self) -> str:
        return f"{self.launch}-{self.task}-{self.restart}"

    @property
    def worker(self) -> tuple[str, int]:
        """The worker whose process this is: launch id and task."""
        return self.launch, self.task

    @staticmethod
    def parse(stem: str) -> "Writer":
        """The writer named by a file's stem."""
        launch, task, restart = stem.rsplit("-", 2)
        return Writer(launch, int(task), int(restart))


def writer_of(path: Path) -> Writer | None:
    """The writer that a file is named after; None for any other name."""
    parts = path.stem.rsplit("-", 2)
    return Writer.parse(path.stem) if len(parts) == 3 and all(map(str.isdecimal, parts[1:])) else None


def find_writers(folder: Path, ending: str) -> list[tuple[Writer, Path]]:
    """The files in a folder that are named after their writers; what else is there counts for nothing."""
    return [(writer, path) for path in sorted(folder.glob(f"*{ending}")) if (writer := writer_of(path))]


def write_whole(path: Path, text: str) -> None:
    """Write a text file atomically; it is durable on disk when this returns."""
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_new(path: Path, document: Any) -> None:
    """Write an immutable JSON file atomically. Raises UserError if a file with other content has its name."""
    text = format_json(document)
    if path.exists():
        if path.read_bytes() != text.encode():
            rule = "this file is never changed, but has other content than it was written with: restore it, or move it away"
            raise UserError(Problem(rule, place=str(path)))
        return
    write_whole(path, text)


def format_json(document: Any) -> str:
    """The text of an immutable JSON file."""
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def await_files(*paths: Path) -> None:
    """Return when the files can be seen, or after two minutes: network file systems show files of another host late."""
    deadline = time.monotonic() + LATE_FILES_S
    while not all(path.exists() for path in paths) and time.monotonic() < deadline:
        time.sleep(1)
        for path in paths:
            with contextlib.suppress(OSError):
                os.listdir(path.parent)  # asks the server again


class JsonLinesWriter:
    """A JSON-lines file with this process as its only writer: created exclusively, each line flushed to disk."""

    def __init__(self, path: Path):
        self._path = path
        make_folder(path.parent)
        self._file: TextIO = open(path, "x", encoding="utf-8")  # noqa: SIM115 (open while the worker lives)
        flush(path.parent)

    def append(self, document: Mapping[str, Any]) -> None:
        """Write one line, durable on disk when this returns. Raises ValueError for NaN and infinities, which JSON lacks."""
        line = json.dumps(document, sort_keys=True, allow_nan=False) + "\n"
        with refusal("write", self._path):
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
