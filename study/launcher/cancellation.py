"""Cancelling takes runs away from the launches that hold them, and jobs from Slurm that have nothing else to do.

Records and checkpoints stay, so a later launch goes on from there. A worker that has other runs lives on: it passes the
withdrawn ones over, and saves and leaves the one it is at. That needs no scheduler, so local workers obey as well.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from study.launcher.liveness import Life, life_of
from study.launcher.slurm import client as slurm
from study.launcher.sweep_status import jobs_of_workers
from study.records.ledger import LOOK_EVERY_S, Worker, read_launches, withdraw
from study.records.locks import sweep_lock
from study.records.record import read_records
from study.records.sweep_folder import SweepFolder

PATIENCE_S = 30.0  # a local worker looks every 5 s, at a step's end


@dataclass(frozen=True)
class Cancellation:
    """What would be taken away: runs by the worker that owns them, and the jobs that would have nothing left to do."""

    runs: Mapping[Worker, tuple[str, ...]]
    jobs: tuple[slurm.Job, ...]
    training: int  # of the runs, how many have begun
    spared: int  # jobs that go on with other runs

    @property
    def run_ids(self) -> set[str]:
        return {run_id for ids in self.runs.values() for run_id in ids}


def propose(folder: SweepFolder, wanted: Collection[str], life: Life) -> Cancellation:
    """The wanted runs that somebody alive owns and has not recorded."""
    recorded = set(read_records(folder.records))
    held: dict[Worker, list[str]] = defaultdict(list)
    for run_id, worker in life.owners(folder).items():
        if run_id not in recorded:
            held[worker].append(run_id)
    wanted_of = {worker: tuple(run_id for run_id in ids if run_id in wanted) for worker, ids in held.items()}
    chosen = {worker: ids for worker, ids in wanted_of.items() if ids}
    keep = {worker for worker, ids in held.items() if set(ids) - set(wanted)}
    alive = {worker: job for worker, job in jobs_of_workers(life.jobs, read_launches(folder)).items() if job.alive}
    touched = {alive[worker].id: alive[worker] for worker in chosen if worker in alive}
    spared = {alive[worker].id for worker in keep if worker in alive}
    begun = sum(run_id in ids for worker, ids in chosen.items() if worker in life.words for run_id in life.words[worker].open)
    return Cancellation(
        chosen, tuple(job for job in touched.values() if job.id not in spared), begun, len(touched.keys() & spared)
    )


def carry_out(folder: SweepFolder, wanted: Collection[str]) -> Cancellation:
    """Withdraws and cancels what is proposed at this moment, alone with the ledger; returns what that was."""
    with sweep_lock(folder):
        done = propose(folder, wanted, life_of(folder))
        by_launch: dict[str, list[str]] = defaultdict(list)
        for (launch_id, _), run_ids in done.runs.items():
            by_launch[launch_id] += run_ids
        for launch_id, taken in by_launch.items():
            withdraw(folder, launch_id, taken)
        slurm.cancel(done.jobs)
    return done


def still_held(folder: SweepFolder, run_ids: Collection[str]) -> set[str]:
    """Of these withdrawn runs, those that a live worker has not let go of, waiting a while for it."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        held = set(run_ids) & life_of(folder).owners(folder).keys()
        if not held or time.monotonic() > give_up:
            return held
        time.sleep(LOOK_EVERY_S)
