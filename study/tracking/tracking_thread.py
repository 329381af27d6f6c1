"""Keeps trackers away from training: each has a thread of its own, and what it raises or how long it takes stops no run.

A tracker that fails, or keeps a run waiting for longer than a minute at its beginning or end, is told once on stderr and is
off for the rest of the worker's life; the notes of each record from then on say so.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

from study.tracking.libraries import Figures, Tracker

PATIENCE_S = 60.0  # how long a run waits at its two ends
HURRY_S = 5.0  # the same for one that was stopped: a scheduler may kill the worker half a minute after its signal
LOOK_EVERY_S = 0.02

Curves = Mapping[str, Sequence[float | None]]


@dataclass
class Shown:
    """A tracker with how many epochs it holds of each open run, so that none is shown twice."""

    tracker: Tracker
    epochs: dict[str, int] = field(default_factory=dict)

    def open(self, run_id: str, facts: Mapping[str, Any]) -> None:
        self.epochs[run_id] = self.tracker.open(run_id, facts)

    def log(self, run_id: str, epoch: int, figures: Figures) -> None:
        if epoch > self.epochs[run_id]:
            self.tracker.log(run_id, epoch, figures)
            self.epochs[run_id] = epoch

    def close(self, run_id: str, status: str, figures: Figures) -> None:
        self.tracker.close(run_id, status, figures)
        del self.epochs[run_id]


class Guarded:
    """One tracker behind a thread of its own. `fault` says why it is off; empty while it works."""

    def __init__(self, name: str, opens: Callable[[], Tracker]):
        self.name, self.fault = name, ""
        self._jobs: SimpleQueue[Callable[[Shown], None]] = SimpleQueue()
        Thread(target=self._work, args=(opens,), daemon=True, name=f"tracker {name}").start()

    def ask(self, job: Callable[[Shown], None]) -> None:
        """Hands a job over and returns at once; a tracker that is off gets none."""
        if not self.fault:
            self._jobs.put(job)

    def settle(self, *, patience_s: float) -> None:
        """Returns when all that was asked is done, or the tracker is off."""
        done, deadline = Event(), time.monotonic() + patience_s
        self.ask(lambda _: done.set())
        while not self.fault and not done.wait(LOOK_EVERY_S):
            if time.monotonic() > deadline:
                self._switch_off(f"it did not answer for {patience_s:g} s")

    def _work(self, opens: Callable[[], Tracker]) -> None:
        try:
            shown = Shown(opens())
            while not self.fault:
                self._jobs.get()(shown)
        except BaseException as error:  # libraries may call sys.exit, or raise what is no Exception
            self._switch_off(f"{type(error).__name__}: {error}".strip().splitlines()[0])

    def _switch_off(self, reason: str) -> None:
        if not self.fault:
            self.fault = f"the tracker {self.name} is off: {reason}"
            print(f"{self.fault} (training goes on)", file=sys.stderr, flush=True)


class Tracking:
    """What a worker tells its trackers of its runs; several runs may be under way at a time."""

    def __init__(self, trackers: Mapping[str, Callable[[], Tracker]], *, patience_s: float = PATIENCE_S):
        self._trackers = [Guarded(name, opens) for name, opens in trackers.items()]
        self._patience_s = patience_s
        self._handed: dict[str, int] = {}  # how many epochs of each open run

    def begin(self, run_id: str, facts: Mapping[str, Any]) -> None:
        """A run begins or goes on; `facts` are its options and costs by column name, missing ones None.

        Waits until it is open, so that loading a library takes no time from the training. One that is open stays so.
        """
        if run_id in self._handed:
            return
        self._handed[run_id] = 0
        known = {name: value for name, value in facts.items() if value is not None}
        self._ask(lambda shown: shown.open(run_id, known))
        self._settle(self._patience_s)

    def follow(self, run_id: str, curves: Curves) -> None:
        """Hands over the epochs that are new; returns at once."""
        rows, first = rows_of(curves), self._handed[run_id]
        self._handed[run_id] = len(rows)
        for epoch, figures in enumerate(rows[first:], start=first + 1):
            self._ask(partial(Shown.log, run_id=run_id, epoch=epoch, figures=figures))

    def end(self, run_id: str, status: str, *, figures: Mapping[str, float | None]) -> tuple[str, ...]:
        """Closes a run, waits until all is handed over, and returns notes for its record: which trackers are off."""
        if self._handed.pop(run_id, None) is not None:  # else it never began
            final = {f"final/{name}": float(value) for name, value in figures.items() if value is not None}
            self._ask(lambda shown: shown.close(run_id, status, final))
            self._settle(min(HURRY_S, self._patience_s) if status == "stopped" else self._patience_s)
        return self.notes

    def _ask(self, job: Callable[[Shown], None]) -> None:
        for tracker in self._trackers:
            tracker.ask(job)

    def _settle(self, patience_s: float) -> None:
        for tracker in self._trackers:
            tracker.settle(patience_s=patience_s)

    @property
    def notes(self) -> tuple[str, ...]:
        """Why trackers are off; none where all work."""
        return tuple(tracker.fault for tracker in self._trackers if tracker.fault)


def rows_of(curves: Curves) -> list[dict[str, float]]:
    """The figures of each finished epoch by name, without those that weren't measured."""
    epochs = len(curves["epoch"])
    return [
        {name: float(value) for name, values in curves.items() if name != "epoch" and (value := values[epoch]) is not None}
        for epoch in range(epochs)
    ]
