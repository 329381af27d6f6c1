"""What started processes are given: submitit passes its own environment on and accepts no other, and paths name their code."""

import contextlib
import os
import shlex
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from study.errors import Problem, UserError

LEAKING = ("SLURM_", "SLURMD_", "SBATCH_", "SQUEUE_", "SRUN_", "SCANCEL_", "SUBMITIT_", "PMI_", "PMIX_")
NEEDED = ("SLURM_CONF",)


def require_safe_folder(folder: Path) -> None:
    """Raise UserError where workers of a sweep's folder would execute others' files or other code, or find no log.

    Jobs start from pickles in this folder, so what is written from here on can be written by no other user than its group's.
    """
    os.umask(os.umask(0) | stat.S_IWOTH)
    for place in (folder.parent, folder, folder / "launches", folder / "code"):
        mode = place.stat().st_mode if place.is_dir() else 0
        if mode & stat.S_IWOTH and not (place == folder.parent and mode & stat.S_ISVTX):  # as /tmp, nothing there is replaced
            rule = f"anyone may write to this folder, and jobs execute files in it: chmod o-w {shlex.quote(str(place))}"
            raise UserError(Problem(rule, place=str(place)))
    path = str(folder.resolve())
    if not path.isprintable() or set(path) & set(":%"):
        rule = "nothing can be launched here: Python's path is split at ':', and Slurm replaces '%' in the names of logs"
        raise UserError(Problem(f"{rule}; --runs names another folder, name=... another sweep", key="--runs", value=path))


@contextlib.contextmanager
def process_environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables for processes started inside; None unsets one."""
    before = {name: os.environ.pop(name, None) for name in changes}
    os.environ.update({name: value for name, value in changes.items() if value is not None})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def clean_slurm_environment() -> Iterator[None]:
    """Hide from processes started inside the Slurm job that this process may run in, and the user's Slurm defaults.

    Both would leak: SBATCH_JOB_NAME overrides the job's name, by which the launcher finds its workers, and SQUEUE_PARTITION
    hides live jobs. Times are printed in seconds since 1970, whatever the user's time zone and format.
    """
    leaking = [name for name in os.environ if name.startswith(LEAKING) and name not in NEEDED]
    with process_environment({**dict.fromkeys(leaking), "SLURM_TIME_FORMAT": "%s"}):
        yield
