"""The tidy table: one row per final run of the plan, recorded or missing, made from a sweep's folder without torch.

Runs that answer the question and trials that only chose their options are never in one table: `load_trials` has the trials.

Completeness is checked here: a run that was planned and has no record is a row with status `missing`, so a hole has a
name. A measurement that is missing is NA, never 0. The table carries no paths, host names or user names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from study.errors import Problem, UserError
from study.records.baseline_accuracy import baseline_name, read_baselines
from study.records.benchmark_file import Benchmark, benchmark_columns, newest_benchmark
from study.records.columns import planned_columns
from study.records.lost_time import lost_seconds
from study.records.record import Attempts, Record, Stage, read_records
from study.records.selection import read_selection
from study.records.sweep_folder import MEND_LAUNCH, SweepFolder, read_kept

RESULTS = ("val_accuracy", "val_loss", "test_accuracy", "test_top5", "test_loss")
MEASURED = ("train_seconds", "images_per_second", "peak_memory_mib")
FINGERPRINT = (
    "device",
    "device_name",
    "threads",
    "ranks",
    "memory_layout",
    "kernels",
    "optimizer",
    "micro_batches",
    "compiled",
    "deterministic",
)
FORMERLY = {"kernels": "depthwise"}
"""What an entry of the fingerprint was called in older records."""


@dataclass(frozen=True)
class StudyFacts:
    """What a sweep asks and varies, as its newest launch planned it; seeds and planned runs are those of final runs."""

    name: str
    question: str
    expected: str
    factors: Mapping[str, list[Any]]
    seeds: tuple[int, ...]
    match: Mapping[str, Any]
    planned_runs: int
    sweep_yaml: str
    overrides: tuple[str, ...]
    recipe: str | None = None
    tuned: Mapping[str, list[Any]] = field(default_factory=dict)  # levels of the options that trials chose
    trials_per_cell: int = 0


class NotLaunched(UserError):
    """There is no plan to tell of, since nothing has been launched."""


def load_plan(folder: str | Path) -> dict[str, Any]:
    """The plan document of the newest launch of a sweep's folder."""
    place = SweepFolder(Path(folder))
    launches = place.launch_ids()
    if not launches:
        raise NotLaunched(Problem("nothing has been launched here yet", place=str(folder)))
    launch = read_kept(place.launches / launches[-1] / "launch.json", mend=MEND_LAUNCH)
    path = place.plans / f"{launch.get('plan')}.json"
    document: dict[str, Any] = read_kept(path, mend="restore it, or type the newest launch again, which writes it anew")
    return completed(document)


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """A plan written before there were recipes and trials says the same as one without them."""
    study = {"recipe": None, "tuning": None, **document["study"]}
    runs = [{"stage": "final", "cell": None, "trials": None, **planned} for planned in document["runs"]]
    return {"pending": [], **document, "study": study, "runs": runs}


def planned_of(plan: Mapping[str, Any], stage: Stage) -> list[dict[str, Any]]:
    """The planned runs of a stage; pending final runs, whose tuned options are null, are among them."""
    return [planned for planned in [*plan["runs"], *plan["pending"]] if planned["stage"] == stage]


def load_study(folder: str | Path) -> StudyFacts:
    """Question, factors and seeds of the newest launch."""
    plan = load_plan(folder)
    study = plan["study"]
    tuning = study["tuning"] or {"axes": {}, "trials_per_cell": 0}
    return StudyFacts(
        name=study["name"],
        question=study["question"],
        expected=study["expected"],
        factors=study["factors"],
        seeds=tuple(study["seeds"]),
        match=study["match"],
        planned_runs=len(planned_of(plan, "final")),
        sweep_yaml=study["sweep_yaml"],
        overrides=tuple(study["overrides"]),
        recipe=study["recipe"],
        tuned={key.rpartition(".")[2]: levels for key, levels in tuning["axes"].items()},
        trials_per_cell=tuning["trials_per_cell"],
    )


def load_table(folder: str | Path) -> pd.DataFrame:
    """One row per final run of `runs/<sweep>`, in plan order; `status` is done, failed, diverged or missing.

    Before tuning has selected them, tuned options are NA. `trials` is the number of trials that the run's cell had.
    """
    return _table(load_plan(folder), SweepFolder(Path(folder)), "final")


def load_trials(folder: str | Path) -> pd.DataFrame:
    """One row per trial, with the columns of `load_table`; empty for a sweep without tuning. Test figures are NA.

    `cell` names what trials compete for, `selected` says whether the trial's levels were chosen; NA before the selection.
    """
    plan, place = load_plan(folder), SweepFolder(Path(folder))
    table, selection = _table(plan, place, "trial"), read_selection(place)
    if table.empty:
        return table
    table["cell"] = [planned["cell"] for planned in planned_of(plan, "trial")]
    chosen = table["run_id"].isin(selection.chosen_trials()) if selection else None
    return table.assign(selected=pd.Series(chosen, index=table.index, dtype="boolean"))


def _table(plan: Mapping[str, Any], place: SweepFolder, stage: Stage) -> pd.DataFrame:
    recorded, benchmark = read_records(place.records), newest_benchmark(place.benchmarks)
    study = {"sweep": plan["study"]["name"], "recipe": plan["study"]["recipe"]}
    baselines, lost = read_baselines(place.baselines), lost_seconds(place, recorded)
    rows = [
        _row(planned, recorded.get(planned["run_id"]), study=study, benchmark=benchmark, baselines=baselines)
        | {"lost_seconds": lost.get(planned["run_id"])}
        for planned in planned_of(plan, stage)
    ]
    table = pd.DataFrame(rows)
    figures = (*RESULTS, *MEASURED, "lost_seconds")
    return table.convert_dtypes().astype(dict.fromkeys(figures, "Float64")) if len(table) else table


def load_curves(folder: str | Path, *, stage: Stage = "final") -> pd.DataFrame:
    """Learning curves, long: one row per run and epoch with train_loss, val_accuracy, val_loss, lr, ...

    Only runs of the newest plan and of the given stage that have an outcome are in it.
    """
    planned = {run["run_id"] for run in planned_of(load_plan(folder), stage)}
    frames = [
        pd.DataFrame({"run_id": run_id, **attempts.record.curves})
        for run_id, attempts in read_records(SweepFolder(Path(folder)).records).items()
        if run_id in planned and attempts.record.curves
    ]
    if not frames:
        return pd.DataFrame({"run_id": [], "epoch": [], "train_loss": [], "val_accuracy": [], "val_loss": []})
    curves = pd.concat(frames, ignore_index=True).sort_values(["run_id", "epoch"], ignore_index=True)
    return curves.astype({name: float for name in curves if name not in ("run_id", "epoch")})  # what wasn't measured: NaN


def left_out(folder: str | Path) -> int:
    """How many recorded runs are not part of the newest plan."""
    planned = {run["run_id"] for run in load_plan(folder)["runs"]}
    return len(set(read_records(SweepFolder(Path(folder)).records)) - planned)


def _row(
    planned: Mapping[str, Any],
    attempts: Attempts | None,
    *,
    study: Mapping[str, Any],
    benchmark: Benchmark | None,
    baselines: Mapping[str, float],
) -> dict[str, Any]:
    record = attempts.record if attempts else None
    columns = planned_columns(planned)
    row: dict[str, Any] = {
        "run_id": columns.pop("run_id"),
        "sweep": study["sweep"],
        "status": record.status if record else "missing",
        "reason": record.reason if record else None,
    } | columns
    row["recipe"] = study["recipe"]
    row |= {name: record.result.get(name) if record else None for name in RESULTS}
    row |= {"diverged_step": record.result.get("diverged_step") if record else None}
    row |= {name: record.measured.get(name) if record else None for name in MEASURED}
    row |= benchmark_columns(benchmark, planned["run"])
    row["baseline_accuracy"] = baselines.get(baseline_name(planned["run"]["data"]))
    row |= {name: fingerprint_entry(record, name) for name in FINGERPRINT}
    row |= _provenance(record.provenance if record else {})
    row["attempts"] = attempts.count if attempts else 0
    return row


def fingerprint_entry(record: Record | None, name: str) -> Any:
    """An entry of a record's fingerprint; None where it wasn't recorded."""
    known = record.fingerprint if record else {}
    return known.get(name, known.get(FORMERLY.get(name, "")))


def _provenance(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Versions and commit; missing ones are None, so that every row has the columns."""
    names = ("commit", "dirty", "code", "python_version", "torch_version", "numpy_version", "fvcore_version", "exact")
    return {name: provenance.get(name) for name in names}
