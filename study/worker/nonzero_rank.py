"""A rank other than 0 trains what rank 0 trains, and writes nothing but its log."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace

from study.errors import UserError
from study.records.ledger import Launch, WorkerId
from study.records.sweep_folder import SweepFolder
from study.worker.process_group import join_group
from study.worker.runner import Trainer
from study.worker.signals import EXIT_REFUSED, Stop, wait_for_requeue


def run_nonzero_rank(
    folder: SweepFolder, launch: Launch, *, worker: WorkerId, threads: int, stop: Stop, environment: Mapping[str, str], log: str
) -> None:
    """Train until rank 0 ends the group. After a signal this rank stays as long as rank 0 does."""
    try:
        group = join_group(folder, worker, environment=environment, log=log, stop=stop)
        untracked = replace(launch, track=())  # only rank 0 logs to the trackers
        trainer = Trainer.open(
            folder, group.writer, untracked, share=group.share, threads=threads, environment=environment, group=group
        )
    except UserError as error:
        print(error.summary(), file=sys.stderr, flush=True)
        sys.exit(EXIT_REFUSED)
    while (entry := group.receive_next()) is not None:
        trainer.assist(entry, stop=stop)
    group.shut_down()
    if stop():
        wait_for_requeue(stop)
