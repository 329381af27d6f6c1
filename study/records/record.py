"""A record is what a finished run leaves: its configuration, outcome, measurements and provenance, one line each.

Attempts of the same run are merged when read. Success wins; `diverged` is an outcome too and not retried; a failure counts
only as long as no attempt ended with an outcome. Two outcomes of one run must be equal (a zombie that ran beside its
successor computes the same bits); unequal ones are refused by name, never averaged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from study.config.formats import FORMAT, upgrade
from study.errors import Problem, UserError, add_location
from study.records.sweep_folder import Line, Writer, read_lines

Stage = Literal["trial", "final"]  # trials choose options, final runs answer the question
Status = Literal["done", "diverged", "failed"]
OUTCOMES: tuple[Status, ...] = ("done", "diverged")


@dataclass(frozen=True)
class Record:
    """One attempt that ended. `result` holds what equal configurations must reproduce bit for bit; `measured` what
    depends on the machine and the hour (seconds, images per second, memory)."""

    run_id: str
    status: Status
    run: Mapping[str, Any]
    cost: Mapping[str, Any]
    match: Mapping[str, Any]
    result: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, list[float | None]] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None
    log: str | None = None
    format: int = FORMAT

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def figures(self) -> str:
        """What a finished run measured, in words: `val 93.1%, test 92.5%, 12.3 s`; what it didn't measure is left out."""
        found = [(name, self.result.get(f"{name}_accuracy")) for name in ("val", "test")]
        told = [f"{name} {accuracy:.1%}" for name, accuracy in found if accuracy is not None]
        return ", ".join([*told, f"{self.measured.get('train_seconds') or 0.0:.1f} s"])

    def same_outcome(self, other: Record) -> bool:
        """Whether two attempts computed the same: status, accuracies, losses and curves, not timings."""
        return (self.status, self.result, self.curves) == (other.status, other.result, other.curves)


@dataclass(frozen=True)
class Attempts:
    """All recorded attempts of one run: the one that counts, where it stands, and how many there were."""

    record: Record
    place: str
    count: int


def read_records(folder: Path, *, of: Set[tuple[str, int]] | None = None) -> dict[str, Attempts]:
    """Per run id what counts, from every file of a `records/` folder, or from those of some workers (launch, task)."""
    found: dict[str, list[tuple[Record, str]]] = defaultdict(list)
    for path in sorted(folder.glob("*.jsonl")):
        if of is not None and Writer.parse(path.stem).worker not in of:
            continue
        for line in read_lines(path):
            record = _record_of(line)
            found[record.run_id].append((record, line.place))
    problems = [p for run_id, attempts in found.items() for p in _contradictions(run_id, attempts)]
    if problems:
        raise UserError(*problems)
    return {run_id: _merged(attempts) for run_id, attempts in found.items()}


def _record_of(line: Line) -> Record:
    try:
        with add_location(line.place):
            return Record(**{**upgrade(line.document), "format": FORMAT})
    except TypeError:
        raise UserError(Problem("this line is not a record of this version of the project", place=line.place)) from None


def _contradictions(run_id: str, attempts: Iterable[tuple[Record, str]]) -> list[Problem]:
    outcomes = [(record, place) for record, place in attempts if record.status in OUTCOMES]
    return [
        Problem(
            f"two outcomes of run {run_id} differ; the other stands at {outcomes[0][1]}. Compare their fingerprints, "
            "then move one of the two files out of records/",
            place=place,
        )
        for record, place in outcomes[1:]
        if not record.same_outcome(outcomes[0][0])
    ]


def _merged(attempts: list[tuple[Record, str]]) -> Attempts:
    outcomes = [attempt for attempt in attempts if attempt[0].status in OUTCOMES]
    record, place = outcomes[0] if outcomes else attempts[-1]
    return Attempts(record, place, len(attempts))
