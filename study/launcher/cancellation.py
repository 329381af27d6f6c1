"""Cancelling runs, and the Slurm jobs that have no others. Records and checkpoints stay, so a later launch resumes them.

A worker with other runs keeps training: it skips cancelled runs, and checkpoints and leaves the one in training. It reads the
cancellation from the ledger, so this works for local workers too.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from study.launcher.liveness import Liveness, check_liveness
from study.launcher.slurm import client as slurm
from study.records.ledger import CANCELLATION_POLL_S, WorkerId, cancel_runs
from study.records.locks import sweep_lock
from study.records.record import read_records
from study.records.sweep_folder import SweepFolder

STOP_TIMEOUT_S = 30.0  # a local worker notices within CANCELLATION_POLL_S, and stops at its step's end


@dataclass(frozen=True)
class Cancellation:
    """Runs to cancel, by the worker that owns them, and the jobs that would have no other runs."""

    runs: Mapping[WorkerId, tuple[str, ...]]
    jobs: tuple[slurm.Job, ...]
    training: int  # how many of the runs have begun
    continuing: int  # jobs of these workers that have other runs

    @property
    def run_ids(self) -> set[str]:
        return {run_id for ids in self.runs.values() for run_id in ids}


def propose_cancellation(folder: SweepFolder, wanted: Collection[str], liveness: Liveness) -> Cancellation:
    """The cancellation of those wanted runs that a live worker owns and that have no record."""
    recorded = read_records(folder.records)
    cancelled, kept = defaultdict[WorkerId, list[str]](list), set[WorkerId]()
    for run_id, worker in liveness.owners(folder).items():
        if run_id in recorded:
            continue
        if run_id in wanted:
            cancelled[worker].append(run_id)
        else:
            kept.add(worker)
    jobs = {worker: job for worker, job in liveness.jobs_by_worker(folder).items() if job.alive}
    affected = {jobs[worker].id: jobs[worker] for worker in cancelled if worker in jobs}
    continuing = affected.keys() & {jobs[worker].id for worker in kept if worker in jobs}
    begun = {run_id for worker in cancelled if (state := liveness.last_states.get(worker)) for run_id in state.open_runs}
    return Cancellation(
        runs={worker: tuple(run_ids) for worker, run_ids in cancelled.items()},
        jobs=tuple(job for job in affected.values() if job.id not in continuing),
        training=sum(run_id in begun for run_ids in cancelled.values() for run_id in run_ids),
        continuing=len(continuing),
    )


def cancel(folder: SweepFolder, wanted: Collection[str]) -> Cancellation:
    """Cancel what `propose_cancellation` proposes now, under the sweep's lock; returns it."""
    with sweep_lock(folder):
        done = propose_cancellation(folder, wanted, check_liveness(folder))
        by_launch: dict[str, list[str]] = defaultdict(list)
        for (launch_id, _), run_ids in done.runs.items():
            by_launch[launch_id] += run_ids
        for launch_id, cancelled in by_launch.items():
            cancel_runs(folder, launch_id, cancelled)
        slurm.cancel_jobs(done.jobs)
    return done


def wait_until_stopped(folder: SweepFolder, run_ids: Collection[str]) -> set[str]:
    """Wait a while for the workers of cancelled runs; returns the runs that are still in training then."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while True:
        running = set(run_ids) & check_liveness(folder).owners(folder).keys()
        if not running or time.monotonic() > deadline:
            return running
        time.sleep(CANCELLATION_POLL_S)
