"""What stops a worker, and how it leaves: a signal sets a flag; when the state is saved the job goes back into the queue."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType

EXIT_NOT_REQUEUED = 4  # stopped in order, but the scheduler doesn't take the job back
EXIT_WAIT_S = 600  # after SIGTERM: longer than any grace period, so that it is the scheduler who ends the job
RANK_WAIT_S = 10  # between the requests of a job's several workers, since one is enough


@dataclass
class Stop:
    """The flag that signals set; training looks at it after each step."""

    signal: int | None = None

    def __call__(self) -> bool:
        return self.signal is not None

    def hear(self, number: int | None) -> None:
        """Takes in a signal that another process of this worker got."""
        if number is not None:
            self._note(number, None)

    def listen(self) -> None:
        for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        signal.signal(signal.SIGCONT, signal.SIG_DFL)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal != signal.SIGUSR2:  # Slurm sends TERM and USR2 together; the one that requeues counts
            self.signal = number


def stay(stop: Stop) -> None:
    """Until Slurm asks for the place (USR2), or ends the job, or a time has passed that is longer than any grace."""
    deadline = time.monotonic() + EXIT_WAIT_S
    while stop.signal != signal.SIGUSR2 and time.monotonic() < deadline:
        time.sleep(0.2)


def leave(stop: Stop, environment: Mapping[str, str]) -> None:
    """After the state is saved: back into the queue where Slurm asked for the place, else wait for its end.

    A job that just left after SIGTERM would count as finished, and a preempted one would not come back: so it stays until
    the scheduler ends it. USR2 may still come in that time (Slurm sends both, in either order). A SIGTERM is never answered
    with a requeue: it may come from scancel, and a requeue would bring the cancelled job back.
    """
    stay(stop)
    if stop.signal == signal.SIGUSR2:
        time.sleep(RANK_WAIT_S * int(environment["SLURM_PROCID"]))
        if not requeue(environment["SLURM_JOB_ID"]):
            sys.exit(EXIT_NOT_REQUEUED)


def requeue(job: str) -> bool:
    """Puts a running job back into the queue; False where Slurm won't, also when asked again (it may be busy)."""
    for pause_s in (0, 5, 15):
        time.sleep(pause_s)
        try:
            if subprocess.run(["scontrol", "requeue", job], check=False, timeout=60).returncode == 0:
                return True
        except (OSError, subprocess.TimeoutExpired) as error:
            print(f"scontrol: {error}", file=sys.stderr, flush=True)
    return False
