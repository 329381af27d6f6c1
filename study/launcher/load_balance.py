"""Static load balancing: which worker trains which runs, in which order, decided once when launching.

Within each seed, runs are assigned by decreasing predicted cost to the least loaded worker (Graham, "Bounds on multiprocessing
timing anomalies", 1969: at most 4/3 of the optimum).
"""

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """A run's predicted cost, in any one unit."""

    run_id: str
    seed: int
    architecture: str
    cost: float


def balance_load(loads: Sequence[Load], workers: int) -> list[list[str]]:
    """The run ids of at most `workers` non-empty shares. Deterministic: equal input gives equal shares."""
    assert workers >= 1
    heap = [(0.0, worker) for worker in range(workers)]
    shares: list[list[Load]] = [[] for _ in range(workers)]
    ranks = {load.seed: rank for rank, load in reversed(list(enumerate(loads)))}  # of a seed's first run
    for _, block in itertools.groupby(sorted(loads, key=lambda load: ranks[load.seed]), key=lambda load: load.seed):
        for load in sorted(block, key=lambda load: (-load.cost, load.architecture, load.run_id)):
            total, worker = heapq.heappop(heap)
            shares[worker].append(load)
            heapq.heappush(heap, (total + load.cost, worker))
    # Seed by seed, so that an unfinished sweep is a complete study with fewer seeds; within a seed, runs of one architecture
    # are adjacent, so that it is compiled once.
    ordered = [sorted(share, key=lambda load: (ranks[load.seed], -load.cost, load.architecture)) for share in shares]
    return [[load.run_id for load in share] for share in ordered if share]
