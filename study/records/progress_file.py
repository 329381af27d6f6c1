"""The progress of a worker's current run: one small file per worker process, overwritten every few seconds."""

import json
from dataclasses import asdict, dataclass

from study.config.documents import STORED, Accuracy, Positive, read_document
from study.errors import UserError
from study.records.ledger import WorkerId
from study.records.sweep_folder import SweepFolder, Writer, find_writers, write_whole


@dataclass(frozen=True)
class WorkerProgress:
    """How far a worker's run had come at `time` (seconds since 1970)."""

    __pydantic_config__ = STORED
    run_id: str
    time: Positive
    device: str
    epoch: int  # counted from 1
    epochs: int
    step: int  # finished optimizer steps
    steps: int
    train_loss: float  # mean of the current epoch so far
    val_accuracy: Accuracy | None  # of the last finished epoch
    images_per_second: Positive
    eta_seconds: Positive  # without evaluation


def write_progress(folder: SweepFolder, writer: Writer, progress: WorkerProgress) -> None:
    write_whole(folder.progress / f"{writer}.json", json.dumps(asdict(progress)))


def read_progress(folder: SweepFolder, writer: Writer) -> WorkerProgress | None:
    """The last progress of one worker process, None if it has written none, or a damaged one: it is only shown."""
    try:
        return read_document(folder.progress / f"{writer}.json", WorkerProgress, hint="")
    except (OSError, UserError):
        return None


def read_latest_progress(folder: SweepFolder) -> dict[WorkerId, WorkerProgress]:
    """By worker, the last progress of its newest process."""
    writers = sorted((writer for writer, _ in find_writers(folder.progress, ".json")), key=lambda writer: writer.restart)
    newest = {writer.worker: writer for writer in writers}
    return {worker: progress for worker, writer in newest.items() if (progress := read_progress(folder, writer))}
