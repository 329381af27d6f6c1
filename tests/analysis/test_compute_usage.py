"""Compute used: hours and attempts by backbone and device are sums over the table."""

import numpy as np
import pandas as pd
import pytest
from simulated_study import metaformer, run_table

from study.analysis.compute_usage import summarize_compute


def test_hours_are_summed_by_status() -> None:
    """Law: the hours of done and diverged runs are pandas' sums; of missing runs only what they lost counts; NA is not 0."""
    table = run_table(metaformer(), seeds=4).convert_dtypes()
    table.loc[0, "status"], table.loc[1, "status"], table.loc[2, "status"] = "diverged", "failed", "missing"
    table.loc[3, "train_seconds"] = pd.NA
    table.loc[4, "attempts"] = 3
    row = summarize_compute(table.assign(lost_seconds=36.0)).iloc[0]
    assert row["runs"] == 35
    assert row["diverged_hours"] == pytest.approx(10 / 3600)
    done = table[table["status"] == "done"]["train_seconds"].sum()
    assert row["done_hours"] == pytest.approx(done / 3600)
    assert row["lost_hours"] == pytest.approx(36 * 36 / 3600)
    assert (row["further_attempts"], row["untimed"]) == (2, 1)


def test_runs_that_never_finished_count_what_they_lost() -> None:
    """Law: of two missing runs, of which one had crashed its worker, the hours are those lost, and there is no run."""
    table = run_table(metaformer(), seeds=4).assign(lost_seconds=0.0)
    table.loc[:1, ["status", "device_name", "train_seconds"]] = ["missing", pd.NA, np.nan]
    table.loc[0, "lost_seconds"] = 7200.0
    found = summarize_compute(table).set_index("device")
    assert (found.loc["a cpu", "runs"], found.loc["a cpu", "lost_hours"]) == (34, 0)
    assert found.loc["not recorded", ["runs", "lost_hours", "untimed", "further_attempts"]].tolist() == [0, 2, 0, 0]


def test_there_is_one_row_per_backbone_and_device() -> None:
    """Law: one row per backbone and device."""
    table = run_table(metaformer(), seeds=4)
    table.loc[:17, "backbone"] = "vit"
    table.loc[:3, "device_name"] = "a gpu"
    found = summarize_compute(table)
    assert list(zip(found["backbone"], found["device"], found["runs"], strict=True)) == [
        ("metaformer", "a cpu", 18),
        ("vit", "a cpu", 14),
        ("vit", "a gpu", 4),
    ]
