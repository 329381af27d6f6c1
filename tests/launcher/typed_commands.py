"""Commands of the project, each in a process of its own, forked from one that has imported torch already.

A command can be killed at any moment, has its own folder and environment, and starts in milliseconds instead of seconds.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from preloaded_python import preloaded_python

REPOSITORY = Path(__file__).resolve().parents[2]
PRELOADED = ["study.launch", "study.status", "study.cancel", "fvcore.nn"]
PATIENCE_S = 300


@dataclass(frozen=True)
class Command:
    """A command that runs or has ended; its output is in the file `out`."""

    process: ForkServerProcess
    out: Path

    @property
    def printed(self) -> str:
        return self.out.read_text()

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        """Wait for its end; the exit status, or minus the signal that killed it."""
        self.process.join(patience_s)
        assert self.process.exitcode is not None, f"still running after {patience_s} s:\n{self.printed}"
        return self.process.exitcode

    def kill_group(self, number: int) -> None:
        """Send a signal to the command and the processes that it started, as Ctrl-C in a terminal does."""
        assert self.process.pid is not None
        os.killpg(self.process.pid, number)


def start_command(
    words: str, *, folder: Path, environment: Mapping[str, str], python: str | None = None, die_at: int | None = None
) -> Command:
    """Starts `study WORDS` in a folder. With `die_at` it is killed just before its n-th lasting act (see `kill_before_act`).

    `python` is what the command takes for its interpreter and starts workers and jobs with, by default `preloaded_python()`.
    """
    context = multiprocessing.get_context("forkserver")
    assert isinstance(context, ForkServerContext)
    context.set_forkserver_preload(PRELOADED)
    out = folder / f"typed-{time.monotonic_ns()}.txt"
    threads = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    python = python or preloaded_python()
    process = context.Process(
        target=run, args=(words.split(), str(folder), {**environment, **threads}, str(out), python, die_at)
    )
    process.start()
    return Command(process, out)


def run(words: list[str], folder: str, environment: dict[str, str], out: str, python: str, die_at: int | None) -> None:
    """The command's process from its first line on."""
    sys.executable = python
    os.chdir(folder)
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite that a shell runs in the background ignores Ctrl-C
    os.environ.clear()
    os.environ.update(environment)
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdin = os.fdopen(0, closefd=False)
    if die_at is not None:
        kill_before_act(die_at)
    sys.exit(importlib.import_module(f"study.{words[0]}").main(words[1:]))


def kill_before_act(die_at: int) -> None:
    """Kill this process just before its n-th lasting act: a rename into place, or the start of a program."""
    acts = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal acts
        if event in ("os.rename", "subprocess.Popen"):
            acts += 1
            if acts == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def wait_until(condition: Callable[[], bool], *, seconds: float = 120.0) -> None:
    """Wait until the condition holds, checking often enough to see a training of one second."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition does not hold after {seconds:g} s"
        time.sleep(0.02)


def worker_processes(folder: Path) -> list[int]:
    """Worker processes of this folder's launches, or their proxies, on any node: their command line names its jobs."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if words[0].endswith("python") and "submitit.core._submit" in words and any(str(folder) in word for word in words):
            found.append(int(entry.name))
    return found
