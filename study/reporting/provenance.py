"""The basis of a report: how many runs of how many, on what data and device, with which versions and code; what is missing.

All of it is read from the run table, so it describes the runs and not the machine that draws the report.
"""

import numpy as np
import pandas as pd

from study.analysis import labels
from study.analysis.cell_grid import read_numbers, to_level
from study.analysis.findings import Findings

_STATUSES = ("done", "diverged", "failed", "missing")
_RECIPE = ("epochs", "batch_size", "lr", "weight_decay", "schedule", "precision")
_NAMED_RUNS = 8
"""The first line names this many runs of each status and counts the rest."""


def describe_progress(findings: Findings) -> str:
    """The first line of an unfinished study: how many of how many runs it shows, and which are missing; else ""."""
    table = findings.table
    if table.empty:
        return "No runs: the study plans none, so there is nothing to show."
    if not findings.unfinished:
        return ""
    shown = findings.count("done") + findings.count("diverged")
    lacking = []
    for status in ("failed", "missing"):
        names = [str(name) for name in table.loc[table["status"] == status, "run_id"]]
        more = [f"and {len(names) - _NAMED_RUNS} more"] if len(names) > _NAMED_RUNS else []
        if names:
            lacking.append(f"{len(names)} {status} ({', '.join([*names[:_NAMED_RUNS], *more])})")
    return f"Provisional: shows {shown} of {len(table)} runs; {'; '.join(lacking)}."


def list_facts(findings: Findings) -> dict[str, str]:
    """The lines of the provenance, without those that the table has no data for."""
    table, study = findings.table, findings.study.facts
    if table.empty:
        return {}
    counts = ", ".join(f"{findings.count(status)} {status}" for status in _STATUSES if findings.count(status))
    versions = [str(name) for name in table.columns if str(name).endswith("_version")]
    facts = {
        "runs": f"{len(table)} planned: {counts}",
        "seeds": ", ".join(str(seed) for seed in sorted({int(seed) for seed in table["seed"]})),
        "looks": _describe_looks(findings),
        "data": _describe_data(table),
        "recipe": ", ".join(
            f"{labels.format_option(name)} {found}" for name in _RECIPE if (found := _join_values(table, name))
        ),
        "budget": _describe_budget(table),
        "device": _join_values(table, "device_name") or _join_values(table, "device"),
        "training time": _describe_training_time(table),
        "versions": ", ".join(f"{name[:-8]} {values}" for name in versions if (values := _join_values(table, name))),
        "commit": _describe_commits(table),
        "plug-ins": "; ".join(sorted(set(table["plugins"].dropna()))) if "plugins" in table else "",
        "overrides": " ".join(study.overrides),
    }
    return {name: value for name, value in facts.items() if value}


def _describe_looks(findings: Findings) -> str:
    """Where seeds come in stages, which look is shown, and what is spent of the level of its primary contrasts."""
    found = []
    for part in findings.parts:
        if look := part.look:
            place = f" {part.title}" if part.title else ""
            sizes = f"with {labels.join_words(map(str, look.sizes))} seeds"
            found.append(f"{look.name}{place} ({sizes}; {labels.format_small_percent(look.spent)} of 5 % is spent so far)")
    return "; ".join(dict.fromkeys(found))


def list_data_files(findings: Findings) -> list[str]:
    """The files of the report's folder from which everything is computed."""
    study = findings.study
    trials = ["trials.csv"] if len(study.trials) else []
    correctness = ["correctness.parquet"] if len(study.correctness) else []
    probes = ["probes.parquet"] if len(study.probes) else []
    predictions = ["predictions.parquet"] if len(study.predictions) else []
    return ["runs.csv", *trials, "curves.parquet", *correctness, *probes, *predictions, "study.json"]


def _list_values(table: pd.DataFrame, column: str) -> list[str]:
    return sorted({labels.format_level(to_level(entry)) for entry in table[column].dropna()}) if column in table else []


def _join_values(table: pd.DataFrame, column: str) -> str:
    """The distinct entries of a column in words: "a, b and c"; "" where there are none."""
    return labels.join_words(_list_values(table, column)) if _list_values(table, column) else ""


def _describe_data(table: pd.DataFrame) -> str:
    splits = {"train_images": "training", "val_images": "validation", "test_images": "test"}
    sizes = [f"{found} {word}" for column, word in splits.items() if (found := _join_values(table, column))]
    pixels = _join_values(table, "image_size")
    names = _join_values(table, "data_set" if "data_set" in table else "data_name")
    parts = (names, pixels and f"{pixels} px", sizes and f"{', '.join(sizes)} images")
    return ", ".join(str(part) for part in parts if part)


def _describe_budget(table: pd.DataFrame) -> str:
    ways = _list_values(table, "match_by")
    if not ways or ways == ["none"]:
        return "not matched" if ways else ""
    errors = np.abs(read_numbers(table, "match_residual"))
    closest = "" if np.isnan(errors).all() else f", within {labels.format_percent(float(np.nanmax(errors)))} %"
    return f"{labels.join_words(ways)}{closest}"


def _describe_training_time(table: pd.DataFrame) -> str:
    seconds = read_numbers(table, "train_seconds")
    known = np.count_nonzero(~np.isnan(seconds))
    return f"{labels.format_duration(float(np.nansum(seconds)))} in {known} runs" if known else ""


def _describe_commits(table: pd.DataFrame) -> str:
    names = _list_values(table, "commit")
    if not names:
        return "unknown"
    changed = "dirty" in table and bool(table["dirty"].fillna(False).astype(bool).any())
    return labels.join_words([name[:12] for name in names]) + (" with uncommitted changes" if changed else "")
