"""Runs each tracker in a thread, so that neither its errors nor its delays stop a run.

A tracker that fails, or delays the beginning or end of a run by more than a minute, is reported once on stderr and disabled
for the rest of the worker's process; the notes of each later record say so.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, Protocol

_TIMEOUT_S = 60.0  # of a run's beginning and end
_STOPPED_TIMEOUT_S = 5.0  # of a stopped run's end: a scheduler may kill the worker half a minute after its signal
_POLL_S = 0.02

Metrics = Mapping[str, float]
CurvesByName = Mapping[str, Sequence[float | None]]


class Tracker(Protocol):
    """One library, holding any number of open runs by their run ids. It may raise anything."""

    def open(self, run_id: str, config: Mapping[str, Any]) -> int:
        """Begin a run, or resume one that was begun before; returns the number of its epochs that are logged already."""

    def log(self, run_id: str, epoch: int, metrics: Metrics) -> None:
        """Log the metrics at the end of an epoch, counted from 1."""

    def close(self, run_id: str, status: str, metrics: Metrics) -> None:
        """Log the final metrics; status `stopped` means that the run will be resumed later."""


class TrackerThread:
    """One tracker in its own thread. `fault` is the reason why it is disabled, or empty."""

    def __init__(self, name: str, open_tracker: Callable[[], Tracker]):
        self.name, self.fault = name, ""
        self._jobs: SimpleQueue[Callable[[Tracker], None]] = SimpleQueue()
        self._resumed: dict[str, int] = {}  # the epochs that the tracker had of a run when it was opened
        Thread(target=self._work, args=(open_tracker,), daemon=True, name=f"tracker {name}").start()

    def open(self, run_id: str, config: Mapping[str, Any]) -> None:
        self.submit(lambda tracker: self._resumed.update({run_id: tracker.open(run_id, config)}))

    def log(self, run_id: str, epoch: int, metrics: Metrics) -> None:
        """Log an epoch that the tracker hasn't got from an earlier attempt of the run."""
        self.submit(lambda tracker: tracker.log(run_id, epoch, metrics) if epoch > self._resumed[run_id] else None)

    def submit(self, job: Callable[[Tracker], None]) -> None:
        """Queue a job and return at once; a disabled tracker gets none."""
        if not self.fault:
            self._jobs.put(job)

    def wait(self, *, timeout_s: float) -> None:
        """Return once all submitted jobs are done or the tracker is disabled, which a timeout does."""
        done, deadline = Event(), time.monotonic() + timeout_s
        self.submit(lambda _: done.set())
        while not self.fault and not done.wait(_POLL_S):
            if time.monotonic() > deadline:
                self._disable(f"it did not answer for {timeout_s:g} s")

    def _work(self, open_tracker: Callable[[], Tracker]) -> None:
        try:
            tracker = open_tracker()
            while not self.fault:
                self._jobs.get()(tracker)
        except BaseException as error:  # libraries may call sys.exit, or raise what is no Exception
            self._disable(f"{type(error).__name__}: {error}".strip().splitlines()[0])

    def _disable(self, reason: str) -> None:
        if not self.fault:
            self.fault = f"the tracker {self.name} is off: {reason}"
            print(f"{self.fault} (training continues)", file=sys.stderr, flush=True)


class Tracking:
    """A worker's trackers; several runs may be open at a time."""

    def __init__(self, trackers: Mapping[str, Callable[[], Tracker]], *, timeout_s: float = _TIMEOUT_S):
        self._threads = [TrackerThread(name, open_tracker) for name, open_tracker in trackers.items()]
        self._timeout_s = timeout_s
        self._submitted: dict[str, int] = {}  # number of epochs of each open run

    def begin_run(self, run_id: str, config: Mapping[str, Any]) -> None:
        """Open a new or resumed run; `config` has its options and costs by column name, missing ones None.

        Waits until it is open, so that the import of a library doesn't slow the training down. An open run stays open.
        """
        if run_id in self._submitted:
            return
        self._submitted[run_id] = 0
        present = {name: value for name, value in config.items() if value is not None}
        for thread in self._threads:
            thread.open(run_id, present)
        self._wait(self._timeout_s)

    def log_curves(self, run_id: str, curves: CurvesByName) -> None:
        """Log the epochs that are new; returns at once."""
        rows, first = split_epochs(curves), self._submitted[run_id]
        self._submitted[run_id] = len(rows)
        for epoch, metrics in enumerate(rows[first:], start=first + 1):
            for thread in self._threads:
                thread.log(run_id, epoch, metrics)

    def end_run(self, run_id: str, status: str, *, metrics: Mapping[str, float | None]) -> tuple[str, ...]:
        """Close a run, wait until everything is logged, and return notes for its record: why trackers are disabled."""
        if self._submitted.pop(run_id, None) is not None:  # otherwise it never began
            final = {f"final/{name}": float(value) for name, value in metrics.items() if value is not None}
            for thread in self._threads:
                thread.submit(lambda tracker: tracker.close(run_id, status, final))
            self._wait(min(_STOPPED_TIMEOUT_S, self._timeout_s) if status == "stopped" else self._timeout_s)
        return tuple(thread.fault for thread in self._threads if thread.fault)

    def _wait(self, timeout_s: float) -> None:
        for thread in self._threads:
            thread.wait(timeout_s=timeout_s)


def split_epochs(curves: CurvesByName) -> list[dict[str, float]]:
    """The metrics of each finished epoch by name, without those that were not measured."""
    return [
        {name: float(value) for name, values in curves.items() if name != "epoch" and (value := values[epoch]) is not None}
        for epoch in range(len(curves["epoch"]))
    ]
