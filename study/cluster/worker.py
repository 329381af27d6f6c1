"""A worker is one process on one device that trains its share, run by run, and leaves a record of each.

It survives what clusters do: a signal only sets a flag, the state is saved at the next step's end; USR2 (preemption, time
limit) then puts the job back into the queue, SIGTERM just saves and waits for the end. A worker that comes back skips what
is recorded and resumes what was cut off. Nothing heavy is imported before the signal handlers stand.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from submitit.helpers import DelayedSubmission

from study.cluster.journal import DEATHS_ALLOWED, Journal, deaths_without_progress, read_journals
from study.cluster.ledger import handed_on, read_launch, read_share, sweep_lock, worker_sign
from study.errors import UserError
from study.records.folder import Lines, SweepFolder, Writer, write_whole
from study.records.record import OUTCOMES, Record, Status, read_records

if TYPE_CHECKING:
    from study.cluster.trainer import Trainer

EXIT_REFUSED = 3  # the worker can't do its work here at all: no usable device, data that is not the planned data
EXIT_WAIT_S = 600  # after SIGTERM: longer than any grace period, so that it is the scheduler who ends the job


@dataclass(frozen=True)
class Task:
    """What is handed to submitit: which share to train. `restart` is None where the scheduler counts restarts."""

    folder: str
    launch: str
    task: int
    restart: int | None
    threads: int

    def __call__(self) -> str:
        return work(self)

    def checkpoint(self) -> DelayedSubmission:
        """What submitit requeues when a signal comes before this worker's own handlers stand: the same task."""
        return DelayedSubmission(self)


@dataclass
class Stop:
    """The flag that signals set; training looks at it after each step."""

    signal: int | None = None

    def __call__(self) -> bool:
        return self.signal is not None

    def listen(self) -> None:
        for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        signal.signal(signal.SIGCONT, signal.SIG_DFL)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal != signal.SIGUSR2:  # Slurm sends TERM and USR2 together; the one that requeues counts
            self.signal = number


def work(task: Task) -> str:
    """The whole life of one worker; what it returns is only for submitit's log, what counts is in the records."""
    stop = Stop()
    stop.listen()
    environment = dict(os.environ)
    folder, writer = SweepFolder(Path(task.folder)), _writer(task, environment)
    journal = Journal(folder, writer)
    journal.note("start")
    try:
        share = _claim(folder, writer)
        trainer = _trainer(folder, writer, share=share, threads=task.threads, environment=environment)
    except UserError as error:
        journal.note("refused", reason=error.screen())
        print(error.screen(), file=sys.stderr, flush=True)
        sys.exit(EXIT_REFUSED)
    worker = Worker(folder, writer, journal, stop, log=_log_path(environment))
    worker.train_share(share, trainer)
    if stop():
        journal.note("exit", reason=signal.Signals(stop.signal or 0).name)
        _leave(stop, environment)
        return "stopped"
    journal.note("exit", reason="share finished")
    return "share finished"


def _writer(task: Task, environment: Mapping[str, str]) -> Writer:
    """Which share and which life of it; tasks of one job (several workers on a GPU) follow each other."""
    local_rank = int(environment.get("SLURM_PROCID", "0")) if task.restart is None else 0
    tasks = int(environment.get("SLURM_NTASKS", "1")) if task.restart is None else 1
    restart = int(environment.get("SLURM_RESTART_COUNT", "0")) if task.restart is None else task.restart
    return Writer(task.launch, task.task * tasks + local_rank, restart)


def _claim(folder: SweepFolder, writer: Writer) -> list[dict[str, Any]]:
    """Shows that this worker lives, then takes the runs of its share that no newer launch was given."""
    launch, worker = read_launch(folder, writer.launch), (writer.launch, writer.task)
    if writer.task >= launch.tasks:
        return []
    with sweep_lock(folder):
        if launch.cluster == "local":
            worker_sign(folder, worker).hold()
        gone = handed_on(folder, writer.launch)
    return [planned for planned in read_share(folder, worker) if planned["run_id"] not in gone]


def _trainer(
    folder: SweepFolder, writer: Writer, *, share: list[dict[str, Any]], threads: int, environment: Mapping[str, str]
) -> Trainer:
    """Imports torch, chooses the device and checks the data: fails here, before any run is touched."""
    from study.cluster.trainer import Trainer

    launch = read_launch(folder, writer.launch)
    return Trainer.open(folder, writer, launch, share=share, threads=threads, environment=environment)


def _log_path(environment: Mapping[str, str]) -> str | None:
    """Where this worker's stderr goes, by submitit's own naming."""
    if "SUBMITIT_FOLDER" not in environment:
        return None
    from submitit import JobEnvironment

    return str(JobEnvironment().paths.stderr)


@dataclass
class Worker:
    """Goes through a share: skips what is recorded, trains the rest, never stops for a run that fails."""

    folder: SweepFolder
    writer: Writer
    journal: Journal
    stop: Stop
    log: str | None
    _records: Lines | None = None

    def train_share(self, share: list[dict[str, Any]], trainer: Trainer) -> None:
        recorded = read_records(self.folder.records)
        entries = read_journals(self.folder)
        for planned in share:
            if self.stop():
                return
            run_id = planned["run_id"]
            attempts = recorded.get(run_id)
            if attempts and (attempts.record.status in OUTCOMES or not planned.get("retry")):
                trainer.forget(run_id)  # a checkpoint left by a death between record and removal
                continue
            deaths = deaths_without_progress(entries, run_id)
            if deaths >= DEATHS_ALLOWED and not planned.get("retry"):
                reason = f"took its worker down {deaths} times without getting further"
                self._record(trainer.failure(planned, reason=reason, log=self.log))
                continue
            self._train(planned, trainer)

    def _train(self, planned: dict[str, Any], trainer: Trainer) -> None:
        run_id = planned["run_id"]
        self.journal.note("begin", run_id=run_id, step=trainer.saved_step(run_id))
        try:
            record = trainer.train(planned, stop=self.stop, log=self.log)
        except Exception as error:  # a run that fails is a result; the share goes on
            traceback.print_exc()
            record = trainer.failure(planned, reason=trainer.reason(error), log=self.log)
        if record is None:
            self.journal.note("stop", run_id=run_id)
            return
        self._record(record)
        trainer.forget(run_id)
        self.journal.note("end", run_id=run_id, reason=record.status)

    def _record(self, record: Record) -> None:
        if self._records is None:
            self._records = Lines(self.folder.records / f"{self.writer}.jsonl")
        self._records.append(record.to_json())
        print(f"{record.run_id}: {_told(record.status, record)}", flush=True)


def _told(status: Status, record: Record) -> str:
    if status != "done":
        return f"{status}: {record.reason}"
    seconds = record.measured.get("train_seconds") or 0.0
    return f"test accuracy {record.result['test_accuracy']:.2%} in {seconds:.1f} s"


def _leave(stop: Stop, environment: Mapping[str, str]) -> None:
    """After the state is saved: back into the queue where a scheduler asked for the place, else wait for its end.

    A job that just left after SIGTERM would count as finished, and a preempted one would not come back: so it stays until
    the scheduler ends it. USR2 may still come in that time (Slurm sends both, in either order).
    """
    job = environment.get("SLURM_JOB_ID")
    deadline = time.monotonic() + EXIT_WAIT_S
    while job is not None and time.monotonic() < deadline:
        if stop.signal == signal.SIGUSR2 and environment.get("SLURM_PROCID", "0") == "0":
            subprocess.run(["scontrol", "requeue", job], check=False, timeout=60)
            time.sleep(10)
        time.sleep(0.5)


def write_progress(folder: SweepFolder, writer: Writer, *, every_s: float) -> Callable[[str], None]:
    """A function that replaces this worker's progress file with a JSON text, at most every so many seconds."""
    last = 0.0

    def write(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= every_s:
            last = time.monotonic()
            write_whole(folder.progress / f"{writer}.json", text)

    return write
