"""The run table: one row per final run of the plan, read from a sweep's folder without torch.

Missing runs are rows with status `missing`, and missing measurements are NA, never 0. `load_trials` has the trials, which only
selected hyperparameters. The tables contain no paths, host names or user names.
"""

import itertools
import math
import time
from collections.abc import Mapping, Set
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from study.config.documents import pause_collection
from study.records.baseline_accuracy import baseline_name, read_baselines
from study.records.benchmark_file import BENCHMARK_COLUMNS, benchmark_columns, newest_benchmark
from study.records.columns import planned_columns
from study.records.correctness import decode_correctness
from study.records.lost_time import compute_lost_seconds
from study.records.plan_file import PlanFile, StudyFacts, load_plan
from study.records.record import Attempts, Measurements, Record, Result, Stage, read_records
from study.records.selection import read_selection
from study.records.sweep_folder import SweepFolder
from study.records.table_cache import (
    MIN_RUNS,
    RECORDED_BY,
    TableCache,
    read_by_worker,
    read_cache,
    sign_fixed,
    sign_workers,
    write_cache,
)

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
_FORMER_NAMES = {"kernels": "depthwise"}
"""Names of fingerprint entries in older records."""

PROVENANCE = ("commit", "dirty", "code", "python_version", "torch_version", "numpy_version", "fvcore_version", "exact")
FLOATS = (
    *(each.name for each in (*fields(Result), *fields(Measurements)) if each.name != "diverged_step"),
    *(name for name in BENCHMARK_COLUMNS if name not in ("benchmark_batch_size", "benchmark_device", "benchmark_variant")),
    "baseline_accuracy",
    "lost_seconds",
)
INTEGERS = ("diverged_step", "benchmark_batch_size", "threads", "ranks", "micro_batches", "trials")
NUMERIC_TYPES = {**dict.fromkeys(FLOATS, "Float64"), **dict.fromkeys(INTEGERS, "Int64")}
"""Types of numeric columns that may be missing in every row, where no value shows what they are."""


def load_study(folder: str | Path) -> StudyFacts:
    """Question, factors and seeds of the newest launch of `runs/<sweep>`."""
    return load_plan(SweepFolder(Path(folder))).facts


@pause_collection()
def load_table(folder: str | Path) -> pd.DataFrame:
    """One row per final run of `runs/<sweep>`, in plan order; `status` is done, failed, diverged or missing.

    Before tuning has selected them, tuned options are NA. `trials` is the number of trials that the run's cell had.
    """
    place = SweepFolder(Path(folder))
    began, fixed, workers = time.time(), sign_fixed(place), sign_workers(place)
    cache = read_cache(place, fixed=fixed)
    changed = cache.find_changed(workers or {}) if cache else {*(workers or {})}
    if cache and workers is not None and not changed:
        return cache.table.drop(columns=RECORDED_BY)
    plan = load_plan(place)
    if workers is None or len(plan.of_stage("final")) < MIN_RUNS:
        return _make_table(plan, place, "final", read_records(place.records))
    table = _update_table(plan, place, cache, changed=changed)
    write_cache(place, TableCache(table, fixed, workers), began=began)
    return table.drop(columns=RECORDED_BY)


def _update_table(plan: PlanFile, place: SweepFolder, cache: TableCache | None, *, changed: set[str]) -> pd.DataFrame:
    """The table with `RECORDED_BY`; rows that no changed worker has to do with are taken from the cache."""
    recorded, by = read_by_worker(place, changed)
    kept = pd.DataFrame()
    if cache is not None:
        former = cache.table[RECORDED_BY].str.split()
        touched = cache.table["run_id"].isin([*recorded]) | former.map(lambda own: not changed.isdisjoint(own))
        if others := {worker for own in former[touched] for worker in own} - changed:  # they recorded the same runs
            recorded, by = read_by_worker(place, changed | others)
        kept = cache.table[~touched]
    entries, known = plan.of_stage("final"), set(kept["run_id"]) if len(kept) else set()
    made = _make_table(plan, place, "final", recorded, without=known)
    made[RECORDED_BY] = [by.get(run_id, "") for run_id in made["run_id"]] if len(made) else []
    table = pd.concat([kept, made], ignore_index=True) if known else made
    order = {entry.run_id: number for number, entry in enumerate(entries)}
    table = table.iloc[table["run_id"].map(order).argsort()].reset_index(drop=True)
    return table.convert_dtypes().astype(NUMERIC_TYPES) if known else table


@pause_collection()
def load_trials(folder: str | Path) -> pd.DataFrame:
    """One row per trial, with the columns of `load_table`; empty for a sweep without tuning. Test figures are NA.

    `cell` is the cell whose hyperparameters the trial helps to select, `for_seed` the only final seed that it does so for (NA:
    all seeds of the cell); `selected` says whether the trial's levels were
    selected, NA before the selection.
    """
    place = SweepFolder(Path(folder))
    plan, selection = load_plan(place), read_selection(place)
    trials = plan.of_stage("trial")
    if not trials:
        return pd.DataFrame()
    table = _make_table(plan, place, "trial", read_records(place.records))
    table["cell"] = [planned.cell for planned in trials]
    table["for_seed"] = pd.array([planned.for_seed for planned in trials], dtype="Int64")
    chosen = table["run_id"].isin(selection.chosen_trials()) if selection else None
    return table.assign(selected=pd.Series(chosen, index=table.index, dtype="boolean"))


@pause_collection()
def load_curves(folder: str | Path, *, stage: Stage = "final") -> pd.DataFrame:
    """Learning curves of the newest plan's recorded runs, long: one row per run and epoch.

    Columns: run_id, epoch, then train_loss, val_accuracy, val_loss, lr, ...; what wasn't measured is NaN.
    """
    recorded = [record for record in _read_planned(folder, stage) if record.curves]
    if not recorded:
        return pd.DataFrame({"run_id": [], "epoch": [], "train_loss": [], "val_accuracy": [], "val_loss": []})
    epochs = [max(map(len, record.curves.values())) for record in recorded]
    columns: dict[str, list[Any]] = {
        "run_id": [record.run_id for record, n in zip(recorded, epochs, strict=True) for _ in range(n)]
    }
    for name in dict.fromkeys(name for record in recorded for name in record.curves):
        own = (record.curves.get(name, [None] * n) for record, n in zip(recorded, epochs, strict=True))
        columns[name] = list(itertools.chain.from_iterable(own))
    curves = pd.DataFrame(columns).sort_values(["run_id", "epoch"], ignore_index=True)
    return curves.astype({name: float for name in curves if name not in ("run_id", "epoch")})


@pause_collection()
def load_correctness(folder: str | Path, *, stage: Stage = "final") -> pd.DataFrame:
    """Which images the newest plan's finished runs classified correctly, one row per run and split that it was kept of.

    Columns: run_id, split (test, val), images (their number), correct (bytes, for `unpack_correctness`). Trials have no
    test images. Old records have none, nor have runs with `data.correctness: false`.
    """
    rows = []
    for record in _read_planned(folder, stage):
        for split, text in record.correct.items():
            images = record.run["data"][f"{split}_images"]
            rows.append((record.run_id, split, images, decode_correctness(text, images)))
    return pd.DataFrame(rows, columns=["run_id", "split", "images", "correct"])


def _read_planned(folder: str | Path, stage: Stage) -> list[Record]:
    """The records of the newest plan's runs of a stage, sorted by run id."""
    place = SweepFolder(Path(folder))
    planned = {entry.run_id for entry in load_plan(place).of_stage(stage)}
    if not planned:
        return []
    return [attempts.record for run_id, attempts in sorted(read_records(place.records).items()) if run_id in planned]


def _make_table(
    plan: PlanFile, place: SweepFolder, stage: Stage, recorded: Mapping[str, Attempts], *, without: Set[str] = frozenset()
) -> pd.DataFrame:
    """The rows of a stage's runs, but for those `without`."""
    benchmark, baselines = newest_benchmark(place.benchmarks), read_baselines(place.baselines)
    lost = compute_lost_seconds(place, recorded)
    columns: dict[str, list[Any]] = {}  # a quarter of the memory of rows
    planned_runs = [planned for planned in plan.of_stage(stage) if planned.run_id not in without]
    for number, planned in enumerate(planned_runs):
        attempts = recorded.get(planned.run_id)
        record = attempts.record if attempts else None
        provenance = record.provenance if record else {}
        options = planned.options if benchmark or baselines else None
        row = {
            "run_id": planned.run_id,
            "sweep": plan.facts.name,
            "status": record.status if record else "missing",
            "reason": record.reason if record else None,
            **planned_columns(planned),
            "recipe": plan.facts.recipe,
            **vars(record.result if record else Result()),
            **vars(record.measured if record else Measurements()),
            **benchmark_columns(benchmark, options),
            "baseline_accuracy": baselines.get(baseline_name(options.data)) if options else None,
            **{name: fingerprint_entry(record, name) for name in FINGERPRINT},
            **{name: provenance.get(name) for name in PROVENANCE},
            "attempts": attempts.count if attempts else 0,
            "lost_seconds": lost.get(planned.run_id),
        }
        for name in row:
            if name not in columns:
                columns[name] = [math.nan] * number
        for name, column in columns.items():
            column.append(row.get(name, math.nan))
    return pd.DataFrame(columns).convert_dtypes().astype(NUMERIC_TYPES) if columns else pd.DataFrame()


def fingerprint_entry(record: Record | None, name: str) -> Any:
    """An entry of a record's fingerprint, None if it wasn't recorded."""
    known = record.fingerprint if record else {}
    return known.get(name, known.get(_FORMER_NAMES.get(name, "")))
