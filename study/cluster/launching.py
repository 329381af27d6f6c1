"""Launch = plan minus what is recorded minus what a live worker owns, shared out, written down, then started.

All of it happens under the sweep's lock, so two launches at once, from two shells or two hosts, never hand out a run twice.
The ledger is written before anything is submitted: a launch that dies in between leaves entries that nobody alive owns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any, Literal

from study.cluster.ledger import Cluster, Launch, Worker, owners, write_launch
from study.cluster.shares import Load, share_out
from study.cluster.snapshot import origin, take_snapshot
from study.errors import Problem, UserError
from study.forecast import predicted_costs
from study.planning import Plan, PlannedRun
from study.records.benchmark import newest_benchmark
from study.records.folder import SweepFolder, write_new
from study.records.record import OUTCOMES, read_records
from study.records.table import planned_columns


@dataclass(frozen=True)
class Selection:
    """Which of the planned runs a launch is about; everything by default."""

    where: Mapping[str, str]
    limit: int | None = None
    retry: frozenset[Literal["failed"]] = frozenset()


@dataclass(frozen=True)
class ToDo:
    """What is left of a plan, and why the rest is not in it."""

    runs: tuple[PlannedRun, ...]
    recorded: int
    failed: int  # recorded as failed and not asked to be retried
    owned: int
    deselected: int

    def told(self) -> str:
        parts = [f"{len(self.runs)} to train", f"{self.recorded} recorded"]
        parts += [f"{self.failed} failed (--retry failed tries them again)"] if self.failed else []
        parts += [f"{self.owned} owned by live workers"] if self.owned else []
        parts += [f"{self.deselected} not selected"] if self.deselected else []
        return ", ".join(parts)


def to_do(plan: Plan, folder: SweepFolder, *, alive: Set[Worker], selection: Selection) -> ToDo:
    """Sorts every planned run into exactly one group."""
    recorded, owned = read_records(folder.records), owners(folder, alive)
    chosen: list[PlannedRun] = []
    counts = {"recorded": 0, "failed": 0, "owned": 0, "deselected": 0}
    wanted = _wanted(plan, selection.where)
    for planned in plan.runs:
        attempts = recorded.get(planned.run_id)
        if planned.run_id not in wanted:
            counts["deselected"] += 1
        elif attempts and attempts.record.status in OUTCOMES:
            counts["recorded"] += 1
        elif planned.run_id in owned:
            counts["owned"] += 1
        elif attempts and "failed" not in selection.retry:
            counts["failed"] += 1
        else:
            chosen.append(planned)
    if selection.limit is not None:
        counts["deselected"] += len(chosen[selection.limit :])
        chosen = chosen[: selection.limit]
    return ToDo(runs=tuple(chosen), **counts)


def _wanted(plan: Plan, where: Mapping[str, str]) -> set[str]:
    """The run ids whose columns have the wanted values, compared as text."""
    columns = {planned.run_id: planned_columns(planned.to_json()) for planned in plan.runs}
    known = sorted({name for row in columns.values() for name in row})
    problems = [Problem("no column of this name", "command line", f"--where {key}", choices=known)
                for key in where if key not in known]
    for key, value in where.items():
        levels = sorted({str(row[key]) for row in columns.values() if key in row})
        if key in known and value not in levels:
            problems.append(Problem("no planned run has this value", "command line", f"--where {key}", value, levels))
    if problems:
        raise UserError(*problems)
    return {run_id for run_id, row in columns.items() if all(str(row.get(key)) == value for key, value in where.items())}


def enter(
    plan: Plan,
    folder: SweepFolder,
    runs: Sequence[PlannedRun],
    *,
    cluster: Cluster,
    workers: int,
    launch_id: str,
    tasks_per_job: int = 1,
    array_size: int = 0,
) -> Launch:
    """Writes the plan, the code snapshot, the shares and the launch; nothing is submitted yet."""
    by_id = {planned.run_id: planned for planned in runs}
    failed = {run_id for run_id, attempts in read_records(folder.records).items() if attempts.record.status == "failed"}
    costs = predicted_costs(runs, newest_benchmark(folder.benchmarks))
    loads = [Load(p.run_id, p.run.seed, p.architecture, costs[p.run_id]) for p in runs]
    shares = [[_handed_out(by_id[run_id], failed) for run_id in share] for share in share_out(loads, workers)]
    write_new(folder.plans / f"{plan.digest}.json", plan.document)
    launch = Launch(
        id=launch_id,
        cluster=cluster,
        plan=plan.digest,
        code=take_snapshot(folder.code),
        tasks=len(shares),
        tasks_per_job=tasks_per_job,
        array_size=array_size,
        device=plan.sweep.device,
        provenance=asdict(origin()),
    )
    write_launch(folder, launch, shares)
    return launch


def _handed_out(planned: PlannedRun, failed: Set[str]) -> dict[str, Any]:
    """A share's entry; a run that failed before is in it only if it is to be tried again."""
    return {**planned.to_json(), "retry": planned.run_id in failed}
