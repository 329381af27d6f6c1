"""The task that a launch hands to submitit, and the only part of the worker that the launcher knows."""

from dataclasses import dataclass

from submitit.helpers import DelayedSubmission

from study.worker.worker_process import run_worker


@dataclass(frozen=True)
class Task:
    """One job's workers. `restart` is None on Slurm, which counts restarts itself."""

    folder: str
    launch: str
    job: int
    restart: int | None

    def __call__(self) -> str:
        return run_worker(self.folder, self.launch, job=self.job, restart=self.restart)

    def checkpoint(self) -> DelayedSubmission:
        """What submitit requeues if a signal comes before the worker has installed its own handlers."""
        return DelayedSubmission(self)
