"""Contestants take turns, round by round, so that whatever slows the machine down for a while slows them all.

On a CPU each lives in a process of its own, which sleeps while others run: one's memory settings and thread pools can't help
or hinder another. The figure of a pair is the median over rounds of the ratio within the round, and its spread is the
quartiles of these ratios.
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
Prepare = Callable[[], tuple[Work, str]]  # picklable: it crosses into the contestant's process


@dataclass(frozen=True)
class Lap:
    """One turn: wall-clock and processor seconds per call of the work."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Timing:
    """All turns of one contestant, in order, and what it told of itself."""

    name: str
    told: str
    laps: tuple[Lap, ...]

    @property
    def seconds(self) -> float:
        """The median turn."""
        return float(np.median([lap.seconds for lap in self.laps]))

    @property
    def cpu_seconds(self) -> float:
        """The median turn's processor time, over all threads; it doesn't count the time that others had the processor."""
        return float(np.median([lap.cpu_seconds for lap in self.laps]))


@dataclass(frozen=True)
class Ratio:
    """How many times as long one takes as another: the median over rounds, and its quartiles."""

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
    """Something that can take a turn of so many calls."""

    told: str

    def lap(self, calls: int) -> Lap: ...


class Here:
    """A contestant in this process; on a GPU its turn ends when the device is done."""

    def __init__(self, prepare: Prepare, *, warm_up: int = 2) -> None:
        self.work, self.told = prepare()
        self.lap(warm_up)

    def lap(self, calls: int) -> Lap:
        synchronise()
        clock, cpu = time.perf_counter(), time.process_time()
        for _ in range(calls):
            self.work()
        synchronise()
        return Lap((time.perf_counter() - clock) / calls, (time.process_time() - cpu) / calls)


class Elsewhere:
    """A contestant in a process of its own, with `threads` threads."""

    def __init__(self, prepare: Prepare, *, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.line, end = context.Pipe()
        self.process = context.Process(target=serve, args=(end, prepare, threads), daemon=True)
        self.process.start()
        end.close()
        self.told: str = self.line.recv()

    def lap(self, calls: int) -> Lap:
        self.line.send(calls)
        found = self.line.recv()
        assert isinstance(found, Lap)
        return found

    def close(self) -> None:
        self.line.close()
        self.process.join()


def serve(line: Connection, prepare: Prepare, threads: int) -> None:
    """The contestant's process: takes a turn whenever asked, until the line is closed."""
    torch.set_num_threads(threads)
    contestant = Here(prepare)
    line.send(contestant.told)
    while True:
        try:
            calls = line.recv()
        except EOFError:
            return
        line.send(contestant.lap(calls))


@contextmanager
def elsewhere(prepared: Mapping[str, Prepare], *, threads: int) -> Iterator[dict[str, Contestant]]:
    """The contestants by name, each in its process, started one after the other and ended with the block."""
    started: dict[str, Contestant] = {}
    try:
        for name, prepare in prepared.items():
            started[name] = Elsewhere(prepare, threads=threads)
        yield started
    finally:
        for contestant in started.values():
            assert isinstance(contestant, Elsewhere)
            contestant.close()


def take_turns(
    contestants: Mapping[str, Contestant], *, rounds: int, calls: Mapping[str, int] | None = None, others: int = 1
) -> dict[str, Timing]:
    """`rounds` rounds over all contestants, forward, then backward; each takes its `calls` a turn, or as many as `others`."""
    laps: dict[str, list[Lap]] = {name: [] for name in contestants}
    order: Sequence[str] = list(contestants)
    for turn in range(rounds):
        for name in order if turn % 2 == 0 else reversed(order):
            laps[name].append(contestants[name].lap((calls or {}).get(name, others)))
    return {name: Timing(name, contestants[name].told, tuple(found)) for name, found in laps.items()}


def synchronise() -> None:
    """Wait for a GPU, where there is one in use."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))
