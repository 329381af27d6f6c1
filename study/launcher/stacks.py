"""Which runs train together as one stack (`study.training.stacking`): decided once when launching, by what was measured.

Small models are bound by calls, so several at once can be much faster than one after the other; large ones are not, and lose
by it. So runs are stacked only in sizes that `study.benchmark --stacks` found worth it for their architecture.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence, Set

from study.planning.planned_run import PlannedRun
from study.records.benchmark_file import Benchmark
from study.records.ledger import holders, read_share
from study.records.sweep_folder import SweepFolder
from study.worker.share import stack_of

WORTH_IT = 1.15  # times as fast as one run after the other; less isn't worth bits that depend on the size of the stack
OWN = {"lr", "weight_decay"}  # options of `train` that each run of a stack has for itself, like its seed

Stack = tuple[PlannedRun, ...]


def can_stack(planned: PlannedRun) -> bool:
    """Whether the engine can train a run like this in a stack, if its architecture can be stacked."""
    train = planned.run.train
    return train.distributed == "none" and train.accumulate == 1 and not train.stochastic_depth


def kinds(runs: Sequence[PlannedRun]) -> list[Stack]:
    """Runs that could train together, as they differ in nothing but what each has for itself; in plan order."""
    found: dict[Hashable, list[PlannedRun]] = {}
    for planned in filter(can_stack, runs):
        run = planned.run
        recipe = run.train.model_dump_json(exclude=OWN)
        kind = (planned.architecture, run.data.model_dump_json(), run.augment.model_dump_json(), recipe)
        found.setdefault(kind, []).append(planned)
    return [tuple(group) for group in found.values()]


def stacks(
    runs: Sequence[PlannedRun], benchmark: Benchmark | None, *, costs: Mapping[str, float], workers: int, alone: Set[str]
) -> list[Stack]:
    """The runs as stacks and single ones, in plan order; those that are to train `alone` do.

    No stack takes longer than a worker's part of all runs: spread over the workers its runs would be done before it.
    """
    found: list[Stack] = []
    if benchmark is not None and benchmark.stacks:
        part = sum(costs[planned.run_id] for planned in runs) / workers
        for group in kinds([planned for planned in runs if planned.run_id not in alone]):
            most = max(costs[planned.run_id] for planned in group)
            gains = benchmark.stack_gains(group[0].run.to_json())
            found += cut(group, {size: gain for size, gain in gains.items() if gain > WORTH_IT and size * most / gain <= part})
    stacked = {planned.run_id: stack for stack in found for planned in stack}
    return list({stack[0].run_id: stack for stack in (stacked.get(p.run_id, (p,)) for p in runs)}.values())


def cut(group: Stack, gains: Mapping[int, float]) -> list[Stack]:
    """The stacks, and single runs, of these sizes that take the least time together; of equals the fewest.

    Seeds stay together as far as they can, so that an unfinished sweep has few of them begun.
    """
    seconds = {1: 1.0, **{size: size / gain for size, gain in gains.items()}}
    least, last = [(0.0, 0)], [0]  # of so many runs: the time and the number of stacks, and the size of the last one
    for count in range(1, len(group) + 1):
        before = {size: least[count - size] for size in seconds if size <= count}
        time, number, size = min((time + seconds[size], number + 1, size) for size, (time, number) in before.items())
        least.append((time, number))
        last.append(size)
    seeds = list(dict.fromkeys(planned.run.seed for planned in group))
    left, found = sorted(group, key=lambda planned: seeds.index(planned.run.seed)), []
    while left:
        size = last[len(left)]
        found.append(tuple(left[:size]))
        left = left[size:]
    return found


def under_way(
    begun: Mapping[str, Sequence[str]], plan: Mapping[str, PlannedRun], *, left: Set[str], settled: Set[str]
) -> list[Stack]:
    """The stacks among the `begun` ones that can go on as they were, so that they end with the bits of undisturbed ones.

    All of their runs are still in the plan, and `left` to train or `settled` by a record; the latter only keep their places.
    """
    found = {tuple(stack) for run_id, stack in begun.items() if run_id in left and len(stack) > 1}
    whole = [stack for stack in sorted(found) if all(run_id in plan and run_id in left | settled for run_id in stack)]
    return [tuple(plan[run_id] for run_id in stack) for stack in whole]


def begun_stacks(folder: SweepFolder) -> dict[str, tuple[str, ...]]:
    """By run id, of all runs that have a checkpoint, the runs of the stack that they were last launched in."""
    saved = {path.name.rsplit(".", 3)[0] for path in folder.checkpoints.glob("*.checkpoint")}
    if not saved:
        return {}
    given = [holders(folder, launch) for launch in folder.launch_ids()]
    last = {run_id: worker for launch in given for run_id, worker in launch.items() if run_id in saved}
    shares = {worker: {planned["run_id"]: planned for planned in read_share(folder, worker)} for worker in set(last.values())}
    return {run_id: tuple(stack_of(shares[worker][run_id])) for run_id, worker in last.items()}


def cost_together(costs: Mapping[str, float], stack: Stack, benchmark: Benchmark | None) -> float:
    """What a stack costs, in the unit of its runs' own costs."""
    gain = benchmark.stack_gains(stack[0].run.to_json()).get(len(stack), 1.0) if benchmark and len(stack) > 1 else 1.0
    return sum(costs[planned.run_id] for planned in stack) / gain
