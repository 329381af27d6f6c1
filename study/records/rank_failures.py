"""What a rank that failed left for the worker's next life to record: its run, the rank and the reason.

Who fails amid a training by several ranks can't record it, as records have one writer, which waits for this rank just then.
A note is removed when the record is on disk.
"""

from __future__ import annotations

import json
from collections.abc import Set
from dataclasses import asdict, dataclass
from pathlib import Path

from study.records.sweep_folder import SweepFolder, Writer, write_new


@dataclass(frozen=True)
class RankFailure:
    """Why one rank of a worker ended in the middle of a run."""

    run_id: str
    rank: int
    ranks: int
    host: str
    reason: str
    log: str
    time: float

    @property
    def told(self) -> str:
        return f"rank {self.rank} of {self.ranks} (on {self.host}): {self.reason}"


def note_failure(folder: SweepFolder, writer: Writer, failure: RankFailure) -> None:
    path = folder.launches / writer.launch / "failures" / f"{writer.task}-{writer.restart}-{failure.rank}.json"
    write_new(path, asdict(failure))


def failures(folder: SweepFolder, run_ids: Set[str]) -> dict[str, RankFailure]:
    """By run id, the first failure that is noted and not recorded yet."""
    noted = sorted((failure for _, failure in _notes(folder)), key=lambda failure: failure.time, reverse=True)
    return {failure.run_id: failure for failure in noted if failure.run_id in run_ids}


def forget_failures(folder: SweepFolder, run_id: str) -> None:
    """Removes what is noted of a run; called when its record is on disk."""
    for path, failure in _notes(folder):
        if failure.run_id == run_id:
            path.unlink(missing_ok=True)


def _notes(folder: SweepFolder) -> list[tuple[Path, RankFailure]]:
    paths = folder.launches.glob("*/failures/*.json")
    return [(path, RankFailure(**json.loads(path.read_text(encoding="utf-8")))) for path in paths]
