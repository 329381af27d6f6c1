"""Failures of single ranks, kept until the restarted worker has recorded them.

A rank that fails during distributed training can't record it: only rank 0 writes records, and it is waiting for the failed
rank. So the rank leaves a file, and the worker's next process turns it into a record.
"""

from collections.abc import Set
from dataclasses import asdict, dataclass
from pathlib import Path

from study.config.documents import STORED, read_document
from study.records.sweep_folder import SweepFolder, Writer, write_new


@dataclass(frozen=True)
class RankFailure:
    """Why one rank of a worker ended in the middle of a run."""

    __pydantic_config__ = STORED
    run_id: str
    rank: int
    ranks: int
    host: str
    reason: str
    log: str
    time: float

    @property
    def message(self) -> str:
        return f"rank {self.rank} of {self.ranks} (on {self.host}): {self.reason}"


def write_rank_failure(folder: SweepFolder, writer: Writer, failure: RankFailure) -> None:
    path = folder.launches / writer.launch / "failures" / f"{writer.task}-{writer.restart}-{failure.rank}.json"
    write_new(path, asdict(failure))


def read_rank_failures(folder: SweepFolder, run_ids: Set[str]) -> dict[str, RankFailure]:
    """By run id, the first failure that no record holds yet."""
    latest_first = sorted(_read_all(folder).values(), key=lambda failure: failure.time, reverse=True)
    return {failure.run_id: failure for failure in latest_first if failure.run_id in run_ids}


def remove_rank_failures(folder: SweepFolder, run_id: str) -> None:
    """Remove the failures of a run; called when its record is on disk."""
    for path, failure in _read_all(folder).items():
        if failure.run_id == run_id:
            path.unlink(missing_ok=True)


def _read_all(folder: SweepFolder) -> dict[Path, RankFailure]:
    hint = "remove it; the run that it is of is trained again"
    return {path: read_document(path, RankFailure, hint=hint) for path in folder.launches.glob("*/failures/*.json")}
