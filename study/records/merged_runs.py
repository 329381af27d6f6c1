"""Several folders of runs of one sweep as one: of two clusters or two people, or a folder and its earlier copy.

Nothing is averaged or chosen: what is equal counts once, what contradicts is named and nothing is written. A file that grows
(records, journals, predictions) may be longer in one folder than in the other; files that never change must be equal.
Unfinished states (checkpoints), logs, code and reports are not merged: a launch in the merged folder trains what is missing.
"""

import shutil
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from study.errors import Problem, UserError
from study.records.ledger import new_launch_id, read_launches, write_launch
from study.records.plan_file import PlanFile, StudyFacts, load_plan
from study.records.record import OUTCOMES, Attempts, Record, merge_attempts, read_record_file
from study.records.sweep_folder import SweepFolder, format_json, write_whole

IMMUTABLE = (
    "plans/*.json",
    "launches/*/*.json",
    "launches/*/shares/*.json",
    "launches/*/withdrawn/*.json",
    "launches/*/submissions/*.json",
    "launches/*/failures/*.json",
    "selection.json",
    "looks/*.json",
    "benchmarks/*.json",
)
GROWING = ("records/*.jsonl", "journals/*.jsonl")
LIKE_IN_THE_FIRST = ("baselines/*.json", "weights/*.safetensors", "progress/*.json")
"""Of runs with equal outcomes these may differ in last bits, and nothing that is compared depends on them."""

PREDICTIONS = "predictions/*.parquet"


@dataclass(frozen=True)
class MergedRuns:
    """What `merge_runs` wrote: the runs with an outcome by folder, in all, and in several folders."""

    plan: PlanFile
    outcomes: dict[str, int]
    total: int
    shared: int


def merge_runs(sources: Sequence[Path], into: Path) -> MergedRuns:
    """Write the union of several folders of runs to a folder that does not exist yet.

    Raises UserError, before anything is written, naming every contradiction: two outcomes of one run that differ, different
    selections of tuned options, different looks, different predictions, damaged files, or plans of different studies.
    """
    if into.exists():
        raise UserError(Problem("exists already: name a new folder", "command line", "--into", str(into)))
    plans = {source: load_plan(SweepFolder(source)) for source in sources}
    plan = unite_plans({str(source): own for source, own in plans.items()})
    problems = [*_check_equal(sources), *_check_growing(sources), *_check_predictions(sources)]
    if problems:
        raise UserError(*problems)
    attempts, own_outcomes = _read_all_records(sources)
    draft = into.with_name(f".{into.name}.{uuid.uuid4().hex}")
    try:
        for source in reversed(sources):  # the first folder's files are written last
            for pattern in (*IMMUTABLE, *GROWING, *LIKE_IN_THE_FIRST, PREDICTIONS):
                for path in source.glob(pattern):
                    _copy_longer(path, draft / path.relative_to(source), grows=pattern in (*GROWING, PREDICTIONS))
        _record_plan(plan, SweepFolder(draft))
        into.parent.mkdir(parents=True, exist_ok=True)
        draft.rename(into)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    counts = {str(source): len(ids) for source, ids in own_outcomes.items()}
    total = sum(each.record.status in OUTCOMES for each in attempts.values())
    return MergedRuns(plan, counts, total, shared=sum(counts.values()) - total)


def unite_plans(plans: dict[str, PlanFile]) -> PlanFile:
    """The plan of all runs of plans that differ in nothing but seeds and levels. UserError names what else differs."""
    (first_name, first), *others = plans.items()
    problems = []
    for name, other in others:
        for what in ("question", "match", "recipe", "tuned", "trials_per_cell", "effect_of_interest", "contrasts", "looks"):
            one, two = getattr(first.facts, what), getattr(other.facts, what)
            if one != two:
                rule = f"is another study than {first_name}: {what} is {two!r} there and {one!r} here; `study.report --compare`"
                problems.append(Problem(f"{rule} puts two studies side by side", place=name))
        if list(first.facts.factors) != list(other.facts.factors):
            problems.append(Problem(f"varies other options than {first_name}", name, value=", ".join(other.facts.factors)))
    if problems:
        raise UserError(*problems)
    every = [plan.facts for plan in plans.values()]
    runs = {entry.run_id: entry for plan in plans.values() for entry in plan.runs}
    pending = {entry.run_id: entry for plan in plans.values() for entry in plan.pending}
    facts = first.facts if all(facts == first.facts for facts in every) else _unite_facts(every)
    final = sum(entry.stage == "final" for entry in (*runs.values(), *pending.values()))
    return PlanFile(replace(facts, planned_runs=final), tuple(runs.values()), tuple(pending.values()))


def _unite_facts(every: Sequence[StudyFacts]) -> StudyFacts:
    def unite(lists: Iterator[Sequence[Any]]) -> list[Any]:
        joined = [value for own in lists for value in own]  # levels may be lists, which no set takes
        return [value for place, value in enumerate(joined) if value not in joined[:place]]

    return replace(
        every[0],
        seeds=tuple(sorted(unite(facts.seeds for facts in every))),
        factors={key: unite(facts.factors[key] for facts in every) for key in every[0].factors},
        overrides=tuple(unite(facts.overrides for facts in every)),
        times_widened=max(facts.times_widened for facts in every),
    )


def _by_name(sources: Sequence[Path], patterns: Sequence[str]) -> Iterator[tuple[str, list[Path]]]:
    """The files that several folders have, by their path in the folder."""
    found: dict[str, list[Path]] = defaultdict(list)
    for source in sources:
        for path in sorted(path for pattern in patterns for path in source.glob(pattern)):
            found[str(path.relative_to(source))].append(path)
    return ((name, paths) for name, paths in found.items() if len(paths) > 1)


def _check_equal(sources: Sequence[Path]) -> Iterator[Problem]:
    for _, (first, *others) in _by_name(sources, IMMUTABLE):
        for other in others:
            if other.read_bytes() != first.read_bytes():
                yield Problem(f"contradicts {first}, although this file never changes once it is written", place=str(other))


def _check_growing(sources: Sequence[Path]) -> Iterator[Problem]:
    """A file of one worker is in both folders the same, or in one the beginning of the other's."""
    for _, paths in _by_name(sources, GROWING):
        longest = max(paths, key=lambda path: path.stat().st_size)
        lines = longest.read_bytes().split(b"\n")
        for path in paths:
            for number, line in enumerate(path.read_bytes().split(b"\n")[:-1]):  # the last one may be incomplete
                if number >= len(lines) - 1 or line != lines[number]:
                    yield Problem(f"contradicts {longest}:{number + 1}", place=f"{path}:{number + 1}")
                    break


def _check_predictions(sources: Sequence[Path]) -> Iterator[Problem]:
    """Every run's predictions are the same in all folders that have them, whichever worker wrote them."""
    known: dict[str, tuple[Any, Path]] = {}
    for path in (path for source in sources for path in sorted(source.glob(PREDICTIONS))):
        file = pq.ParquetFile(path)
        for number in range(file.num_row_groups):
            group = file.read_row_group(number)
            run_id = str(group["run_id"][0]) if len(group) else ""
            before, where = known.setdefault(run_id, (group, path))
            if not before.select(["image", "predicted"]).equals(group.select(["image", "predicted"])):
                yield Problem(f"predicts other classes for run {run_id} than {where}", place=str(path))


def _read_all_records(sources: Sequence[Path]) -> tuple[dict[str, Attempts], dict[Path, set[str]]]:
    """The attempts of all folders, each once, and the runs with an outcome by folder. UserError where two outcomes differ."""
    found: dict[str, list[tuple[Record, str]]] = defaultdict(list)
    outcomes: dict[Path, set[str]] = {source: set() for source in sources}
    seen = set()
    for source in sources:
        for path in sorted((source / "records").glob("*.jsonl")):
            for record, place in read_record_file(path):
                outcomes[source] |= {record.run_id} if record.status in OUTCOMES else set()
                key = (path.name, place.rpartition(":")[2])
                if key not in seen:  # the same line of an earlier copy, as `_check_growing` made sure
                    seen.add(key)
                    found[record.run_id].append((record, place))
    return merge_attempts(found), outcomes


def _copy_longer(path: Path, target: Path, *, grows: bool) -> None:
    if grows and target.exists() and target.stat().st_size > path.stat().st_size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)


def _record_plan(plan: PlanFile, folder: SweepFolder) -> None:
    """Make the plan that of the newest launch, if need be by a launch without workers."""
    newest = read_launches(folder)[-1]
    if newest.plan == plan.digest:
        return
    write_whole(folder.plans / f"{plan.digest}.json", format_json(plan.to_json()))
    launch = replace(newest, id=new_launch_id(folder), cluster="local", plan=plan.digest, tasks=0)
    write_launch(folder, replace(launch, execution=None, first_execution=None), [])
