"""A worker is one process on one device, or the first of several ranks, that trains the runs of its share in turn.

A signal only sets a flag, and the state is saved at the next step's end. USR2 (preemption, time limit) then requeues the job;
SIGTERM waits for its end. A restarted worker skips recorded runs and resumes the interrupted one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from study.config.plugins import load_plugins
from study.errors import UserError, describe_refusal
from study.records.code_snapshot import list_copied_plugins, require_launched_code
from study.records.journal import FINISHED, MAX_CRASHES, Journal, count_crashes, open_journal, read_journals
from study.records.ledger import (
    Cancellations,
    Launch,
    ShareEntry,
    read_all_assignees,
    read_launch,
    read_reassigned,
    read_share,
    share_path,
)
from study.records.locks import launcher_lock, shared_sweep_lock, worker_lock
from study.records.rank_failures import RankFailure, read_rank_failures, remove_rank_failures
from study.records.record import OUTCOMES, Attempts, Record, read_records
from study.records.sweep_folder import JsonLinesWriter, SweepFolder, Writer, await_files
from study.training.determinism import enable_deterministic_cublas
from study.worker.signals import EXIT_HALTED, EXIT_REFUSED, Stop, leave, wait_for_requeue

if TYPE_CHECKING:
    from study.worker.process_group import ProcessGroup
    from study.worker.runner import Trainer


LAUNCHER_POLL_S = 1.0


def run_worker(path: str, launch_id: str, *, job: int, restart: int | None) -> str:
    """Train the share of this process, whose sweep folder is at `path`; the returned words are for submitit's log only."""
    stop = Stop()
    stop.listen()  # first: what takes long to import is imported below
    folder = SweepFolder(Path(path))
    await_files(*(folder.launches / launch_id / name for name in ("launch.json", "runs.json")))
    launch = read_launch(folder, launch_id)
    if launch.cluster == "local":
        threading.Thread(target=_stop_without_launcher, args=(folder, launch_id, stop), daemon=True).start()
    if launch.deterministic:
        enable_deterministic_cublas(os.environ)
    environment = dict(os.environ)
    log = _log_path(environment)
    if launch.ranks > 1 and environment["SLURM_PROCID"] != "0":
        _run_nonzero_rank(folder, launch, job=job, stop=stop, environment=environment, log=log)
        return FINISHED
    task, count = job, restart
    if count is None:  # on Slurm, where the workers of one job are consecutive
        task = job * (int(environment.get("SLURM_NTASKS", "1")) // launch.ranks) + int(environment.get("SLURM_PROCID", "0"))
        count = int(environment.get("SLURM_RESTART_COUNT", "0"))
    try:
        writer, journal = open_journal(folder, (launch_id, task), restart=count)
        journal.write("start", log=log)
    except OSError as error:
        print(describe_refusal(error), file=sys.stderr, flush=True)
        sys.exit(EXIT_HALTED)
    from study.worker.process_group import ProcessGroup, join_group

    group = ProcessGroup()
    try:
        require_launched_code(launch.code, plugins=launch.plugins)
        plugins = load_plugins(list_copied_plugins(launch.plugins))
        share = _claim_share(folder, launch, writer)
        worker = make_worker(folder, writer, journal, share=share, log=log, stop=stop)
        from study.worker.runner import Trainer

        if launch.ranks > 1:
            group = join_group(folder, writer.worker, environment=environment, log=log, stop=stop, sent=(writer, share))
        # Chooses the device and checks the data before any run is touched.
        with plugins.in_use():
            trainer = Trainer.open(folder, writer, launch, share=share, environment=environment, group=group)
    except UserError as error:
        journal.write("refused", reason=error.summary())
        print(error.summary(), file=sys.stderr, flush=True)
        sys.exit(EXIT_REFUSED)
    except OSError as error:
        _halt(journal, error, group)
    try:
        with plugins.in_use():
            worker.train_share(share, trainer)
    except OSError as error:
        _halt(journal, error, group)
    trainer.group.shut_down()
    if stop():
        journal.write("exit", reason=signal.Signals(stop.signal or 0).name)
        if restart is None:
            leave(stop, environment)
        return "stopped"
    journal.write("exit", reason=FINISHED)
    return FINISHED


def _stop_without_launcher(folder: SweepFolder, launch_id: str, stop: Stop) -> None:
    """Stop when the local launch that started this worker is gone, as after a kill -9: it would train on, unseen."""
    lock = launcher_lock(folder, launch_id)
    while lock.is_held():
        time.sleep(LAUNCHER_POLL_S)
    stop.receive(signal.SIGHUP)


def _halt(journal: Journal, error: OSError, group: ProcessGroup) -> NoReturn:
    """End this process, which the system refused a file, and say why in its journal if that can be written."""
    traceback.print_exception(error)
    with contextlib.suppress(OSError):
        journal.write("halt", reason=describe_refusal(error))
    group.halt()


@dataclass
class Worker:
    """Trains every run of a share that is neither recorded nor cancelled; a failed run doesn't end it, a refusing disk does.

    The mappings, by run id, are what earlier workers left.
    """

    folder: SweepFolder
    writer: Writer
    journal: Journal
    stop: Stop
    log: str
    recorded: Mapping[str, Attempts]
    crashes: Mapping[str, int]  # in a row, with no progress
    rank_failures: Mapping[str, RankFailure]
    cancellations: Cancellations
    _records: JsonLinesWriter | None = None

    def train_share(self, share: Sequence[ShareEntry], trainer: Trainer) -> None:
        try:
            for entry in share:
                if self.stop():
                    return
                if not (self.cancellations.include(entry.run_id) or self._settle_from_earlier(entry, trainer)):
                    self._train(entry, trainer)
        except OSError as error:  # a full disk is no outcome of the run: it stays missing, and has not crashed its worker
            with contextlib.suppress(OSError):
                self.journal.write("stop", run_id=entry.run_id, reason=describe_refusal(error))
            raise
        finally:
            if self._records is not None:
                self._records.close()

    def _settle_from_earlier(self, entry: ShareEntry, trainer: Trainer) -> bool:
        """Whether a run needs no training: it has a record, or earlier workers failed on it, which is recorded here."""
        run_id = entry.run_id
        if self._is_recorded(entry):
            trainer.remove_checkpoints(run_id)  # a worker crashed after recording the run
        elif failure := self.rank_failures.get(run_id):
            self._record(trainer.make_failure(entry, reason=failure.message, log=failure.log))
            trainer.remove_checkpoints(run_id)
            remove_rank_failures(self.folder, run_id)
        elif self.crashes[run_id] >= MAX_CRASHES:
            reason = f"crashed its worker {self.crashes[run_id]} times with no progress"
            self._record(trainer.make_failure(entry, reason=reason, log=self.log))
        else:
            return False
        return True

    def _is_recorded(self, entry: ShareEntry) -> bool:
        attempts = self.recorded.get(entry.run_id)
        if attempts is None or attempts.record.status in OUTCOMES:
            return attempts is not None
        # A retried run's failures count only from the launch that retries it on.
        return not entry.retry or attempts.record.provenance.get("launch") == self.writer.launch

    def _train(self, entry: ShareEntry, trainer: Trainer) -> None:
        run_id = entry.run_id
        self.journal.write("begin", run_id=run_id, step=trainer.saved_step(run_id))
        # After `begin` is on disk: either `study.cancel` sees that the run is training, or this worker sees the cancellation.
        if self.cancellations.include(run_id, reread=True):
            self.journal.write("stop", run_id=run_id, reason="cancelled")
            return

        def stop() -> bool:
            return self.stop() or self.cancellations.include(run_id)

        failure, record = None, None
        try:
            record = trainer.train(entry, stop=stop, log=self.log)
        except OSError:
            raise
        except Exception as error:  # a run that fails is a result; the share continues
            traceback.print_exc()
            failure = trainer.describe(error)
        # Outside the except block, where the error's traceback would still hold the memory that ran out.
        if failure is not None:
            record = trainer.make_failure(entry, reason=failure, log=self.log)
        if record is None:
            self.journal.write("stop", run_id=run_id, reason="signal" if self.stop() else "cancelled")
            return
        self._record(record)
        trainer.remove_checkpoints(run_id)
        self.journal.write("end", run_id=run_id, reason=record.status)

    def _record(self, record: Record) -> None:
        if self._records is None:
            self._records = JsonLinesWriter(self.folder.records / f"{self.writer}.jsonl")
        self._records.append(record.to_json())
        print(f"{record.run_id}: {record.summary()}", flush=True)


def _claim_share(folder: SweepFolder, launch: Launch, writer: Writer) -> list[ShareEntry]:
    if writer.task >= launch.tasks:  # the last job may have room for more workers than were left
        return []
    # Under the lock this worker either shows that it is alive before a newer launch assigns runs, which then skips its share,
    # or sees that launch's assignments here: no run is trained by two live workers. On Slurm the queue shows that it's alive.
    with shared_sweep_lock(folder):
        if launch.cluster == "local":
            worker_lock(folder, writer.worker).acquire()
        reassigned = read_reassigned(folder, writer.launch)
    await_files(share_path(folder, writer.worker))
    return [entry for entry in read_share(folder, writer.worker) if entry.run_id not in reassigned]


def make_worker(
    folder: SweepFolder, writer: Writer, journal: Journal, *, share: Sequence[ShareEntry], log: str, stop: Stop
) -> Worker:
    """The worker, with what earlier workers recorded about its runs."""
    run_ids = {entry.run_id for entry in share}
    earlier = read_all_assignees(folder, run_ids)
    entries = read_journals(folder, workers=earlier)
    own = [entry for entry in entries if entry.writer.launch == writer.launch]  # a retried run's crashes count anew
    return Worker(
        folder=folder,
        writer=writer,
        journal=journal,
        stop=stop,
        log=log,
        recorded=read_records(folder.records, workers=earlier),
        crashes={each.run_id: count_crashes(own if each.retry else entries, each.run_id) for each in share},
        rank_failures=read_rank_failures(folder, run_ids),
        cancellations=Cancellations(folder, writer.launch),
    )


def _run_nonzero_rank(
    folder: SweepFolder, launch: Launch, *, job: int, stop: Stop, environment: Mapping[str, str], log: str
) -> None:
    """Train what rank 0 trains, and write nothing but the log. After a signal this rank stays as long as rank 0 does."""
    from study.worker.process_group import join_group
    from study.worker.runner import Trainer

    try:
        require_launched_code(launch.code, plugins=launch.plugins)
        plugins = load_plugins(list_copied_plugins(launch.plugins))
        group = join_group(folder, (launch.id, job), environment=environment, log=log, stop=stop)
        untracked = replace(launch, track=())  # only rank 0 logs to the trackers
        with plugins.in_use():
            trainer = Trainer.open(folder, group.writer, untracked, share=group.share, environment=environment, group=group)
    except UserError as error:
        print(error.summary(), file=sys.stderr, flush=True)
        sys.exit(EXIT_REFUSED)
    while (entry := group.receive_next()) is not None:
        with plugins.in_use():
            trainer.assist(entry, stop=stop)
    group.shut_down()
    if stop():
        wait_for_requeue(stop)


def _log_path(environment: Mapping[str, str]) -> str:
    """Where this process's stderr goes, by submitit's naming; empty outside of submitit."""
    if "SUBMITIT_FOLDER" not in environment:
        return ""
    from submitit import JobEnvironment

    return str(JobEnvironment().paths.stderr)
