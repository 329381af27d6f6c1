"""Workers on the machine at hand: as many processes as fit, each with its share, started again when they die.

submitit's local executor starts everything at once, so exactly as many workers are submitted as may run together. Ctrl-C
reaches this process only: it asks the workers to save and waits for them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from submitit import LocalExecutor, LocalJob

from study.launcher.environment import process_environment
from study.records.journal import Entry, read_journals
from study.records.ledger import Launch
from study.records.sweep_folder import SweepFolder
from study.worker.worker_process import Task

FOREVER_MIN = 525_600  # submitit's local jobs have a time limit; a year is none
POLL_S = 0.25
STARTS_ALLOWED = 2  # in a row, of a worker that dies before it begins a run: it would die again


@dataclass(frozen=True)
class Machine:
    """What this machine offers to workers."""

    workers: int
    threads: int  # per worker
    gpus: tuple[int, ...]


def machine_for(device: str, *, runs: int, workers: int | None) -> Machine:
    """One worker per GPU, or per CPU core; threads share the cores evenly. `workers` decides by hand."""
    cores = len(os.sched_getaffinity(0))
    gpus = () if device == "cpu" or not torch.cuda.is_available() else tuple(range(torch.cuda.device_count()))
    chosen = min(workers or len(gpus) or cores, runs)
    return Machine(workers=chosen, threads=max(1, cores // chosen), gpus=gpus)


@dataclass
class LocalWorkers:
    """The processes of one local launch, watched until every share is finished or can't be."""

    folder: SweepFolder
    launch: Launch
    machine: Machine
    environment: Mapping[str, str]
    _jobs: dict[int, tuple[LocalJob[str], int]] = field(default_factory=dict)

    def run(self, watch: Callable[[], None]) -> list[str]:
        """Trains all shares; `watch` is called between polls. Returns why workers gave up, empty where none did."""
        told: list[str] = []
        try:
            for task in range(self.launch.tasks):
                self._start(task, restart=0)
            while self._jobs:
                time.sleep(POLL_S)
                watch()
                told += self._look_after()
        except KeyboardInterrupt:
            self._stop()
            raise
        finally:
            watch()
        return told

    def _look_after(self) -> list[str]:
        """Starts the dead again, lets the finished go."""
        told = []
        for task, (job, restart) in list(self._jobs.items()):
            if not job.done():
                continue
            del self._jobs[task]
            entries = read_journals(self.folder, of={(self.launch.id, task)})
            last = [e for e in entries if e.writer.restart == restart]
            if last and last[-1].event == "exit":
                continue
            if last and last[-1].event == "refused":
                told.append(f"worker {task}: {last[-1].reason}")
            elif not _began(last) and restart - _last_begun(entries) >= STARTS_ALLOWED:
                told.append(f"worker {task} dies at its start; see {job.paths.stderr}")
            else:
                self._start(task, restart=restart + 1)
        return told

    def _start(self, task: int, *, restart: int) -> None:
        folder = self.folder.launches / self.launch.id / "jobs"
        executor = LocalExecutor(folder)
        gpus = self.machine.gpus[task % len(self.machine.gpus) :][:1] if self.machine.gpus else ()
        executor.update_parameters(timeout_min=FOREVER_MIN, visible_gpus=gpus, gpus_per_node=len(gpus))
        payload = Task(str(self.folder.path.resolve()), self.launch.id, task, restart, self.machine.threads)
        with process_environment(self.environment), interrupts_held_back():
            job = executor.submit(payload)
            assert isinstance(job, LocalJob)
            self._jobs[task] = (job, restart)

    def _stop(self) -> None:
        """Asks every worker to save its state and waits until they have."""
        for job, _ in self._jobs.values():
            if job._process is not None:
                job._process.send_signal(signal.SIGTERM)
        for job, _ in self._jobs.values():
            if job._process is not None:
                job._process.wait()


def _began(entries: list[Entry]) -> bool:
    return any(entry.event == "begin" for entry in entries)


def _last_begun(entries: list[Entry]) -> int:
    """The newest life that got as far as a run; -1 where none did."""
    return max((entry.writer.restart for entry in entries if entry.event == "begin"), default=-1)


def worker_environment(folder: SweepFolder, launch: Launch, machine: Machine) -> dict[str, str]:
    """The launched code first on the path, whatever the working folder holds, and no more threads than cores."""
    code = str((folder.code / launch.code).resolve())
    return {"PYTHONPATH": code, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": str(machine.threads)}


@contextlib.contextmanager
def interrupts_held_back() -> Iterator[None]:
    """What is started inside never hears Ctrl-C: a terminal sends it to the whole group, and submitit would kill its task.

    This process hears one that comes meanwhile when it leaves. Blocking is what children inherit; the handler is for the
    process's other threads, which don't block it.
    """
    heard: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if heard:
        raise KeyboardInterrupt
