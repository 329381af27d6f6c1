"""Signals stop a worker: they set a flag, the training state is saved at the next step's end, and the job is requeued."""

import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType

EXIT_REFUSED = 3  # the worker can't train here: no usable device, or data other than planned
EXIT_HALTED = 6  # the system refused a file (a full disk): the runs that are left stay missing
EXIT_NOT_REQUEUED = 4  # the worker stopped in order, but Slurm didn't requeue its job
EXIT_WAIT_S = 600  # after SIGTERM: longer than any grace period, so that the scheduler ends the job
RANK_WAIT_S = 10  # between the requests of a job's several workers, since one is enough


@dataclass
class Stop:
    """The flag that signals set; training checks it after each step."""

    signal: int | None = None

    def __call__(self) -> bool:
        return self.signal is not None

    def listen(self) -> None:
        for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)
        signal.signal(signal.SIGCONT, signal.SIG_DFL)

    def receive(self, number: int | None) -> None:
        """Handle a signal that another rank received."""
        if number is not None:
            self._handle(number, None)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal != signal.SIGUSR2:  # Slurm sends TERM and USR2 together; USR2, which requeues, takes precedence
            self.signal = number


def wait_for_requeue(stop: Stop) -> None:
    """Wait until Slurm asks for a requeue (USR2), for at most longer than any grace period."""
    deadline = time.monotonic() + EXIT_WAIT_S
    while stop.signal != signal.SIGUSR2 and time.monotonic() < deadline:
        time.sleep(0.2)


def leave(stop: Stop, environment: Mapping[str, str]) -> None:
    """After the state is saved: requeue the job on USR2, otherwise wait for the scheduler to end it.

    A job that exits after SIGTERM would count as completed, and a preempted one would not be requeued; so it waits. USR2 may
    still come in that time (Slurm sends both, in either order). SIGTERM alone is never answered with a requeue: it may come
    from scancel.
    """
    wait_for_requeue(stop)
    if stop.signal == signal.SIGUSR2:
        time.sleep(RANK_WAIT_S * int(environment["SLURM_PROCID"]))
        if not requeue(environment["SLURM_JOB_ID"]):
            sys.exit(EXIT_NOT_REQUEUED)


def requeue(job: str) -> bool:
    """Requeue a running job, with two retries in case the controller is busy; whether Slurm accepted."""
    for pause_s in (0, 5, 15):
        time.sleep(pause_s)
        try:
            if subprocess.run(["scontrol", "requeue", job], check=False, timeout=60).returncode == 0:
                return True
        except (OSError, subprocess.TimeoutExpired) as error:
            print(f"scontrol: {error}", file=sys.stderr, flush=True)
    return False
