"""A record is what a finished run leaves: its configuration, outcome, measurements and provenance, as one line of JSON.

The attempts of one run are merged when they are read: a success wins over failures, and `diverged` is an outcome too.
"""

import base64
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, Self, TypeVar

from pydantic import ConfigDict, Field, GetPydanticSchema, JsonValue, model_validator, with_config
from typing_extensions import TypedDict

from study.config.documents import (
    MAX_COUNT,
    STORED,
    Accuracy,
    Name,
    Positive,
    Scalar,
    WrongDocument,
    as_stored,
    parse_document,
    read_json_lines,
)
from study.config.formats import FORMAT
from study.config.options import AugmentOptions, ResolvedData, TrainOptions
from study.config.yaml_source import MISSING
from study.errors import Problem, UserError, notify
from study.records.sweep_folder import writer_of

Stage = Literal["trial", "final"]  # trials select hyperparameters, final runs answer the question
Status = Literal["done", "diverged", "failed"]
OUTCOMES: tuple[Status, ...] = ("done", "diverged")
Fields = TypeVar("Fields")
REPAIR_LINE = "restore the file, or delete the line and launch again"

_SIZES = ("image_size", "train_images", "val_images", "test_images", "num_classes", "channels")


class StoredRun(TypedDict):
    """The JSON values of a run, as from `study.config.run.Run.to_json`; options that tuning has yet to select are None."""

    backbone: str
    seed: Annotated[int, Field(ge=0, le=MAX_COUNT)]
    plugins: NotRequired[dict[str, str]]  # digests by name, of runs that use any
    model: Annotated[dict[str, JsonValue], Field(min_length=1)]
    data: Annotated[dict[str, Any], as_stored(ResolvedData, required=("name", "digest", *_SIZES))]
    augment: Annotated[dict[str, Any], as_stored(AugmentOptions)]
    train: Annotated[dict[str, Any], as_stored(TrainOptions, required=("epochs", "batch_size"))]


RunDocument = Annotated[Mapping[str, Any], GetPydanticSchema(lambda _, build: build(StoredRun))]
CostDocument = Annotated[
    Mapping[str, int], GetPydanticSchema(lambda _, build: build(dict[str, Annotated[int, Field(ge=0, le=MAX_COUNT)]]))
]


@with_config(ConfigDict(strict=True, extra="allow", allow_inf_nan=False))
class _StoredFingerprint(TypedDict, total=False):
    """What the run table has of it; more may be there."""

    device: Scalar
    device_name: Scalar
    memory_layout: Scalar
    optimizer: Scalar
    kernels: Scalar
    compiled: Scalar
    deterministic: Scalar
    threads: Annotated[int, Field(ge=1, le=MAX_COUNT)] | None
    ranks: Annotated[int, Field(ge=1, le=MAX_COUNT)] | None
    micro_batches: Annotated[int, Field(ge=0, le=MAX_COUNT)] | None


FingerprintDocument = Annotated[Mapping[str, JsonValue], GetPydanticSchema(lambda _, build: build(_StoredFingerprint))]
MatchDocument = Annotated[Mapping[str, Any], GetPydanticSchema(lambda _, build: build(dict[str, Scalar]))]


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

    __pydantic_config__ = STORED
    val_accuracy: Accuracy | None = None
    val_loss: Positive | None = None
    test_accuracy: Accuracy | None = None
    test_top5: Accuracy | None = None
    test_loss: Positive | None = None
    diverged_step: Annotated[int, Field(ge=1, le=MAX_COUNT)] | None = None


@dataclass(frozen=True)
class Measurements:
    """What depends on the machine and its load; None: not measured."""

    __pydantic_config__ = STORED
    train_seconds: Positive | None = None
    images_per_second: Positive | None = None
    peak_memory_mib: Positive | None = None


@dataclass(frozen=True)
class Record:
    """One finished attempt at a run. `run`, `cost` and `match` are those of its `PlannedEntry`."""

    __pydantic_config__ = STORED
    run_id: Name
    status: Status
    run: RunDocument
    cost: CostDocument
    match: MatchDocument
    result: Result = Result()
    curves: Mapping[str, list[float | None]] = field(default_factory=dict)
    correct: Mapping[str, str] = field(default_factory=dict)  # as from `pack_correctness`; not always kept
    measured: Measurements = Measurements()
    fingerprint: FingerprintDocument = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None
    log: str | None = None
    format: int = FORMAT

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @model_validator(mode="after")
    def _check_truth(self) -> Self:
        """Refuse what no training can have measured. Called only for what is read from a file."""
        if len({len(curve) for curve in self.curves.values()}) > 1:
            raise ValueError("the curves have unequal lengths")
        for name, curve in self.curves.items():
            known = [value for value in curve if value is not None]
            if name.endswith("accuracy") and not all(0 <= value <= 1 for value in known):
                raise ValueError(f"curves: {name} is a fraction")
        if self.status == "done" and self.result.val_accuracy is None is self.result.test_accuracy:
            raise ValueError("a run that is done has an accuracy")
        for split, packed in self.correct.items():
            images = self.run["data"][f"{split}_images"] if split in ("val", "test") else 0
            if len(base64.b64decode(packed, validate=True)) != -(-images // 8):
                raise ValueError(f"correct.{split} is not of {images:,} images")
        return self

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

    A line whose values can't be true counts for nothing, so its run is missing; a notice on stderr names it.

    Raises
    ------
    UserError
        If a line is no record or of a later version, or if two outcomes of one run differ. They are never averaged: a worker
        that outlived its successor computes the same bits.
    """
    found: dict[str, list[tuple[Record, str]]] = defaultdict(list)
    for path in sorted(folder.glob("*.jsonl")):
        writer = writer_of(path)
        if workers is None or writer is None or writer.worker in workers:
            for record, place in read_record_file(path):
                found[record.run_id].append((record, place))
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


def read_record_file(path: Path) -> list[tuple[Record, str]]:
    """The records of a file with their places, without those whose values can't be true, which are named on stderr."""
    records, ignored = [], list[Problem]()
    for line in read_json_lines(path, hint=REPAIR_LINE):
        try:
            records.append((parse_document(line.content, Record, place=line.place, hint=REPAIR_LINE), line.place))
        except WrongDocument as error:
            if not line.content.startswith(b"{") or any(problem.rule == MISSING for problem in error.problems):
                raise  # no record at all
            ignored.append(error.problems[1])
    if ignored:
        rule = "these records can't be true and count for nothing; the next launch trains their runs again"
        notify(UserError(f"{path}: {rule}", *ignored).summary())
    return records
