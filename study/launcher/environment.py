"""Which variables a started process inherits: submitit hands its own environment on and takes no other.

A launch may itself run inside a Slurm job, and a user's shell may hold defaults for Slurm's commands. Both would leak: a
stray SBATCH_JOB_NAME goes before the name that carries ownership, a stray SQUEUE_PARTITION hides jobs that are alive.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

LEAKING = ("SLURM_", "SLURMD_", "SBATCH_", "SQUEUE_", "SRUN_", "SCANCEL_", "SUBMITIT_", "PMI_", "PMIX_")
NEEDED = ("SLURM_CONF",)  # where Slurm's configuration lies


@contextlib.contextmanager
def process_environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Environment variables for what is started inside; None takes one away."""
    before = {name: os.environ.get(name) for name in changes}
    _apply(changes)
    try:
        yield
    finally:
        _apply(before)


@contextlib.contextmanager
def outside_of_jobs() -> Iterator[None]:
    """What is started inside sees nothing of a job that this process may run in, nor defaults of Slurm's commands.

    Times are told in seconds since 1970, so that no time zone and no format of the user's stands between.
    """
    leaking = [name for name in os.environ if name.startswith(LEAKING) and name not in NEEDED]
    with process_environment({**dict.fromkeys(leaking), "SLURM_TIME_FORMAT": "%s"}):
        yield


def _apply(changes: Mapping[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
