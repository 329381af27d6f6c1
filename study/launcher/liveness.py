"""Which workers are alive, on any cluster: local ones by the locks they hold, Slurm's by one squeue call."""

import time
from dataclasses import dataclass

from study.launcher.slurm import client as slurm
from study.records.journal import LastState, find_last_states, read_journals
from study.records.ledger import WorkerId, read_launches, resolve_owners
from study.records.locks import launcher_lock, worker_lock
from study.records.sweep_folder import SweepFolder

SETTLING_S = 120
"""How long after a job's end its worker is settling: shared file systems show files late, so its runs are still its own."""


@dataclass(frozen=True)
class Liveness:
    """A sweep's workers at one moment."""

    alive: frozenset[WorkerId]  # queued, starting or running
    settling: frozenset[WorkerId]
    jobs: tuple[slurm.Job, ...]  # of this sweep, alive or ended; empty if no launch used Slurm
    last_states: dict[WorkerId, LastState]  # from the journals
    queue_size: int = 0  # jobs of all users that the controller holds
    dependent_jobs: frozenset[str] = frozenset()  # names of those of this sweep that are alive

    def owners(self, folder: SweepFolder) -> dict[str, WorkerId]:
        """By run id, the worker that owns the run."""
        training = {worker: state.open_runs for worker, state in self.last_states.items()}
        return resolve_owners(folder, self.alive | self.settling, training=training)

    def jobs_by_worker(self, folder: SweepFolder) -> dict[WorkerId, slurm.Job]:
        """The job that each worker of a Slurm launch is, was or will be in."""
        launches = {launch.id: launch for launch in read_launches(folder)}
        return {worker: job for job in self.jobs for worker in launches[job.launch].workers_of(job.index)}


def check_liveness(folder: SweepFolder, *, query_slurm: bool = False) -> Liveness:
    """Check all workers, with one squeue call if any launch of this sweep used Slurm, or if `query_slurm` asks for it."""
    launches = read_launches(folder)
    on_slurm = {launch.id: launch for launch in launches if launch.cluster == "slurm"}
    queue = slurm.read_queue() if on_slurm or query_slurm else slurm.Queue((), frozenset(), 0)
    jobs = tuple(job for job in queue.jobs if job.launch in on_slurm)
    last_states = find_last_states(read_journals(folder))
    refused = {worker for worker, state in last_states.items() if state.entry.event == "refused"}  # they touched no run
    alive, settling = set[WorkerId](), set[WorkerId]()
    for job in jobs:
        workers = on_slurm[job.launch].workers_of(job.index)
        if job.alive:
            alive |= workers
        elif job.began and (job.end is None or time.time() - job.end <= SETTLING_S):  # if it never began, it wrote no file
            settling |= workers - refused
    for launch in launches:
        if launch.cluster == "local":
            starting = launcher_lock(folder, launch.id).is_held()
            alive |= {(launch.id, n) for n in range(launch.tasks) if starting or worker_lock(folder, (launch.id, n)).is_held()}
    own = {slurm.job_name(launch, purpose) for launch in on_slurm for purpose in slurm.PURPOSES}
    return Liveness(
        alive=frozenset(alive),
        settling=frozenset(settling - alive),
        jobs=jobs,
        last_states=last_states,
        queue_size=queue.size,
        dependent_jobs=queue.dependent_jobs & own,
    )
