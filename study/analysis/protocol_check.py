"""Was the comparison fair? Read from what the runs recorded, not from what the sweep intended.

Every column of the run table that is neither an identity nor a measurement belongs to one aspect of the protocol. For
each aspect stands whether the done runs agreed in it, differed from cell to cell (by design, and then in what), or
deviated within a cell, which no design explains, and who deviates. Then what the comparison cost, by backbone.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from study.analysis.cell_grid import CellLevels, read_grid, sort_key, to_level
from study.analysis.cell_means import describe_cell
from study.analysis.labels import format_level, format_option, format_percent, format_setting, join_words
from study.analysis.pareto_front import COST_TOLERANCE
from study.config.options import AugmentOptions, TrainOptions

AspectState = Literal["under study", "equal", "differs by design", "deviates", "not recorded"]
SEVERITY: tuple[AspectState, ...] = ("not recorded", "equal", "differs by design", "deviates")
_SHOWN_RUNS = 4
DIGEST = re.compile("[0-9a-f]{16,}")

ASPECTS: Mapping[str, tuple[str, ...]] = {
    "data": ("data_name", "data_digest", "image_size", "train_images", "val_images", "test_images", "num_classes", "channels"),
    "patch embedding": ("stem", "initialization"),
    "augmentation": tuple(AugmentOptions.model_fields),
    "recipe": ("recipe", *(name for name in TrainOptions.model_fields if name not in ("keep", "distributed"))),
    "device": ("device", "device_name", "threads"),
    "execution": ("ranks", "memory_layout", "kernels", "optimizer", "micro_batches", "stacked", "compiled", "deterministic"),
    "software": ("code", "commit", "dirty", "python_version", "torch_version", "numpy_version"),
    "exact resumption": ("exact",),
}
"""Columns by aspect; what is named nowhere here and isn't measured is an option of the model."""

IDENTITY = (
    "run_id",
    "sweep",
    "stage",
    "status",
    "reason",
    "seed",
    "backbone",
    "launch",
    "task",
    "restart",
    "attempts",
    "tokens",
)
MEASURED_BEGINNINGS = (
    "params",
    "macs",
    "match_",
    "benchmark_",
    "inference_",
    "val_",
    "test_",
    "train_",
    "diverged_",
    "baseline_",
)
MEASURED_ENDINGS = ("_macs", "_params", "_elements", "_seconds", "_per_second", "_mib", "_version")
"""Measurements are known by their names, which carry what was measured or its unit."""


@dataclass(frozen=True)
class ColumnFinding:
    """What one column did over the done runs."""

    column: str
    state: AspectState
    detail: str


def check_protocol(table: pd.DataFrame, factors: Sequence[str]) -> pd.DataFrame:
    """One row per aspect of the protocol: its state, what held or varied, and which runs deviate.

    Population: none; it is a statement about the done runs of this table. Budgets count as equal within the tolerance that
    the runs were matched with, or 2 % where older tables don't tell it.
    """
    done = table[(table["status"] == "done").to_numpy(dtype=bool)]
    model = tuple(str(name) for name in table.columns if is_model_option(str(name), factors))
    rows = [under_study(table, factors), seeds_row(table, factors), budget_row(done, factors), tuning_row(done, factors)]
    for aspect, columns in {**ASPECTS, "model options": model}.items():
        present = [name for name in columns if name in table and name not in factors]
        rows.append(aspect_row(aspect, [finding(done, name, factors) for name in present]))
    return pd.DataFrame(rows, columns=["aspect", "state", "told"])


def is_model_option(name: str, factors: Sequence[str]) -> bool:
    """Whether a column is an option of the model: neither measured nor of another aspect nor under study."""
    elsewhere = {*factors, *IDENTITY, "trials", *(column for columns in ASPECTS.values() for column in columns)}
    return name not in elsewhere and not name.startswith(MEASURED_BEGINNINGS) and not name.endswith(MEASURED_ENDINGS)


def under_study(table: pd.DataFrame, factors: Sequence[str]) -> tuple[str, AspectState, str]:
    """What was varied on purpose."""
    grid = read_grid(table, factors)
    named = [
        f"{format_option(factor)} {join_words(format_level(value) for value in grid.levels(factor))}" for factor in factors
    ]
    return "under study", "under study", "; ".join(named)


def seeds_row(table: pd.DataFrame, factors: Sequence[str]) -> tuple[str, AspectState, str]:
    """Whether every cell finished the same seeds, which is what makes the comparisons paired.

    Runs of one seed see the same data order and augmentation, provided that data and batch size are equal too.
    """
    grid = read_grid(table, factors)
    lacking = []
    for cell, row in zip(grid.cells, grid.status, strict=True):
        seeds = [str(seed) for seed, status in zip(grid.seeds, row, strict=True) if status != "done"]
        lacking += [f"{describe_cell(grid.factors, cell)} lacks {', '.join(seeds)}"] if seeds else []
    if not lacking:
        return "seeds, data order", "equal", f"the same {len(grid.seeds)} seeds in each of {len(grid.cells)} cells"
    return "seeds, data order", "deviates", f"seeds not done: {'; '.join(lacking)}"


def budget_row(done: pd.DataFrame, factors: Sequence[str]) -> tuple[str, AspectState, str]:
    """How closely the cells were matched, and who was not."""
    if "match_by" not in done or done["match_by"].dropna().empty:
        return "budget", "not recorded", ""
    kinds = sorted({str(kind) for kind in done["match_by"].dropna()})
    if kinds == ["none"]:
        return "budget", "differs by design", "nothing matched: width and depth as the sweep gives them"
    residual = pd.to_numeric(done["match_residual"], errors="coerce").abs().to_numpy(dtype=float, na_value=float("nan"))
    worst = float(pd.Series(residual).max())
    head = f"{join_words(format_option(kind) for kind in kinds)} matched; largest mismatch {format_percent(worst, digits=2)} %"
    known = done.get("match_tolerance", pd.Series(float("nan"), index=done.index))
    allowed = pd.to_numeric(known, errors="coerce").astype("Float64").fillna(COST_TOLERANCE).to_numpy(dtype=float)
    beyond = done[residual > allowed]
    if beyond.empty:
        return "budget", "equal", head
    return "budget", "deviates", f"{head}; beyond {format_percent(allowed.max())} %: {join_words(labels(beyond, factors))}"


def tuning_row(done: pd.DataFrame, factors: Sequence[str]) -> tuple[str, AspectState, str]:
    """Whether every cell had the same number of trials for its tuned options; equal also where none had any."""
    if "trials" not in done or done.empty:
        return "tuning trials", "not recorded", ""
    if done["trials"].isna().all():
        return "tuning trials", "equal", "none: nothing was tuned for any cell"
    return aspect_row("tuning trials", [finding(done.assign(trials=done["trials"].fillna(0)), "trials", factors)])


def finding(done: pd.DataFrame, column: str, factors: Sequence[str]) -> ColumnFinding:
    """What the column did: equal, a function of a factor or of the cell, or different within a cell."""
    rows = [row for row in done[[*factors, column, "run_id"]].to_dict("records") if entry_words(row[column]) is not None]
    values = sorted({to_level(row[column]) for row in rows}, key=sort_key)
    if not values:
        return ColumnFinding(column, "not recorded", format_option(column))
    if len(values) == 1:
        return ColumnFinding(column, "equal", f"{format_option(column)} {entry_words(values[0])}")
    for factor in factors:
        found = value_by(rows, column, (factor,))
        if found is not None:
            told = ", ".join(f"{format_setting(factor, cell[0])}: {value}" for cell, value in found.items())
            return ColumnFinding(column, "differs by design", f"{format_option(column)} by {format_option(factor)} ({told})")
    if value_by(rows, column, factors) is not None:
        names = join_words(format_option(factor) for factor in factors)
        ends = f"{entry_words(values[0])} to {entry_words(values[-1])}"
        return ColumnFinding(column, "differs by design", f"{format_option(column)} by {names} ({ends})")
    return ColumnFinding(column, "deviates", deviation(rows, column))


def value_by(rows: Sequence[Mapping[Hashable, Any]], column: str, factors: Sequence[str]) -> dict[CellLevels, str] | None:
    """The column's value at each level, or None where runs of one level differ in it."""
    found: dict[CellLevels, str] = {}
    for row in rows:
        key = tuple(to_level(row[factor]) for factor in factors)
        if found.setdefault(key, entry_words(row[column]) or "") != entry_words(row[column]):
            return None
    return dict(sorted(found.items(), key=lambda item: tuple(map(sort_key, item[0]))))


def deviation(rows: Sequence[Mapping[Hashable, Any]], column: str) -> str:
    """The most frequent value and the runs that have another."""
    values = pd.Series([entry_words(row[column]) for row in rows])
    usual = sorted(values.mode())[0]
    others = [f"{row['run_id']} ({value})" for row, value in zip(rows, values, strict=True) if value != usual]
    shown = ", ".join(sorted(others)[:_SHOWN_RUNS])
    more = f" and {len(others) - _SHOWN_RUNS} more" if len(others) > _SHOWN_RUNS else ""
    return f"{format_option(column)}: mostly {usual}, but {shown}{more}"


def aspect_row(aspect: str, findings: Sequence[ColumnFinding]) -> tuple[str, AspectState, str]:
    """An aspect is as good as the worst of its columns, and tells about those; equal columns are told by value."""
    if not findings:
        return aspect, "not recorded", ""
    state = max((found.state for found in findings), key=SEVERITY.index)
    return aspect, state, "; ".join(found.detail for found in findings if found.state == state)


def summarize_compute(table: pd.DataFrame, trials: pd.DataFrame | None = None) -> pd.DataFrame:
    """Device-hours by backbone and device: of done runs, of diverged ones, of trials, and lost to failures and restarts.

    Population: none; sums over the runs of these tables. Time that was not recorded is not counted: `untimed` says for how
    many runs and trials that is so, and a sum of which nothing was recorded is NaN. `further_attempts` are those after a
    run's first.
    """
    stages = [_stage_costs(table, "final"), *([_stage_costs(trials, "trial")] if trials is not None and len(trials) else [])]
    rows = pd.concat(stages, ignore_index=True)
    spent = [
        {"backbone": backbone, "device": device, **spending(own)}
        for (backbone, device), own in rows[rows["status"] != "missing"].groupby(["backbone", "device"])
    ]
    return pd.DataFrame(spent, columns=["backbone", "device", *spending(rows.iloc[:0])])


def _stage_costs(table: pd.DataFrame, stage: str) -> pd.DataFrame:
    """What the runs of one stage cost, in columns of equal types for all stages."""
    devices = table["device_name"] if "device_name" in table else [None] * len(table)
    return pd.DataFrame(
        {
            "stage": stage,
            "backbone": [str(name) for name in table["backbone"]],
            "device": [entry_words(name) or "not recorded" for name in devices],
            "status": [str(status) for status in table["status"]],
            "seconds": seconds(table, "train_seconds").to_numpy(),
            "lost": seconds(table, "lost_seconds").to_numpy(),
            "attempts": seconds(table, "attempts").to_numpy(),
        }
    )


def spending(own: pd.DataFrame) -> dict[str, float | int]:
    """Runs and device-hours of some rows."""
    trial = own["stage"] == "trial"
    final = own[~trial]
    return {
        "runs": len(final),
        **{f"{status}_hours": hours(final["seconds"][final["status"] == status]) for status in ("done", "diverged")},
        "trials": int(trial.sum()),
        "trial_hours": hours(own["seconds"][trial]),
        "lost_hours": hours(own["lost"]),
        "further_attempts": int((own["attempts"] - 1).clip(lower=0).sum()),
        "untimed": int((own["seconds"].isna() & (own["status"] != "failed")).sum()),
    }


def hours(recorded: pd.Series[float]) -> float:
    """The hours of some runs; 0 of no run, NaN of runs of which none has a time."""
    return float(recorded.sum(min_count=min(len(recorded), 1))) / 3600


def seconds(table: pd.DataFrame, column: str) -> pd.Series[float]:
    """A numeric column as floats, NaN throughout where the table hasn't got it."""
    if column not in table:
        return pd.Series(float("nan"), index=table.index)
    return pd.to_numeric(table[column], errors="coerce").astype("Float64").astype(float)


def labels(rows: pd.DataFrame, factors: Sequence[str]) -> list[str]:
    """The cells of some rows in words, each once."""
    cells = {tuple(to_level(row[factor]) for factor in factors) for row in rows.to_dict("records")}
    return [describe_cell(factors, cell) for cell in sorted(cells, key=lambda cell: tuple(map(sort_key, cell)))]


def entry_words(entry: object) -> str | None:
    """An entry in words, digests cut short, None for every kind of missing."""
    value = to_level(entry)
    if value is None:
        return None
    return (
        value[:10]
        if isinstance(value, str) and DIGEST.fullmatch(value)
        else value
        if isinstance(value, str)
        else format_level(value)
    )
