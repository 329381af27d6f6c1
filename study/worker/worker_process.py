"""A worker is one process on one device that trains its share, run by run, and leaves a record of each.

Where several ranks train a run together, the worker is the first of them (`study.worker.process_group`).

It survives what clusters do: a signal only sets a flag, the state is saved at the next step's end; USR2 (preemption, time
limit) then puts the job back into the queue, SIGTERM just saves and waits for the end. A worker that comes back skips what
is recorded and resumes what was cut off. Nothing heavy is imported before the signal handlers stand.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from submitit.helpers import DelayedSubmission

from study.errors import UserError
from study.records.journal import DEATHS_ALLOWED, FINISHED, Entry, Journal, deaths_without_progress, open_journal, read_journals
from study.records.ledger import Launch, Withdrawals, all_holders, handed_on, read_launch, read_share
from study.records.locks import no_launch_meanwhile, worker_sign
from study.records.rank_failures import RankFailure, failures, forget_failures
from study.records.record import OUTCOMES, Attempts, Record, Status, read_records
from study.records.sweep_folder import Lines, SweepFolder, Writer
from study.training.determinism import enable_deterministic_cublas
from study.worker.signals import Stop, leave

if TYPE_CHECKING:
    from study.worker.runner import Trainer

EXIT_REFUSED = 3  # the worker can't do its work here at all: no usable device, data that is not the planned data


@dataclass(frozen=True)
class Task:
    """What is handed to submitit: which share to train. `restart` is None where the scheduler counts restarts."""

    folder: str
    launch: str
    job: int
    restart: int | None
    threads: int

    def __call__(self) -> str:
        return work(self)

    def checkpoint(self) -> DelayedSubmission:
        """What submitit requeues when a signal comes before this worker's own handlers stand: the same task."""
        return DelayedSubmission(self)


def work(task: Task) -> str:
    """The whole life of one worker; what it returns is only for submitit's log, what counts is in the records."""
    stop = Stop()
    stop.listen()
    folder = SweepFolder(Path(task.folder))
    launch = read_launch(folder, task.launch)
    if launch.deterministic:
        enable_deterministic_cublas(os.environ)
    environment = dict(os.environ)
    log = _log_path(environment)
    if launch.ranks > 1 and environment["SLURM_PROCID"] != "0":
        from study.worker.nonzero_rank import work_as_mate  # imports torch

        return work_as_mate(task, launch, stop=stop, environment=environment, log=log)
    number, restart = _place(task, environment, ranks=launch.ranks)
    writer, journal = open_journal(folder, (task.launch, number), restart=restart)
    journal.note("start", log=log)
    try:
        share = _claim(folder, writer)
        worker = _ready(folder, writer, journal, share=share, log=log, stop=stop)
        trainer = _trainer(worker, launch, share=share, threads=task.threads, environment=environment)
    except UserError as error:
        journal.note("refused", reason=error.summary())
        print(error.summary(), file=sys.stderr, flush=True)
        sys.exit(EXIT_REFUSED)
    worker.train_share(share, trainer)
    trainer.close()
    if stop():
        journal.note("exit", reason=signal.Signals(stop.signal or 0).name)
        if task.restart is None:
            leave(stop, environment)
        return "stopped"
    journal.note("exit", reason=FINISHED)
    return FINISHED


def _place(task: Task, environment: Mapping[str, str], *, ranks: int) -> tuple[int, int]:
    """Which worker of its launch this is, and its how-manieth life; workers of one job follow each other."""
    if task.restart is not None:
        return task.job, task.restart
    local_rank, workers = int(environment.get("SLURM_PROCID", "0")), int(environment.get("SLURM_NTASKS", "1")) // ranks
    return task.job * workers + local_rank, int(environment.get("SLURM_RESTART_COUNT", "0"))


def _claim(folder: SweepFolder, writer: Writer) -> list[dict[str, Any]]:
    """Shows that this worker lives, then takes its share, without what newer launches were given."""
    launch = read_launch(folder, writer.launch)
    if writer.task >= launch.tasks:  # the last job has room for more workers than were left
        return []
    with no_launch_meanwhile(folder):
        if launch.cluster == "local":
            worker_sign(folder, writer.worker).hold()
        gone = handed_on(folder, writer.launch)
    return [planned for planned in read_share(folder, writer.worker) if planned["run_id"] not in gone]


def _ready(
    folder: SweepFolder, writer: Writer, journal: Journal, *, share: list[dict[str, Any]], log: str, stop: Stop
) -> Worker:
    """The worker with what earlier workers left of its runs."""
    run_ids = {planned["run_id"] for planned in share}
    earlier = all_holders(folder, run_ids)
    entries = read_journals(folder, of=earlier)
    return Worker(
        folder=folder,
        writer=writer,
        journal=journal,
        stop=stop,
        log=log,
        recorded=read_records(folder.records, of=earlier),
        deaths={planned["run_id"]: _deaths(planned, entries, writer) for planned in share},
        failures=failures(folder, run_ids),
        withdrawals=Withdrawals(folder, writer.launch),
    )


def _deaths(planned: Mapping[str, Any], entries: Sequence[Entry], writer: Writer) -> int:
    """How often in a row the run took a worker down; of a run that is tried again, since the launch that tries it."""
    counted = [entry for entry in entries if not planned.get("retry") or entry.writer.launch == writer.launch]
    return deaths_without_progress(counted, planned["run_id"])


def _trainer(
    worker: Worker, launch: Launch, *, share: list[dict[str, Any]], threads: int, environment: Mapping[str, str]
) -> Trainer:
    """Imports torch, gathers the ranks, chooses the device and checks the data: fails here, before any run is touched."""
    from study.worker.process_group import SOLO, lead
    from study.worker.runner import Trainer

    folder, writer = worker.folder, worker.writer
    alone = launch.ranks == 1
    crew = SOLO if alone else lead(folder, writer, share=share, environment=environment, log=worker.log, stop=worker.stop)
    return Trainer.open(folder, writer, launch, share=share, threads=threads, environment=environment, crew=crew)


@dataclass
class Worker:
    """Goes through a share: skips what is recorded or withdrawn, trains the rest, never stops for a run that fails."""

    folder: SweepFolder
    writer: Writer
    journal: Journal
    stop: Stop
    log: str
    recorded: Mapping[str, Attempts]
    deaths: Mapping[str, int]  # in a row, without progress
    failures: Mapping[str, RankFailure]  # of earlier lives
    withdrawals: Withdrawals
    _records: Lines | None = None

    def train_share(self, share: list[dict[str, Any]], trainer: Trainer) -> None:
        for planned in share:
            if self.stop():
                return
            if not self.withdrawals.include(planned["run_id"]) and not self._over(planned, trainer):
                self._train(planned, trainer)

    def _over(self, planned: dict[str, Any], trainer: Trainer) -> bool:
        """Whether a run has its record; it gets it here where it was its worker's end."""
        run_id, deaths = planned["run_id"], self.deaths[planned["run_id"]]
        if self._settled(planned):
            trainer.forget(run_id)  # a checkpoint left by a death between record and removal
        elif failure := self.failures.get(run_id):
            self._record(trainer.failure(planned, reason=failure.told, log=failure.log))
            trainer.forget(run_id)
            forget_failures(self.folder, run_id)
        elif deaths >= DEATHS_ALLOWED:
            reason = f"took its worker down {deaths} times without getting further"
            self._record(trainer.failure(planned, reason=reason, log=self.log))
        else:
            return False
        return True

    def _settled(self, planned: Mapping[str, Any]) -> bool:
        """Whether a record says how the run ended; of one that is tried again no failure before this launch does."""
        attempts = self.recorded.get(planned["run_id"])
        if attempts is None or attempts.record.status in OUTCOMES:
            return attempts is not None
        return not planned.get("retry") or attempts.record.provenance.get("launch") == self.writer.launch

    def _train(self, planned: dict[str, Any], trainer: Trainer) -> None:
        """Train a run until it is recorded or withdrawn, or this worker is to stop."""
        run_id = planned["run_id"]
        self.journal.note("begin", run_id=run_id, step=trainer.saved_step(run_id))
        # Looked up after the note, so that a cancellation sees the note or this worker sees the cancellation.
        if self.withdrawals.include(run_id, now=True):
            self.journal.note("stop", run_id=run_id, reason="withdrawn")
            return

        def stop() -> bool:
            return self.stop() or self.withdrawals.include(run_id)

        failure = None
        try:
            record = trainer.train(planned, stop=stop, log=self.log)
        except Exception as error:  # a run that fails is a result; the share goes on
            traceback.print_exc()
            failure = trainer.reason(error)
        # Outside the except block, where the error's traceback would still hold what didn't fit into memory.
        if failure is not None:
            record = trainer.failure(planned, reason=failure, log=self.log)
        if record is None:
            self.journal.note("stop", run_id=run_id, reason="signal" if self.stop() else "withdrawn")
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
    return record.figures() if status == "done" else f"{status}: {record.reason}"


def _log_path(environment: Mapping[str, str]) -> str:
    """Where this worker's stderr goes, by submitit's own naming; empty outside of submitit."""
    if "SUBMITIT_FOLDER" not in environment:
        return ""
    from submitit import JobEnvironment

    return str(JobEnvironment().paths.stderr)
