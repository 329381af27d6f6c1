"""A sweep's folder on disk: what is there is the truth, and every file in it has one writer or is never changed.

    runs/<sweep>/
        lock                                    held while a launch decides who owns what
        plans/<digest>.json                     every planned run, resolved; immutable
        launches/<id>/launch.json               which plan, which cluster, which code, how many workers; immutable
        launches/<id>/shares/<task>.json        the runs that task owns, resolved, in order; immutable
        launches/<id>/runs.json                 their run ids, all shares in one file; immutable
        launches/<id>/withdrawn/<n>.json        run ids that `study.cancel` took away from this launch; immutable
        launches/<id>/submissions/<n>.json      what the scheduler answered to one submission; immutable
        launches/<id>/failures/<task>-<restart>-<rank>.json   why a rank of several failed, until the run is recorded
        launches/<id>/workers/<task>.lock       held by a local worker as long as it lives
        launches/<id>/launcher.lock             held by a local launch until its workers have ended
        launches/<id>/jobs/                     submitit's pickles and the workers' logs
        journals/<launch>-<task>-<restart>.jsonl   what a worker began and how it ended, flushed line by line
        progress/<launch>-<task>-<restart>.json    where a worker is right now, replaced whole
        baselines/<data>.json                   what a linear model on pixels reaches on the same images; immutable
        records/<launch>-<task>-<restart>.jsonl    one line per finished run, flushed line by line
        selection.json                          what tuning chose for each cell, and from which trials; immutable
        predictions/<launch>-<task>-<restart>.parquet   what each test image was taken for, with `data.predictions: true`
        checkpoints/<run_id>.<writer>.<step>.checkpoint   state of unfinished runs
        weights/<run_id>.safetensors            where `train.keep: last` asks for them
        trackers/                               what trackers keep on disk, in their own formats
        benchmarks/<time>-<device>.json         how fast the sweep's architectures are on a device; immutable
        code/<hash>/study/                      the package as it was when launched

Files are O(workers), not O(runs), but for the checkpoints of runs under way and the weights somebody asked for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from study.atomic_io import flush, whole_file
from study.config.formats import upgrade
from study.errors import Problem, UserError, add_location

LEAVE_LAUNCH = "once none of its jobs lives, move the launch's folder away and launch again (records and checkpoints stay)"
MEND_LAUNCH = f"restore it; or, {LEAVE_LAUNCH}"
"""What to do about a launch's file that can't be read."""


@dataclass(frozen=True)
class SweepFolder:
    """Where each kind of file of one sweep lies."""

    path: Path

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def plans(self) -> Path:
        return self.path / "plans"

    @property
    def launches(self) -> Path:
        return self.path / "launches"

    @property
    def journals(self) -> Path:
        return self.path / "journals"

    @property
    def progress(self) -> Path:
        return self.path / "progress"

    @property
    def records(self) -> Path:
        return self.path / "records"

    @property
    def baselines(self) -> Path:
        return self.path / "baselines"

    @property
    def selection(self) -> Path:
        return self.path / "selection.json"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def weights(self) -> Path:
        return self.path / "weights"

    @property
    def trackers(self) -> Path:
        return self.path / "trackers"

    @property
    def benchmarks(self) -> Path:
        return self.path / "benchmarks"

    @property
    def code(self) -> Path:
        return self.path / "code"

    def launch_ids(self) -> list[str]:
        """Every launch with a ledger, oldest first: an id begins with its time in UTC."""
        return sorted(path.parent.name for path in self.launches.glob("*/launch.json"))


@dataclass(frozen=True)
class Writer:
    """Who writes a file: no two live processes share launch, task and restart count, so no file has two writers."""

    launch: str
    task: int
    restart: int

    def __str__(self) -> str:
        return f"{self.launch}-{self.task}-{self.restart}"

    @property
    def worker(self) -> tuple[str, int]:
        """Whose life this is: launch and task."""
        return self.launch, self.task

    @staticmethod
    def parse(stem: str) -> Writer:
        """The writer that a file's stem names."""
        launch, task, restart = stem.rsplit("-", 2)
        return Writer(launch, int(task), int(restart))


def write_whole(path: Path, text: str) -> None:
    """A file of text, on disk as `study.atomic_io` has it when this returns."""
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_new(path: Path, document: Any) -> None:
    """An immutable JSON file: written whole, and an assertion if it exists with other content."""
    text = kept_text(document)
    if path.exists():
        assert path.read_text(encoding="utf-8") == text, f"{path} exists with other content"
        return
    write_whole(path, text)


def kept_text(document: Any) -> str:
    """A document as immutable files hold it."""
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def read_kept(path: Path, *, mend: str) -> Any:
    """The document of an immutable JSON file; where it is gone or damaged a UserError that says how to `mend` that."""
    try:
        with add_location(str(path)):
            return upgrade(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(Problem(f"this file is gone: {mend}", place=str(path))) from None
    except ValueError as error:
        raise UserError(Problem(f"this file is damaged ({error}): {mend}", place=str(path))) from None


class Lines:
    """A JSON-lines file with this process as its only writer: created exclusively, each line flushed to disk."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file: TextIO = open(path, "x", encoding="utf-8")  # noqa: SIM115 (open as long as the worker lives)
        flush(path.parent)

    def append(self, document: dict[str, Any]) -> None:
        """One line, on disk when this returns. NaN and infinities are no JSON: they are refused here."""
        self._file.write(json.dumps(document, sort_keys=True, allow_nan=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class Line:
    """One document of a JSON-lines file and where it stands."""

    document: dict[str, Any]
    place: str


def read_lines(path: Path) -> Iterator[Line]:
    """The documents of a JSON-lines file; a torn last line, left by a writer that was killed, is passed over.

    A whole line that is no JSON was damaged later: UserError with its place.
    """
    raw = path.read_bytes().split(b"\n")
    for number, line in enumerate(raw[:-1], start=1):  # what follows the last newline is empty or torn
        place = f"{path}:{number}"
        try:
            document = json.loads(line)
        except ValueError as error:
            rule = f"this line is damaged ({error}): restore the file, or delete the line and launch again"
            raise UserError(Problem(rule, place=place)) from None
        yield Line(document, place)
