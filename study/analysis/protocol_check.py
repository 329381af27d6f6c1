"""Was everything equal but the factors? Read from the records of the runs, not from the sweep file.

Every column of the run table that is neither an identity nor a measurement belongs to one aspect of the protocol. Over the
done runs, each aspect is equal, differs by design (as a function of the factors), or deviates (differs within a cell, which
no design explains; the deviating runs are named).
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from study.analysis.cell_grid import CellLevels, Level, read_cells, read_grid, read_numbers, select_done, sort_key, to_level
from study.analysis.factor_layout import list_levels
from study.analysis.labels import format_cell, format_level, format_option, format_percent, format_setting, join_words
from study.analysis.pareto_front import COST_TOLERANCE
from study.config.options import AugmentOptions, TrainOptions

AspectState = Literal["under study", "equal", "differs by design", "deviates", "not recorded"]
_SEVERITY: tuple[AspectState, ...] = ("not recorded", "equal", "differs by design", "deviates")
_OF_DESIGN: AspectState = "differs by design"
_SHOWN_RUNS = 4
_DIGEST = re.compile("[0-9a-f]{16,}")

ASPECTS: Mapping[str, tuple[str, ...]] = {
    "data": (
        *("data_name", "data_set", "data_digest", "image_size", "train_images", "val_images", "test_images", "split"),
        *("num_classes", "channels"),
    ),
    "patch embedding": ("stem", "initialization"),
    "augmentation": tuple(AugmentOptions.model_fields),
    "recipe": ("recipe", *(name for name in TrainOptions.model_fields if name not in ("keep", "distributed"))),
    "device": ("device", "device_name", "threads"),
    "execution": ("ranks", "memory_layout", "kernels", "optimizer", "micro_batches", "stacked", "compiled", "deterministic"),
    "software": ("code", "commit", "dirty", "python_version", "torch_version", "numpy_version"),
    "exact resumption": ("exact",),
}
"""Columns by aspect; a column that is neither here nor measured is an option of the model."""

_IDENTITY = (
    *("run_id", "sweep", "stage", "status", "reason", "seed", "backbone", "launch", "task", "restart", "attempts", "tokens"),
    "trials",
)
# Measurements are recognized by their names, which contain what was measured or its unit.
_MEASURED_PREFIXES = (
    *("params", "macs", "match_", "benchmark_", "inference_", "val_", "test_", "train_", "diverged_", "baseline_"),
)
_MEASURED_SUFFIXES = ("_macs", "_params", "_elements", "_seconds", "_per_second", "_mib", "_version")

_PHRASES: Mapping[tuple[str, Level], str] = {
    ("split", "by_seed"): "validation images drawn by the seed",
    ("split", "fixed"): "the same validation images for all seeds",
    ("dirty", False): "no uncommitted changes",
    ("dirty", True): "uncommitted changes",
    ("exact", True): "interrupted runs end as uninterrupted ones",
    ("exact", False): "interrupted runs may end otherwise than uninterrupted ones",
}
"""Entries that need more words than their column and their level."""

_Row = tuple[str, AspectState, str]  # aspect, state, detail
_Finding = tuple[AspectState, str]  # state of one column, detail


def check_protocol(table: pd.DataFrame, factors: Sequence[str], *, tuned_per_seed: Sequence[str] = ()) -> pd.DataFrame:
    """One row per aspect of the protocol, with the columns `aspect`, `state` and `detail` (in words).

    Reads all columns of the run table; those that it lacks are "not recorded". `state` is one of `AspectState`. Population:
    none; a description of the done runs of this table. Budgets count as equal within the tolerance that the runs were
    matched with, or 2 % in older tables without that column. Options that each seed tuned for itself differ by design.
    """
    done = select_done(table)
    elsewhere = {*factors, *_IDENTITY, *(column for columns in ASPECTS.values() for column in columns)}
    model_options = [
        name
        for name in map(str, table.columns)
        if name not in elsewhere and not name.startswith(_MEASURED_PREFIXES) and not name.endswith(_MEASURED_SUFFIXES)
    ]
    levels = [f"{format_option(factor)} {join_words(map(format_level, list_levels(table, factor)))}" for factor in factors]
    rows: list[_Row] = [
        ("under study", "under study", "; ".join(levels)),
        _check_seeds(table, factors),
        _check_budget(done, factors),
        _check_trials(done, factors),
    ]
    for aspect, columns in {**ASPECTS, "model options": model_options}.items():
        present = [name for name in columns if name in table and name not in factors]
        own = [
            (_OF_DESIGN, f"{format_option(name)}: selected for each seed by itself")
            for name in present
            if name in tuned_per_seed
        ]
        others = [_check_column(done, name, factors) for name in present if name not in tuned_per_seed]
        rows.append(_summarize_aspect(aspect, own + others))
    return pd.DataFrame(rows, columns=["aspect", "state", "detail"])


def _check_seeds(table: pd.DataFrame, factors: Sequence[str]) -> _Row:
    """Whether every cell finished the same seeds, which makes the comparisons paired.

    Runs of one seed have the same data order and augmentation, provided that data and batch size are equal too.
    """
    grid = read_grid(table, factors)
    lacking = []
    for cell, row in zip(grid.cells, grid.status, strict=True):
        seeds = [str(seed) for seed, status in zip(grid.seeds, row, strict=True) if status != "done"]
        lacking += [f"{format_cell(grid.factors, cell)} lacks {', '.join(seeds)}"] if seeds else []
    if lacking:
        return "seeds, data order", "deviates", f"seeds not done: {'; '.join(lacking)}"
    return "seeds, data order", "equal", f"the same {len(grid.seeds)} seeds in each of {len(grid.cells)} cells"


def _check_budget(done: pd.DataFrame, factors: Sequence[str]) -> _Row:
    kinds = sorted(set(done["match_by"].dropna().astype(str))) if "match_by" in done else []
    if not kinds:
        return "budget", "not recorded", ""
    if kinds == ["none"]:
        return "budget", "differs by design", "nothing matched: width and depth as given in the sweep"
    residual = np.abs(read_numbers(done, "match_residual"))
    worst = float(pd.Series(residual).max())
    matched = f"{join_words(map(format_option, kinds))} matched; largest mismatch {format_percent(worst, digits=2)} %"
    allowed = read_numbers(done, "match_tolerance")
    allowed = np.where(np.isnan(allowed), COST_TOLERANCE, allowed)
    beyond = sorted(set(read_cells(done[residual > allowed], factors)), key=lambda cell: tuple(map(sort_key, cell)))
    if not beyond:
        return "budget", "equal", matched
    cells = join_words(format_cell(factors, cell) for cell in beyond)
    return "budget", "deviates", f"{matched}; beyond {format_percent(allowed.max())} %: {cells}"


def _check_trials(done: pd.DataFrame, factors: Sequence[str]) -> _Row:
    """Whether every cell had the same number of tuning trials; equal also where none had any."""
    if "trials" not in done or done.empty:
        return "tuning trials", "not recorded", ""
    if done["trials"].isna().all():
        return "tuning trials", "equal", "none: nothing was tuned for any cell"
    return _summarize_aspect("tuning trials", [_check_column(done.assign(trials=done["trials"].fillna(0)), "trials", factors)])


def _check_column(done: pd.DataFrame, column: str, factors: Sequence[str]) -> _Finding:
    """Whether a column is equal, a function of a factor or of the cell, or differs within a cell."""
    known = done[done[column].notna()]
    entries = [to_level(entry) for entry in known[column]]
    words = [_PHRASES.get((column, entry)) or format_entry(entry) for entry in entries]
    name = format_option(column)
    if not entries:
        return "not recorded", name
    levels = sorted(set(entries), key=sort_key)
    if len(levels) == 1:
        return "equal", words[0] if (column, levels[0]) in _PHRASES else f"{name} {words[0]}"
    for factor in factors:
        found = _map_cells(known, words, (factor,))
        if found is not None:
            values = ", ".join(f"{format_setting(factor, cell[0])}: {value}" for cell, value in found.items())
            return "differs by design", f"{name} by {format_option(factor)} ({values})"
    if _map_cells(known, words, factors) is not None:
        ends = f"{format_entry(levels[0])} to {format_entry(levels[-1])}"
        return "differs by design", f"{name} by {join_words(map(format_option, factors))} ({ends})"
    counts = Counter(words)
    usual = min(counts, key=lambda word: (-counts[word], word))
    others = sorted(f"{run} ({word})" for run, word in zip(known["run_id"], words, strict=True) if word != usual)
    more = f" and {len(others) - _SHOWN_RUNS} more" if len(others) > _SHOWN_RUNS else ""
    return "deviates", f"{name}: mostly {usual}, but {', '.join(others[:_SHOWN_RUNS])}{more}"


def _map_cells(rows: pd.DataFrame, words: Sequence[str], factors: Sequence[str]) -> dict[CellLevels, str] | None:
    """The word at each combination of levels, sorted, or None where rows of one combination differ."""
    found: dict[CellLevels, str] = {}
    for cell, word in zip(read_cells(rows, factors), words, strict=True):
        if found.setdefault(cell, word) != word:
            return None
    return dict(sorted(found.items(), key=lambda item: tuple(map(sort_key, item[0]))))


def _summarize_aspect(aspect: str, findings: Sequence[_Finding]) -> _Row:
    """The most severe state of the aspect's columns, with the details of the columns in that state."""
    state = max((state for state, _ in findings), key=_SEVERITY.index, default=_SEVERITY[0])
    return aspect, state, "; ".join(detail for own, detail in findings if own == state)


def format_entry(entry: Level) -> str:
    """An entry in words; strings as they are, digests shortened to ten digits."""
    if isinstance(entry, str):
        return entry[:10] if _DIGEST.fullmatch(entry) else entry
    return format_level(entry)
