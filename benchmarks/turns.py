"""Contestants take turns, round by round, so that a temporary slowdown of the machine affects all of them.

On a CPU each contestant runs in its own process, which sleeps while the others run, so that memory settings and thread pools
don't interfere. A pair is compared by the median over rounds of the ratio within a round, with the quartiles of these ratios.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Protocol

import numpy as np
import torch

Work = Callable[[], object]
Prepare = Callable[[], tuple[Work, str]]  # picklable: it is sent to the contestant's process


@dataclass(frozen=True)
class Lap:
    """One turn: wall-clock and processor seconds per call of the work."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Timing:
    """All turns of one contestant, in order, and its description of itself."""

    name: str
    description: str
    laps: tuple[Lap, ...]

    @property
    def seconds(self) -> float:
        """The median turn."""
        return float(np.median([lap.seconds for lap in self.laps]))

    @property
    def cpu_seconds(self) -> float:
        """The median turn's CPU time, summed over threads; time in which other processes had the CPU is not counted."""
        return float(np.median([lap.cpu_seconds for lap in self.laps]))


@dataclass(frozen=True)
class Ratio:
    """The ratio of two contestants' times: median over rounds, and quartiles."""

    median: float
    lower: float
    upper: float

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.lower:.2f}, {self.upper:.2f}]"


def ratio(slow: Timing, fast: Timing, *, of: str = "seconds") -> Ratio:
    """The ratio of two contestants that took turns."""
    pairs = [getattr(a, of) / getattr(b, of) for a, b in zip(slow.laps, fast.laps, strict=True)]
    lower, median, upper = np.quantile(pairs, [0.25, 0.5, 0.75])
    return Ratio(float(median), float(lower), float(upper))


class Contestant(Protocol):
    """Something that can take a turn of a number of calls."""

    description: str

    def lap(self, calls: int) -> Lap: ...


class LocalContestant:
    """A contestant in this process; on a GPU a turn ends when the device has finished."""

    def __init__(self, prepare: Prepare, *, warm_up: int = 2) -> None:
        self.work, self.description = prepare()
        self.lap(warm_up)

    def lap(self, calls: int) -> Lap:
        synchronize()
        clock, cpu = time.perf_counter(), time.process_time()
        for _ in range(calls):
            self.work()
        synchronize()
        return Lap((time.perf_counter() - clock) / calls, (time.process_time() - cpu) / calls)


class ProcessContestant:
    """A contestant in a process of its own, with `threads` threads."""

    def __init__(self, prepare: Prepare, *, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.line, end = context.Pipe()
        self.process = context.Process(target=serve, args=(end, prepare, threads), daemon=True)
        self.process.start()
        end.close()
        self.description: str = self.line.recv()

    def lap(self, calls: int) -> Lap:
        self.line.send(calls)
        found = self.line.recv()
        assert isinstance(found, Lap)
        return found

    def close(self) -> None:
        self.line.close()
        self.process.join()


def serve(line: Connection, prepare: Prepare, threads: int) -> None:
    """The contestant's process: takes a turn for each request, until the connection is closed."""
    torch.set_num_threads(threads)
    contestant = LocalContestant(prepare)
    line.send(contestant.description)
    while True:
        try:
            calls = line.recv()
        except EOFError:
            return
        line.send(contestant.lap(calls))


@contextmanager
def start_processes(prepared: Mapping[str, Prepare], *, threads: int) -> Iterator[dict[str, Contestant]]:
    """The contestants by name, each in its own process; started one after the other, ended with the block."""
    started: dict[str, Contestant] = {}
    try:
        for name, prepare in prepared.items():
            started[name] = ProcessContestant(prepare, threads=threads)
        yield started
    finally:
        for contestant in started.values():
            assert isinstance(contestant, ProcessContestant)
            contestant.close()


def take_turns(
    contestants: Mapping[str, Contestant], *, rounds: int, calls: Mapping[str, int] | None = None, others: int = 1
) -> dict[str, Timing]:
    """`rounds` rounds over all contestants, in alternating order; a turn has `calls[name]` calls, or `others` by default."""
    laps: dict[str, list[Lap]] = {name: [] for name in contestants}
    order: Sequence[str] = list(contestants)
    for turn in range(rounds):
        for name in order if turn % 2 == 0 else reversed(order):
            laps[name].append(contestants[name].lap((calls or {}).get(name, others)))
    return {name: Timing(name, contestants[name].description, tuple(found)) for name, found in laps.items()}


def synchronize() -> None:
    """Wait for the GPU, if one is in use."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))
