"""What stands behind a report: how many runs of how many, on what, with which versions and code; and what is missing.

All of it is read from the run table, so it is true of the runs and not of the machine that draws the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from study.analysis import labels
from study.analysis.cell_grid import to_level
from study.analysis.findings import Findings

STATUSES = ("done", "diverged", "failed", "missing")
NAMED = 8
"""So many runs are named in the first line; the rest is counted."""


@dataclass(frozen=True)
class Fact:
    """One line of the provenance."""

    name: str
    value: str


def standing(findings: Findings) -> str:
    """The first line of an unfinished study: how many of how many runs it shows, and which are missing; else ""."""
    table = findings.table
    if table.empty:
        return "No runs: the study plans none, so there is nothing to show."
    if not findings.unfinished:
        return ""
    shown = findings.count("done") + findings.count("diverged")
    told = [
        f"{findings.count(status)} {status} ({named_runs(table, status)})"
        for status in ("failed", "missing")
        if findings.count(status)
    ]
    return f"Provisional: shows {shown} of {len(table)} runs; {'; '.join(told)}."


def named_runs(table: pd.DataFrame, status: str) -> str:
    """The first runs with the status by name, the others counted."""
    names = [str(name) for name in table.loc[table["status"] == status, "run_id"]]
    more = [f"and {len(names) - NAMED} more"] if len(names) > NAMED else []
    return ", ".join([*names[:NAMED], *more])


def troubled(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Run, status and reason of every run that has no accuracy though it was tried, and of those still missing."""
    if table.empty:
        return []
    rows = table[table["status"] != "done"]
    reasons = rows["reason"] if "reason" in rows else pd.Series("", index=rows.index)
    return [(str(i), str(s), str(to_level(r) or "")) for i, s, r in zip(rows["run_id"], rows["status"], reasons, strict=True)]


def facts(findings: Findings) -> list[Fact]:
    """The lines of the provenance, without those that the table knows nothing about."""
    table, study = findings.table, findings.study.facts
    if table.empty:
        return []
    counts = ", ".join(f"{findings.count(status)} {status}" for status in STATUSES if findings.count(status))
    seeds = ", ".join(str(seed) for seed in sorted({int(seed) for seed in table["seed"]}))
    found = [
        Fact("runs", f"{len(table)} planned: {counts}"),
        Fact("seeds", seeds),
        Fact("data", data_text(table)),
        Fact("recipe", recipe_text(table)),
        Fact("budget", budget_text(table)),
        Fact("device", listed(table, ["device_name", "device"])),
        Fact("training time", training_time(table)),
        Fact("versions", versions(table)),
        Fact("commit", commits(table)),
        Fact("overrides", " ".join(study.overrides)),
    ]
    return [fact for fact in found if fact.value]


def values(table: pd.DataFrame, column: str) -> list[str]:
    """The different entries of a column in words, those that are missing left out."""
    if column not in table:
        return []
    return sorted({labels.format_level(to_level(entry)) for entry in table[column].dropna()})


def listed(table: pd.DataFrame, columns: Sequence[str]) -> str:
    """The entries of the first column that has any."""
    return next((labels.join_words(found) for name in columns if (found := values(table, name))), "")


def data_text(table: pd.DataFrame) -> str:
    """Data set, image size and splits."""
    sizes = [
        f"{labels.join_words(found)} {word}"
        for column, word in (("train_images", "training"), ("val_images", "validation"), ("test_images", "test"))
        if (found := values(table, column))
    ]
    pixels = [f"{labels.join_words(found)} px" for found in [values(table, "image_size")] if found]
    splits = [f"{', '.join(sizes)} images"] if sizes else []
    return ", ".join([*(part for part in [listed(table, ["data_name"])] if part), *pixels, *splits])


def recipe_text(table: pd.DataFrame) -> str:
    """The options of training that a reader asks for first."""
    names = ("epochs", "batch_size", "lr", "weight_decay", "schedule", "precision")
    return ", ".join(
        f"{labels.format_option(name)} {labels.join_words(found)}" for name in names if (found := values(table, name))
    )


def budget_text(table: pd.DataFrame) -> str:
    """What the networks were made equal in, and how closely."""
    ways = values(table, "match_by")
    residual = pd.to_numeric(table.get("match_residual", pd.Series(dtype=float)), errors="coerce").abs().max()
    if not ways or ways == ["none"]:
        return "not matched" if ways else ""
    closest = f", within {labels.format_percent(float(residual))} %" if residual == residual else ""
    return f"{labels.join_words(ways)}{closest}"


def training_time(table: pd.DataFrame) -> str:
    """Seconds of all recorded runs together."""
    seconds = pd.to_numeric(table.get("train_seconds", pd.Series(dtype=float)), errors="coerce").dropna()
    return f"{labels.format_duration(float(seconds.sum()))} in {len(seconds)} runs" if len(seconds) else ""


def versions(table: pd.DataFrame) -> str:
    """Versions of what trained the runs."""
    names = [str(name) for name in table.columns if str(name).endswith("_version")]
    told = [f"{name.removesuffix('_version')} {labels.join_words(found)}" for name in names if (found := values(table, name))]
    return ", ".join(told)


def commits(table: pd.DataFrame) -> str:
    """The code's commits, and whether the tree was changed."""
    names = values(table, "commit")
    if not names:
        return "unknown"
    changed = "dirty" in table and bool(table["dirty"].fillna(False).astype(bool).any())
    return labels.join_words([name[:12] for name in names]) + (" with uncommitted changes" if changed else "")
