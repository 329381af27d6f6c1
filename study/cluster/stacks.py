"""Which runs train together as one stack (`study.training.stacking`): decided once when launching, by what was measured.

Small models are bound by calls, so several at once can be much faster than one after the other; large ones are not, and lose
by it. So runs are stacked only in sizes that `study.benchmark --variants` found worth it for their architecture.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence, Set

from study.planned import PlannedRun
from study.records.benchmark import Benchmark

WORTH_IT = 1.15  # times as fast as one run after the other; less isn't worth bits that depend on the size of the stack
OWN = {"lr", "weight_decay"}  # options of `train` that each run of a stack has for itself, like its seed


def can_stack(planned: PlannedRun) -> bool:
    """Whether the engine can train a run like this in a stack, if its architecture can be stacked."""
    train = planned.run.train
    return train.distributed == "none" and train.accumulate == 1 and not train.stochastic_depth


def kinds(runs: Sequence[PlannedRun]) -> list[tuple[PlannedRun, ...]]:
    """Runs that could train together, as they differ in nothing but what each has for itself; in plan order."""
    found: dict[Hashable, list[PlannedRun]] = {}
    for planned in filter(can_stack, runs):
        run = planned.run
        recipe = run.train.model_dump_json(exclude=OWN)
        kind = (planned.architecture, run.data.model_dump_json(), run.augment.model_dump_json(), recipe)
        found.setdefault(kind, []).append(planned)
    return [tuple(group) for group in found.values()]


def stacks(
    runs: Sequence[PlannedRun], benchmark: Benchmark | None, *, workers: int, alone: Set[str]
) -> list[tuple[PlannedRun, ...]]:
    """The runs as stacks and single ones, in plan order; those that are to train `alone` do.

    No stack has more than a worker's part of all runs, so that none stands idle.
    """
    found, most = [], len(runs) // workers
    if benchmark is not None and benchmark.stacks:
        for group in kinds([planned for planned in runs if planned.run_id not in alone]):
            gains = benchmark.stack_gains(group[0].run.to_json())
            found += cut(group, [size for size, gain in gains.items() if gain > WORTH_IT and size <= most])
    stacked = {planned.run_id: stack for stack in found for planned in stack}
    return list({stack[0].run_id: stack for stack in (stacked.get(p.run_id, (p,)) for p in runs)}.values())


def cut(group: Sequence[PlannedRun], sizes: Sequence[int]) -> list[tuple[PlannedRun, ...]]:
    """Of each size, largest first, as many stacks as there are runs for; what is left trains by itself.

    Seeds stay together as far as they can, so that an unfinished sweep has few of them begun.
    """
    seeds = list(dict.fromkeys(planned.run.seed for planned in group))
    left, found = sorted(group, key=lambda planned: seeds.index(planned.run.seed)), []
    for size in sorted(sizes, reverse=True):
        while len(left) >= size:
            found.append(tuple(left[:size]))
            left = left[size:]
    return found


def costs_together(costs: Mapping[str, float], group: Sequence[PlannedRun], benchmark: Benchmark | None) -> float:
    """What a stack costs, in the unit of its runs' own costs."""
    gain = benchmark.stack_gains(group[0].run.to_json()).get(len(group), 1.0) if benchmark and len(group) > 1 else 1.0
    return sum(costs[planned.run_id] for planned in group) / gain
