"""Daemons that outlive the command that started them, each noted under run/ by pid and start time.

The two together name a process for good: a pid that the kernel has given to someone else since is never killed.
Everything ends by SIGKILL, since what a daemon would save on its way out is thrown away with the folder.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from refusal import Refused


def environment(folder: Path) -> dict[str, str]:
    """Ours, aimed at the cluster in `folder`: with the daemons' folders on the path (a user's has them rarely), and
    without what a Slurm job that we run in has left in it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH", "SRUN"))}
    path = f"{inherited.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return {**inherited, "PATH": path, "SLURM_CONF": f"{folder}/slurm.conf"}


def start(folder: Path, *command: str, name: str = "", within: str = ".") -> None:
    """Starts a daemon in the foreground of a session of its own and notes it as `name`, by default its program's."""
    name = name or command[0]
    with (folder / "log" / f"{name}.out").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=folder / within,
            env={**environment(folder), "MYSQL_UNIX_PORT": f"{folder}/mysql.sock"},  # where slurmdbd finds MariaDB
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (folder / "run" / name).write_text(f"{process.pid} {start_time(process.pid)}")


def start_time(pid: int) -> str | None:
    """When a living process started, in clock ticks since boot; None for one that is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, ticks = fields[0], fields[19]
    return None if state in "ZX" else ticks


def is_running(note: Path) -> bool:
    pid, ticks = note.read_text().split()
    return start_time(int(pid)) == ticks


def stop(note: Path) -> None:
    """Ends a noted daemon and what it has forked, if it still runs; no note, nothing to stop."""
    if not note.exists():
        return
    if is_running(note):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(note.read_text().split()[0]), signal.SIGKILL)
        wait_until(lambda: not is_running(note), what=f"the end of {note.name}")
    note.unlink()


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def wait_until(ready: Callable[[], bool], *, what: str, needs: Path | None = None, seconds: float = 60) -> None:
    """Waits for `ready`, but not longer than all daemons noted in the folder `needs` are running."""
    end = time.monotonic() + seconds
    while not ready():
        dead = [note.name for note in needs.iterdir() if not is_running(note)] if needs else []
        if dead:
            raise Refused(f"{', '.join(dead)} ended while waiting for {what}")
        if time.monotonic() > end:
            raise Refused(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.05)


def processes_of(folder: Path, node: str) -> Iterator[tuple[int, int]]:
    """What runs on a node besides its slurmd: (0, pid) of a slurmstepd, (1, pid) of a task or what a task started.

    A slurmstepd overwrites its environment with its title, but stays where its slurmd was started. A task may go
    anywhere, but its environment tells the cluster and the node.
    """
    spool = folder / "spool" / node
    marks = {f"SLURM_CONF={folder}/slurm.conf".encode(), f"SLURMD_NODENAME={node}".encode()}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text() == "slurmstepd\n" and (process / "cwd").readlink() == spool:
                yield 0, int(process.name)
            elif marks <= set((process / "environ").read_bytes().split(b"\0")):
                yield 1, int(process.name)
        except OSError:  # it has ended, or is another user's
            continue
