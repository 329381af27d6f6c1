"""A launch on this machine: one worker process per GPU or CPU core, each with its share, restarted after crashes."""

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

import torch
from submitit import LocalExecutor, LocalJob

from study.launcher.assignment import LaunchRequest, assign_runs, draft_launch, find_remaining
from study.launcher.environment import process_environment
from study.launcher.execution import decide_execution, print_changes
from study.launcher.liveness import check_liveness
from study.launcher.progress_view import LaunchView
from study.records.journal import FINISHED, read_journals
from study.records.ledger import Launch
from study.records.locks import launcher_lock, sweep_lock
from study.records.record import read_records
from study.records.sweep_folder import SweepFolder
from study.worker.task import Task

TIME_LIMIT_MIN = 525_600  # submitit's local jobs need one: a year
POLL_S = 0.25
MAX_FAILED_STARTS = 2  # in a row, of a worker that crashes before it begins a run: it would crash again


def launch_locally(request: LaunchRequest) -> int:
    """Train the remaining runs and wait for them; the exit status.

    There is a worker per GPU, or as many as the CPU's cores have room for, unless a number is requested.
    """
    plan, folder, console, workers = request.plan, request.folder, request.console, request.workers
    with sweep_lock(folder):
        remaining = find_remaining(request, check_liveness(folder))
        if not remaining.runs:
            console.print("Nothing is left to start.")
            return 0
        cores, device = len(os.sched_getaffinity(0)), plan.sweep.device
        gpus = () if device == "cpu" or not torch.cuda.is_available() else tuple(range(torch.cuda.device_count()))
        room = max(1, cores // min(workers or len(gpus) or cores, len(plan.whole)))  # of a launch of all runs
        execution = decide_execution(folder, "cuda" if gpus else "cpu", threads=room, asked=request.threads, here=True)
        count = min(workers or len(gpus) or max(1, cores // execution[0].threads), len(remaining.runs))
        draft = draft_launch(plan, folder, cluster="local", workers=count, execution=execution)
        launcher_lock(folder, draft.id).acquire()
        launch = assign_runs(draft, plan, folder, runs=remaining.runs)
    size = f"{launch.tasks} worker{'s'[: launch.tasks != 1]}{', one GPU each' if gpus else ''}"
    console.print(f"launch {launch.id}: {size}, {execution[0]}")
    print_changes(launch, console)
    with LaunchView(folder, {launch.id}, frozenset(planned.run_id for planned in remaining.runs), console) as view:
        failures = LocalWorkers(folder, launch, gpus=gpus).run(view.update)
    for failure in failures:
        console.print(f"worker failed: {failure}")
    recorded, run_ids = read_records(folder.records), [planned.run_id for planned in remaining.runs]
    failed = [
        recorded[run_id].record for run_id in run_ids if run_id in recorded and recorded[run_id].record.status == "failed"
    ]
    if failed:
        console.print(f"{len(failed)} of {len(run_ids)} runs failed, e.g. {failed[0].run_id}: {failed[0].reason}")
    return 1 if failures or failed else 0


@dataclass
class LocalWorkers:
    """The worker processes of a local launch.

    submitit's local executor starts everything at once, so there are exactly as many workers as may run at the same time.
    """

    folder: SweepFolder
    launch: Launch
    gpus: tuple[int, ...]
    _jobs: dict[int, tuple[LocalJob[str], int]] = field(default_factory=dict)  # by task, with the restart count
    _errors: dict[int, IO[str]] = field(default_factory=dict)  # by task, what submitit prints before there is a log

    def run(self, update: Callable[[], None]) -> list[str]:
        """Train all shares, calling `update` between polls; returns why workers failed, empty if none did."""
        failures: list[str] = []
        try:
            for task in range(self.launch.tasks):
                self._start(task, restart=0)
            while self._jobs:
                time.sleep(POLL_S)
                update()
                failures += self._handle_ended()
        except KeyboardInterrupt:  # reaches this process alone: let the workers save their states
            processes = [job._process for job, _ in self._jobs.values() if job._process is not None]
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                process.wait()
            raise
        finally:
            for file in self._errors.values():
                file.close()
            update()
        return failures

    def _handle_ended(self) -> list[str]:
        """Restart crashed workers; returns why others failed for good."""
        failures = []
        for task, (job, restart) in list(self._jobs.items()):
            if not job.done():
                continue
            del self._jobs[task]
            entries = read_journals(self.folder, workers={(self.launch.id, task)})
            last = [entry for entry in entries if entry.writer.restart == restart]
            begun = max((entry.writer.restart for entry in entries if entry.event == "begin"), default=-1)
            if last and last[-1].event == "exit":
                if last[-1].reason != FINISHED:
                    failures.append(f"worker {task} was stopped by {last[-1].reason}; the same command again resumes its runs")
            elif last and last[-1].event in ("refused", "halt"):
                failures.append(f"worker {task}: {last[-1].reason}")
            elif restart - begun >= MAX_FAILED_STARTS:
                failures.append(f"worker {task} failed during start-up: {self._last_line(task, job)}; see {job.paths.stderr}")
            else:
                self._start(task, restart=restart + 1)
        return failures

    def _start(self, task: int, *, restart: int) -> None:
        executor = LocalExecutor(self.folder.launches / self.launch.id / "jobs")
        gpus = self.gpus[task % len(self.gpus) :][:1] if self.gpus else ()
        executor.update_parameters(timeout_min=TIME_LIMIT_MIN, visible_gpus=gpus, gpus_per_node=len(gpus))
        payload = Task(str(self.folder.path.resolve()), self.launch.id, task, restart)
        code = str((self.folder.code / self.launch.code).resolve())  # first on the path, whatever the working directory holds
        environment = {"PYTHONPATH": code, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": str(self.launch.threads)}
        if restart:
            self._errors[task].close()
        self._errors[task] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (while it lives)
        with process_environment(environment), block_interrupts(), redirect_errors(self._errors[task]):
            job = executor.submit(payload)
            assert isinstance(job, LocalJob)
            self._jobs[task] = (job, restart)

    def _last_line(self, task: int, job: LocalJob[str]) -> str:
        """Why a worker ended, as far as it or submitit have said."""
        self._errors[task].seek(0)
        lines = self._errors[task].read().splitlines()
        with contextlib.suppress(OSError):
            lines += job.paths.stderr.read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line for line in reversed(lines) if line.strip()), "its log says nothing")


@contextlib.contextmanager
def redirect_errors(file: IO[str]) -> Iterator[None]:
    """Processes started inside print their errors to a file."""
    terminal = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


@contextlib.contextmanager
def block_interrupts() -> Iterator[None]:
    """Processes started inside ignore Ctrl-C, which a terminal sends to the whole group: submitit would kill its task.

    This process receives an interrupt that comes meanwhile when it leaves. Children inherit the signal mask; the handler is
    for this process's other threads, which the mask doesn't cover.
    """
    received: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if received:
        raise KeyboardInterrupt
