"""Static shares: which worker trains which runs, in which order, decided once when launching.

Shares are balanced by predicted cost within each seed (longest first to the least loaded: Graham, "Bounds on
multiprocessing timing anomalies", 1969, at most 4/3 of the optimum). Every worker goes seed by seed, so an unfinished sweep
is a complete study with fewer seeds; within a seed, runs of one architecture stand next to each other, so that one compilation
serves them.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """What matters of a run for sharing out: its predicted cost, in any one unit."""

    run_id: str
    seed: int
    architecture: str
    cost: float


def share_out(loads: Sequence[Load], workers: int) -> list[list[str]]:
    """At most `workers` non-empty shares of run ids. Deterministic: equal input, equal shares."""
    assert workers >= 1
    heap = [(0.0, worker) for worker in range(workers)]
    shares: list[list[Load]] = [[] for _ in range(workers)]
    seeds = {load.seed: rank for rank, load in reversed(list(enumerate(loads)))}  # rank of a seed's first run
    for _, block in itertools.groupby(sorted(loads, key=lambda load: seeds[load.seed]), key=lambda load: load.seed):
        for load in sorted(block, key=lambda load: (-load.cost, load.architecture, load.run_id)):
            busy, worker = heapq.heappop(heap)
            shares[worker].append(load)
            heapq.heappush(heap, (busy + load.cost, worker))
    ordered = [sorted(share, key=lambda load: (seeds[load.seed], -load.cost, load.architecture)) for share in shares]
    return [[load.run_id for load in share] for share in ordered if share]
