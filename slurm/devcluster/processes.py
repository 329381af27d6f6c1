"""Daemons that outlive the command that started them; run/ has a file for each with its pid and start time.

Together these identify a process: a pid that the kernel has reused since is never killed. Everything is ended with
SIGKILL, since whatever a daemon would save at exit is deleted with the folder.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cluster_error import ClusterError


def environment(folder: Path) -> dict[str, str]:
    """The environment for the cluster in `folder`: the daemons' folders are on the path (rarely so for ordinary users),
    and variables of a surrounding Slurm job are removed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH", "SRUN"))}
    path = f"{inherited.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return {**inherited, "PATH": path, "SLURM_CONF": f"{folder}/slurm.conf"}


def start(folder: Path, *command: str, name: str = "", within: str = ".") -> None:
    """Start a daemon in a session of its own and record it in run/ as `name`, by default the name of its program."""
    name = name or command[0]
    with (folder / "log" / f"{name}.out").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=folder / within,
            env={**environment(folder), "MYSQL_UNIX_PORT": f"{folder}/mysql.sock"},  # for slurmdbd to find MariaDB
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (folder / "run" / name).write_text(f"{process.pid} {start_time(process.pid)}")


def start_time(pid: int) -> str | None:
    """When a running process started, in clock ticks since boot; None if it is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, ticks = fields[0], fields[19]
    return None if state in "ZX" else ticks


def is_running(record: Path) -> bool:
    pid, ticks = record.read_text().split()
    return start_time(int(pid)) == ticks


def stop(record: Path) -> None:
    """End a recorded daemon and its children, if it is still running."""
    if not record.exists():
        return
    if is_running(record):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(record.read_text().split()[0]), signal.SIGKILL)
        wait_until(lambda: not is_running(record), what=f"end of {record.name}")
    record.unlink()


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def wait_until(ready: Callable[[], bool], *, what: str, needs: Path | None = None, seconds: float = 60) -> None:
    """Wait until `ready`; raise if a daemon recorded in the folder `needs` ends first, or after `seconds`."""
    end = time.monotonic() + seconds
    while not ready():
        dead = [record.name for record in needs.iterdir() if not is_running(record)] if needs else []
        if dead:
            raise ClusterError(f"{', '.join(dead)} ended while waiting for {what}")
        if time.monotonic() > end:
            raise ClusterError(f"no {what} after {seconds:.0f} s")
        time.sleep(0.05)


def processes_of(folder: Path, node: str) -> Iterator[tuple[int, int]]:
    """Processes on a node besides its slurmd: (0, pid) of a slurmstepd, (1, pid) of a task or its children.

    A slurmstepd overwrites its environment with its title, but keeps the working directory of its slurmd. A task may
    change directory, but its environment contains the cluster and the node.
    """
    spool = folder / "spool" / node
    marks = {f"SLURM_CONF={folder}/slurm.conf".encode(), f"SLURMD_NODENAME={node}".encode()}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text() == "slurmstepd\n" and (process / "cwd").readlink() == spool:
                yield 0, int(process.name)
            elif marks <= set((process / "environ").read_bytes().split(b"\0")):
                yield 1, int(process.name)
        except OSError:  # it has ended, or belongs to another user
            continue
