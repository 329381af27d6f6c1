"""Which runs of a plan remain to be trained, and their assignment to the workers of a new launch.

All of it happens under the sweep's lock, so that two concurrent launches, also from two hosts, never assign a run twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from rich.console import Console

from study.errors import Problem, UserError
from study.launcher.execution import kept_benchmark
from study.launcher.liveness import Liveness
from study.launcher.load_balance import balance_load
from study.launcher.run_filter import RunFilter, match_runs
from study.planning.planned_run import PlannedRun
from study.planning.runtime_estimate import estimate_costs
from study.planning.sweep_plan import Plan
from study.records.benchmark_file import newest_benchmark
from study.records.code_snapshot import PACKAGE, find_origin, snapshot_name, take_snapshot
from study.records.ledger import Cluster, Execution, Launch, ShareEntry, new_launch_id, read_launches, write_launch
from study.records.locks import sweep_lock
from study.records.predictions import read_predicted_runs
from study.records.record import OUTCOMES, RunOptions, read_records
from study.records.sweep_folder import SweepFolder, format_json, write_whole

SKIPPED = {
    "recorded": "recorded",
    "failed": "failed (--retry failed trains them again)",
    "owned": "owned by live workers",
    "settling": "settling (their worker ended less than two minutes ago, and its files may not be visible yet; --settled takes "
    "them now)",
    "deselected": "not selected",  # by --where or --limit
}


@dataclass(frozen=True)
class RemainingRuns:
    """The runs of a plan that a launch has to train, and how many others there are, by the reason to skip them."""

    runs: tuple[PlannedRun, ...]
    others: Mapping[str, int]  # by the keys of SKIPPED

    def summary(self) -> str:
        skipped = (f"{count} {SKIPPED[why]}" for why, count in self.others.items() if count or why == "recorded")
        return ", ".join([f"{len(self.runs)} to train", *skipped])


@dataclass(frozen=True)
class LaunchRequest:
    """A launch as requested on the command line; None where the resources decide."""

    plan: Plan
    folder: SweepFolder
    run_filter: RunFilter
    console: Console
    workers: int | None
    threads: int | None  # decides the execution anew


def find_remaining(request: LaunchRequest, liveness: Liveness) -> RemainingRuns:
    """Sort every planned run into exactly one group, and print their sizes."""
    plan, folder, run_filter = request.plan, request.folder, request.run_filter
    recorded, owners = read_records(folder.records), liveness.owners(folder)
    wanted = match_runs((planned.entry for planned in plan.runs), run_filter.where)
    remaining: list[PlannedRun] = []
    counts = dict.fromkeys(SKIPPED, 0)
    for planned in plan.runs:
        attempts = recorded.get(planned.run_id)
        if planned.run_id not in wanted:
            counts["deselected"] += 1
        elif attempts and attempts.record.status in OUTCOMES:
            counts["recorded"] += 1
        elif planned.run_id in owners:
            counts["settling" if owners[planned.run_id] in liveness.settling else "owned"] += 1
        elif attempts and "failed" not in run_filter.retry:
            counts["failed"] += 1
        else:
            remaining.append(planned)
    if run_filter.limit is not None:
        counts["deselected"] += len(remaining[run_filter.limit :])
        remaining = remaining[: run_filter.limit]
    found = RemainingRuns(tuple(remaining), counts)
    request.console.print(f"{plan.sweep.name}: {found.summary()}")
    return found


def check_batch_sizes(runs: Sequence[PlannedRun], ranks: int) -> None:
    """Raise UserError if a batch can't be divided evenly among the ranks."""
    problems: dict[str, Problem] = {}
    for train in (planned.run.train for planned in runs if planned.run.train.distributed == "ddp"):
        step = ranks * train.accumulate
        if train.batch_size % step:
            below, above = train.batch_size // step * step, -(-train.batch_size // step) * step
            parts = f"{ranks} ranks" + (f" x {train.accumulate} micro-batches" if train.accumulate > 1 else "")
            rule = f"the batch size must be a multiple of {step} ({parts})"
            nearest = [str(size) for size in (below, above) if size]
            problem = Problem(rule, key="train.batch_size", value=train.batch_size, choices=nearest)
            problems[str(problem)] = problem
    if problems:
        raise UserError(*problems.values())


def draft_launch(
    plan: Plan,
    folder: SweepFolder,
    *,
    cluster: Cluster,
    workers: int,
    execution: tuple[Execution, Execution] | None = None,
    workers_per_job: int = 1,
    ranks: int = 1,
) -> Launch:
    """A launch that is not in the ledger yet; nothing is written. To be called under the sweep's lock.

    `execution` is what `decide_execution` returned, None for a launch that starts no workers.
    """
    code = snapshot_name(plugins=plan.sweep.plugins.paths)
    if PACKAGE.parent == (folder.code / code).resolve():  # a dependent job launches from the snapshot, which has no git
        provenance = next(launch.provenance for launch in reversed(read_launches(folder)) if launch.code == code)
    else:
        provenance = asdict(find_origin())
    return Launch(
        id=new_launch_id(folder),
        cluster=cluster,
        plan=plan.digest,
        code=code,
        tasks=workers,
        tasks_per_job=workers_per_job,
        device=plan.sweep.device,
        deterministic=plan.sweep.deterministic,
        provenance=provenance,
        plugins=tuple(path.name for path in plan.sweep.plugins.paths),
        track=plan.sweep.track,
        ranks=ranks,
        execution=execution[0] if execution else None,
        first_execution=execution[1] if execution else None,
    )


def assign_runs(draft: Launch, plan: Plan, folder: SweepFolder, *, runs: Sequence[PlannedRun]) -> Launch:
    """Write plan, code, shares and launch; returns the launch, of which nothing is submitted yet.

    If the launch is killed before it submits, its runs are unassigned again, since no live worker has them.
    """
    failed = {run_id for run_id, each in read_records(folder.records).items() if each.record.status == "failed"}
    costs = estimate_costs(runs, newest_benchmark(folder.benchmarks))
    benchmark = kept_benchmark(folder, draft.execution) if draft.execution else None

    def make_entry(planned: PlannedRun) -> ShareEntry:
        variant = benchmark.best_variant(planned.entry.options) if benchmark else None
        measured_on = benchmark.device_name if benchmark and variant else ""
        return ShareEntry(planned.entry, planned.run_id in failed, variant, device_name=measured_on)

    shares = [list(map(make_entry, share)) for share in balance_load(runs, costs, workers=draft.tasks)]
    write_plan(plan, folder)
    launch = replace(draft, code=take_snapshot(folder.code, plugins=plan.sweep.plugins.paths), tasks=len(shares))
    write_launch(folder, launch, shares)
    return launch


def write_plan(plan: Plan, folder: SweepFolder) -> None:
    """Write the plan's file, named by its content, unless an undamaged one exists."""
    path, text = folder.plans / f"{plan.digest}.json", format_json(plan.file.to_json())
    if not path.exists() or path.read_bytes() != text.encode():
        write_whole(path, text)


def record_plan(plan: Plan, folder: SweepFolder, *, earlier: Sequence[str]) -> None:
    """Make the requested plan the one that tables and status show, even if nothing was left to start.

    Otherwise a sweep that lost a level or a seed would be reported as it was before. If none of the launches since the
    `earlier` ones has the plan, it is recorded in a launch without workers.
    """
    with sweep_lock(folder):
        launches = [launch for launch in read_launches(folder) if launch.id not in earlier[:-1]]
        write_plan(plan, folder)
        if plan.digest not in {launch.plan for launch in launches}:
            assign_runs(draft_launch(plan, folder, cluster="local", workers=1), plan, folder, runs=())


def describe_excluded_records(plan: Plan, folder: SweepFolder) -> list[str]:
    """Lines about recorded runs of the sweep that are not in the plan, where other images or another split are why."""
    planned, data = {each.run_id for each in plan.whole}, [each.run.data for each in plan.whole]
    recorded = {run_id: each.record.run for run_id, each in read_records(folder.records).items() if run_id not in planned}
    options = [RunOptions.from_json(run).data for run in recorded.values()]
    known = [each for each in options if each.digest in {one.digest for one in data}]
    fixed = [each for each in known if each.split == "fixed" and "fixed" not in {one.split for one in data}]
    reasons = {
        "their data set has other images now, or other test images": len(options) - len(known),
        "data.split is by_seed; they were trained with the fixed split. `data.split=fixed` keeps them": len(fixed),
    }
    return [
        f"{count:,} recorded run{'s' if count > 1 else ''} of this sweep not in this plan: {why}"
        for why, count in reasons.items()
        if count
    ]


def find_unsaved_outputs(plan: Plan, folder: SweepFolder) -> dict[str, list[str]]:
    """By option, the finished runs that were trained without it and so lack its output. The option makes no other run."""
    recorded = {run_id: attempts.record for run_id, attempts in read_records(folder.records).items()}
    finished = [each for each in plan.runs if each.run_id in recorded and recorded[each.run_id].status == "done"]
    weighted = [each for each in finished if each.run.train.keep == "last"]
    judged = [each for each in finished if each.run.data.correctness]
    predicting = [each for each in finished if each.run.data.predictions and each.run.train.read_test]
    predicted = read_predicted_runs(folder) if predicting else set()
    lacking = {
        "train.keep": [each for each in weighted if not (folder.weights / f"{each.run_id}.safetensors").exists()],
        "data.correctness": [each for each in judged if not recorded[each.run_id].correct],
        "data.predictions": [each for each in predicting if each.run_id not in predicted],
    }
    return {option: [each.run_id for each in runs] for option, runs in lacking.items() if runs}
