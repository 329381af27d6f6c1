"""Launch = plan minus what is recorded minus what a live worker owns, shared out, written down, then started.

All of it happens under the sweep's lock, so two launches at once, from two shells or two hosts, never hand out a run twice.
The ledger is written before anything is submitted: a launch that dies in between leaves entries that nobody alive owns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from typing import Any

from study.errors import Problem, UserError
from study.launcher.code_snapshot import PACKAGE, code_hash, origin, take_snapshot
from study.launcher.liveness import Life
from study.launcher.load_balance import Load, share_out
from study.launcher.run_filter import Selection
from study.planning.planned_run import PlannedRun
from study.planning.runtime_estimate import estimate_costs
from study.planning.sweep_plan import Plan
from study.records.benchmark_file import Benchmark, newest_benchmark
from study.records.ledger import Cluster, Launch, new_launch_id, read_launches, write_launch
from study.records.predictions import kept_predictions
from study.records.record import OUTCOMES, read_records
from study.records.sweep_folder import SweepFolder, kept_text, write_whole


@dataclass(frozen=True)
class ToDo:
    """What is left of a plan, and why the rest is not in it."""

    runs: tuple[PlannedRun, ...]
    recorded: int
    failed: int  # recorded as failed and not asked to be retried
    owned: int
    settling: int  # belong to a worker that ended a moment ago
    deselected: int

    def told(self) -> str:
        parts = [f"{len(self.runs)} to train", f"{self.recorded} recorded"]
        parts += [f"{self.failed} failed (--retry failed tries them again)"] if self.failed else []
        parts += [f"{self.owned} owned by live workers"] if self.owned else []
        parts += (
            [
                f"{self.settling} settling (their worker ended less than two minutes ago, and its files may show late; "
                "--settled takes them now)"
            ]
            if self.settling
            else []
        )
        parts += [f"{self.deselected} not selected"] if self.deselected else []
        return ", ".join(parts)


def to_do(plan: Plan, folder: SweepFolder, *, life: Life, selection: Selection) -> ToDo:
    """Sorts every planned run into exactly one group."""
    recorded, owned = read_records(folder.records), life.owners(folder)
    chosen: list[PlannedRun] = []
    counts = {"recorded": 0, "failed": 0, "owned": 0, "settling": 0, "deselected": 0}
    wanted = selection.of(plan.runs)
    for planned in plan.runs:
        attempts = recorded.get(planned.run_id)
        if planned.run_id not in wanted:
            counts["deselected"] += 1
        elif attempts and attempts.record.status in OUTCOMES:
            counts["recorded"] += 1
        elif planned.run_id in owned:
            counts["settling" if owned[planned.run_id] in life.settling else "owned"] += 1
        elif attempts and "failed" not in selection.retry:
            counts["failed"] += 1
        else:
            chosen.append(planned)
    if selection.limit is not None:
        counts["deselected"] += len(chosen[selection.limit :])
        chosen = chosen[: selection.limit]
    return ToDo(runs=tuple(chosen), **counts)


def by_ranks(runs: Sequence[PlannedRun], ranks: int) -> list[tuple[int, tuple[PlannedRun, ...]]]:
    """Runs that one process trains, and runs that so many ranks train together: each is a launch of its own."""
    groups: dict[int, list[PlannedRun]] = {}
    for planned in runs:
        groups.setdefault(ranks if planned.run.train.distributed == "ddp" else 1, []).append(planned)
    return [(size, tuple(groups[size])) for size in sorted(groups)]


def check_batches(runs: Sequence[PlannedRun], ranks: int) -> None:
    """Raises UserError where a batch can't be cut into equal parts for so many ranks."""
    problems: dict[str, Problem] = {}
    for train in (planned.run.train for planned in runs if planned.run.train.distributed == "ddp"):
        step = ranks * train.accumulate
        if train.batch_size % step:
            below, above = train.batch_size // step * step, -(-train.batch_size // step) * step
            parts = f"{ranks} ranks" + (f" x {train.accumulate} micro-batches" if train.accumulate > 1 else "")
            rule = f"each of {parts} takes an equal part of a batch"
            nearest = [str(size) for size in (below, above) if size]
            problem = Problem(rule, key="train.batch_size", value=train.batch_size, choices=nearest)
            problems[str(problem)] = problem
    if problems:
        raise UserError(*problems.values())


def new_launch(
    plan: Plan, folder: SweepFolder, *, cluster: Cluster, workers: int, workers_per_job: int = 1, ranks: int = 1
) -> Launch:
    """A launch that is not entered yet: nothing is written. Under the sweep's lock."""
    code = code_hash()
    return Launch(
        id=new_launch_id(folder),
        cluster=cluster,
        plan=plan.digest,
        code=code,
        tasks=workers,
        tasks_per_job=workers_per_job,
        device=plan.sweep.device,
        deterministic=plan.sweep.deterministic,
        provenance=_provenance(folder, code),
        track=plan.sweep.track,
        ranks=ranks,
    )


def _provenance(folder: SweepFolder, code: str) -> Mapping[str, Any]:
    """Where the code came from. A copy that launches, as the final stage does, has no git: it is that of its own launch."""
    if PACKAGE.parent == (folder.code / code).resolve():
        return next(launch.provenance for launch in reversed(read_launches(folder)) if launch.code == code)
    return asdict(origin())


def enter(draft: Launch, plan: Plan, folder: SweepFolder, *, runs: Sequence[PlannedRun]) -> Launch:
    """Writes the plan, the code, the shares and the launch, which is returned; nothing is submitted yet."""
    by_id, recorded = {planned.run_id: planned for planned in plan.runs}, read_records(folder.records)
    failed = {run_id for run_id, attempts in recorded.items() if attempts.record.status == "failed"}
    benchmark = newest_benchmark(folder.benchmarks)
    costs = estimate_costs(runs, benchmark)
    loads = [Load(p.run_id, p.run.seed, p.architecture, costs[p.run_id]) for p in runs]
    shared = share_out(loads, draft.tasks)
    shares = [[_handed_out(by_id[run_id], failed=failed, benchmark=benchmark) for run_id in share] for share in shared]
    keep_plan(plan, folder)
    launch = replace(draft, code=take_snapshot(folder.code), tasks=len(shares))
    write_launch(folder, launch, shares)
    return launch


def keep_plan(plan: Plan, folder: SweepFolder) -> None:
    """The plan's file, named by its content; one that was lost or damaged is written anew."""
    path, text = folder.plans / f"{plan.digest}.json", kept_text(plan.document)
    if not path.exists() or path.read_bytes() != text.encode():
        write_whole(path, text)


def not_kept(plan: Plan, folder: SweepFolder) -> dict[str, list[str]]:
    """By option, the finished runs that lack what it asks to keep: they were trained without it, and it makes no other run."""
    done = {run_id for run_id, attempts in read_records(folder.records).items() if attempts.record.status == "done"}
    finished = [planned for planned in plan.runs if planned.run_id in done]
    weights = [
        planned.run_id
        for planned in finished
        if planned.run.train.keep == "last" and not (folder.weights / f"{planned.run_id}.safetensors").exists()
    ]
    asked = [planned.run_id for planned in finished if planned.run.data.predictions and planned.run.train.read_test]
    predicted = kept_predictions(folder) if asked else set()
    lacking = {"train.keep": weights, "data.predictions": [run_id for run_id in asked if run_id not in predicted]}
    return {option: runs for option, runs in lacking.items() if runs}


def _handed_out(planned: PlannedRun, *, failed: Set[str], benchmark: Benchmark | None) -> dict[str, Any]:
    """A share's entry; a run that failed before is in it only if it is to be tried again.

    What was measured to be the fastest variant goes with it, for workers on that device.
    """
    document = planned.to_json()
    document |= {"retry": planned.run_id in failed, "variant": None}
    if benchmark is not None:
        variant = benchmark.best_variant(document["run"])
        document["variant"] = {"device_name": benchmark.device_name, **variant.model_dump()} if variant else None
    return document
