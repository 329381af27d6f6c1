"""Static load balancing: which worker trains which runs, in which order, decided once when launching.

Within each seed, runs are assigned by decreasing predicted cost to the least loaded worker (Graham, "Bounds on multiprocessing
timing anomalies", 1969: at most 4/3 of the optimum).
"""

import heapq
import itertools
from collections.abc import Mapping, Sequence

from study.planning.planned_run import PlannedRun


def balance_load(runs: Sequence[PlannedRun], costs: Mapping[str, float], *, workers: int) -> list[list[PlannedRun]]:
    """At most `workers` non-empty shares of runs, whose costs by run id are in any one unit. Equal input gives equal shares."""
    assert workers >= 1
    heap = [(0.0, worker) for worker in range(workers)]
    shares: list[list[PlannedRun]] = [[] for _ in range(workers)]
    ranks = {planned.run.seed: rank for rank, planned in reversed(list(enumerate(runs)))}  # of a seed's first run

    def seed_rank(planned: PlannedRun) -> int:
        return ranks[planned.run.seed]

    for _, block in itertools.groupby(sorted(runs, key=seed_rank), key=seed_rank):
        for planned in sorted(block, key=lambda each: (-costs[each.run_id], each.architecture, each.run_id)):
            total, worker = heapq.heappop(heap)
            shares[worker].append(planned)
            heapq.heappush(heap, (total + costs[planned.run_id], worker))
    # Seed by seed, so that an unfinished sweep is a complete study with fewer seeds; within a seed, runs of one architecture
    # are adjacent, so that it is compiled once.
    for share in shares:
        share.sort(key=lambda each: (seed_rank(each), -costs[each.run_id], each.architecture))
    return [share for share in shares if share]
