"""The progress of a worker's current run: one small file per worker process, overwritten every few seconds."""

import json
from dataclasses import asdict, dataclass

from study.records.ledger import WorkerId
from study.records.record import pick
from study.records.sweep_folder import SweepFolder, Writer, find_writers, write_whole


@dataclass(frozen=True)
class WorkerProgress:
    """How far a worker's run had come at `time` (seconds since 1970)."""

    run_id: str
    time: float
    device: str
    epoch: int  # counted from 1
    epochs: int
    step: int  # finished optimizer steps
    steps: int
    train_loss: float  # mean of the current epoch so far
    val_accuracy: float | None  # of the last finished epoch
    images_per_second: float
    eta_seconds: float  # without evaluation


def write_progress(folder: SweepFolder, writer: Writer, progress: WorkerProgress) -> None:
    write_whole(folder.progress / f"{writer}.json", json.dumps(asdict(progress)))


def read_progress(folder: SweepFolder, writer: Writer) -> WorkerProgress | None:
    """The last progress of one worker process, None if it has written none, or a damaged one: it is only shown."""
    path = folder.progress / f"{writer}.json"
    try:
        progress = pick(WorkerProgress, json.loads(path.read_bytes())) if path.is_file() else None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    figures = (each for name, each in vars(progress).items() if name not in ("run_id", "device")) if progress else ()
    return progress if all(each is None or isinstance(each, int | float) for each in figures) else None


def read_latest_progress(folder: SweepFolder) -> dict[WorkerId, WorkerProgress]:
    """By worker, the last progress of its newest process."""
    writers = sorted((writer for writer, _ in find_writers(folder.progress, ".json")), key=lambda writer: writer.restart)
    newest = {writer.worker: writer for writer in writers}
    return {worker: progress for worker, writer in newest.items() if (progress := read_progress(folder, writer))}
