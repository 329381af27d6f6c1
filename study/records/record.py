"""A record is what a finished run leaves: its configuration, outcome, measurements and provenance, as one line of JSON.

The attempts of one run are merged when they are read: a success wins over failures, and `diverged` is an outcome too.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import JsonValue

from study.config.formats import FORMAT, upgrade
from study.config.options import AugmentOptions, ResolvedData, TrainOptions
from study.errors import Problem, UserError, add_location
from study.records.sweep_folder import JsonLine, Writer, read_json_lines

Stage = Literal["trial", "final"]  # trials select hyperparameters, final runs answer the question
Status = Literal["done", "diverged", "failed"]
OUTCOMES: tuple[Status, ...] = ("done", "diverged")

Fields = TypeVar("Fields")


@dataclass(frozen=True)
class RunOptions:
    """A run's options as read from disk: with attributes, but not validated, and None where tuning has yet to select."""

    backbone: str
    seed: int
    model: Mapping[str, JsonValue]
    data: ResolvedData
    augment: AugmentOptions
    train: TrainOptions

    @staticmethod
    def from_json(run: Mapping[str, Any]) -> "RunOptions":
        """From the document of `study.config.run.Run.to_json`."""
        return RunOptions(
            backbone=run["backbone"],
            seed=run["seed"],
            model=run["model"],
            data=ResolvedData.model_construct(**run["data"]),
            augment=AugmentOptions.model_construct(**run["augment"]),
            train=TrainOptions.model_construct(**run["train"]),
        )


@dataclass(frozen=True)
class Result:
    """What equal configurations must reproduce bit for bit. Accuracies are fractions; None: not measured."""

    val_accuracy: float | None = None
    val_loss: float | None = None
    test_accuracy: float | None = None
    test_top5: float | None = None
    test_loss: float | None = None
    diverged_step: int | None = None


@dataclass(frozen=True)
class Measurements:
    """What depends on the machine and its load; None: not measured."""

    train_seconds: float | None = None
    images_per_second: float | None = None
    peak_memory_mib: float | None = None


@dataclass(frozen=True)
class Record:
    """One finished attempt at a run. `run`, `cost` and `match` are those of its `PlannedEntry`."""

    run_id: str
    status: Status
    run: Mapping[str, Any]
    cost: Mapping[str, Any]
    match: Mapping[str, Any]
    result: Result = Result()
    curves: Mapping[str, list[float | None]] = field(default_factory=dict)
    correct: Mapping[str, str] = field(default_factory=dict)  # by split, as from `pack_correctness`; may not have been kept
    measured: Measurements = Measurements()
    fingerprint: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None
    log: str | None = None
    format: int = FORMAT

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> "Record":
        """Read a record of any format. Raises KeyError or TypeError if the document is no record."""
        document = upgrade(document)
        typed = {"result": pick(Result, document["result"]), "measured": pick(Measurements, document["measured"])}
        return Record(**{**document, **typed, "format": FORMAT})

    def summary(self) -> str:
        """The measured figures of a finished run, e.g. `val 93.1%, test 92.5%, 12.3 s`; else its status and reason."""
        if self.status != "done":
            return f"{self.status}: {self.reason}"
        accuracies = {"val": self.result.val_accuracy, "test": self.result.test_accuracy}
        shown = [f"{name} {accuracy:.1%}" for name, accuracy in accuracies.items() if accuracy is not None]
        return ", ".join([*shown, f"{self.measured.train_seconds or 0.0:.1f} s"])


def pick(kind: type[Fields], source: Mapping[str, Any]) -> Fields:
    """An instance of a dataclass with those of its fields that the source has."""
    names = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in source.items() if name in names})


@dataclass(frozen=True)
class Attempts:
    """All recorded attempts at one run: the one that counts, its file and line, and how many there are."""

    record: Record
    place: str
    count: int


def read_records(folder: Path, *, workers: Set[tuple[str, int]] | None = None) -> dict[str, Attempts]:
    """By run id, the attempts recorded in a `records/` folder, by all or some workers (launch id, task).

    Raises
    ------
    UserError
        If a line is no record, or if two outcomes of one run differ. They are never averaged: a worker that outlived its
        successor computes the same bits.
    """
    found: dict[str, list[tuple[Record, str]]] = defaultdict(list)
    for path in sorted(folder.glob("*.jsonl")):
        if workers is None or Writer.parse(path.stem).worker in workers:
            for line in read_json_lines(path):
                record = parse_record(line)
                found[record.run_id].append((record, line.place))
    return merge_attempts(found)


def merge_attempts(found: Mapping[str, Sequence[tuple[Record, str]]]) -> dict[str, Attempts]:
    """By run id, all attempts as one, from records and their places. Raises UserError where two outcomes of one run differ."""
    merged, problems = {}, []
    for run_id, attempts in found.items():
        outcomes = [(record, place) for record, place in attempts if record.status in OUTCOMES]
        # An outcome without correctness, of an earlier version or kept without it, contradicts none that has it.
        first, first_place = max(outcomes, key=lambda found: bool(found[0].correct)) if outcomes else attempts[-1]
        merged[run_id] = Attempts(first, first_place, len(attempts))
        for record, place in outcomes:  # their timings may differ
            same = (record.status, record.result, record.curves) == (first.status, first.result, first.curves)
            if not same or (record.correct and record.correct != first.correct):
                rule = (
                    f"two outcomes of run {run_id} differ; the other is at {first_place}. Compare their fingerprints, "
                    "then move one of the two files out of records/"
                )
                problems.append(Problem(rule, place=place))
    if problems:
        raise UserError(*problems)
    return merged


def parse_record(line: JsonLine) -> Record:
    """The record in a line of a records' file. UserError if it is none."""
    try:
        with add_location(line.place):
            return Record.from_json(line.document)
    except (KeyError, TypeError):
        raise UserError(Problem("this line is not a record of this version of the project", place=line.place)) from None
