"""A mate is a rank that isn't the worker: it trains what the worker trains, and writes nothing but its log."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from study.errors import UserError
from study.records.ledger import Launch
from study.records.sweep_folder import SweepFolder
from study.worker.process_group import join_worker
from study.worker.runner import Trainer
from study.worker.signals import Stop, stay
from study.worker.worker_process import EXIT_REFUSED, Task


def work_as_mate(task: Task, launch: Launch, *, stop: Stop, environment: Mapping[str, str], log: str) -> str:
    """The whole life of one mate. After a signal it stays as long as the worker does."""
    folder, quiet = SweepFolder(Path(task.folder)), replace(launch, track=())  # the worker alone tells the trackers
    try:
        crew = join_worker(folder, (launch.id, task.job), environment=environment, log=log, stop=stop)
        trainer = Trainer.open(
            folder, crew.writer, quiet, share=crew.share, threads=task.threads, environment=environment, crew=crew
        )
    except UserError as error:
        print(error.summary(), file=sys.stderr, flush=True)
        sys.exit(EXIT_REFUSED)
    while (planned := crew.next()) is not None:
        trainer.assist(planned, stop=stop)
    trainer.close()
    if stop():
        stay(stop)
    return "share finished"
