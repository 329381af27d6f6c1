"""Who is alive, on any cluster: local workers by the locks they hold, Slurm's by one squeue call.

Shared file systems show files late: for two minutes after a job's end its runs are settling, and still its own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from study.launcher.slurm import client as slurm
from study.launcher.slurm.client import FOLLOWING
from study.records.journal import Word, read_journals
from study.records.journal import last_words as words_of
from study.records.ledger import Launch, Worker, owners, read_launches
from study.records.locks import launcher_sign, worker_sign
from study.records.sweep_folder import SweepFolder

SETTLING_S = 120


@dataclass(frozen=True)
class Life:
    """What is known of a sweep's workers at one moment."""

    working: frozenset[Worker]  # queued, starting or running
    settling: frozenset[Worker]  # ended a moment ago
    jobs: tuple[slurm.Job, ...]  # of this sweep, alive or ended; none where no launch used Slurm
    words: dict[Worker, Word]  # what each worker noted last
    queue_size: int = 0  # jobs that the controller holds, whoever's they are
    followers: frozenset[str] = frozenset()  # names of the living jobs that follow this sweep's workers

    def owners(self, folder: SweepFolder) -> dict[str, Worker]:
        """Who owns which run."""
        training = {worker: word.open for worker, word in self.words.items()}
        return owners(folder, self.working | self.settling, training=training)

    def settled(self) -> Life:
        """The same where file systems show files at once: an ended worker owns nothing."""
        return replace(self, settling=frozenset())


def life_of(folder: SweepFolder, *, ask_slurm: bool = False) -> Life:
    """Everyone alive; one squeue call, and none where no launch of this sweep used Slurm (but where it is asked for)."""
    launches = read_launches(folder)
    on_slurm = {launch.id: launch for launch in launches if launch.cluster == "slurm"}
    queue = slurm.queue() if on_slurm or ask_slurm else slurm.Queue((), frozenset(), 0)
    jobs = tuple(job for job in queue.jobs if job.launch in on_slurm)
    words = words_of(read_journals(folder))
    working = {worker for job in jobs if job.alive for worker in on_slurm[job.launch].workers_of(job.index)}
    settling = {
        worker
        for job in jobs
        if still_settles(job, time.time())
        for worker in on_slurm[job.launch].workers_of(job.index)
        if not refused(words.get(worker))
    }
    working |= alive_locally(folder, [launch for launch in launches if launch.cluster == "local"])
    followers = queue.followers & {slurm.follower_name(launch, following) for launch in on_slurm for following in FOLLOWING}
    return Life(frozenset(working), frozenset(settling - working), jobs, words, queue.size, followers)


def still_settles(job: slurm.Job, now: float) -> bool:
    """Whether files of an ended job may not be visible yet; one that was cancelled in the queue has written none."""
    return not job.alive and job.began and (job.end is None or now - job.end <= SETTLING_S)


def refused(last: Word | None) -> bool:
    """Whether a worker has said that it touched no run."""
    return last is not None and last.entry.event == "refused"


def alive_locally(folder: SweepFolder, launches: Sequence[Launch]) -> set[Worker]:
    """The workers of local launches that live on any host that shares this file system."""
    alive: set[Worker] = set()
    for launch in launches:
        started = launcher_sign(folder, launch.id).held()
        workers = [(launch.id, task) for task in range(launch.tasks)]
        alive |= {worker for worker in workers if started or worker_sign(folder, worker).held()}
    return alive
