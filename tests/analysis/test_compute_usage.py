"""Compute used: hours and attempts by backbone and device are sums over the table."""

import pandas as pd
import pytest
from simulated_study import metaformer, run_table

from study.analysis.compute_usage import summarize_compute


def test_hours_are_summed_by_status() -> None:
    """Law: the hours of done and diverged runs are pandas' sums; missing runs are not counted; NA is not 0."""
    table = run_table(metaformer(), seeds=4).convert_dtypes()
    table.loc[0, "status"], table.loc[1, "status"], table.loc[2, "status"] = "diverged", "failed", "missing"
    table.loc[3, "train_seconds"] = pd.NA
    table.loc[4, "attempts"] = 3
    row = summarize_compute(table.assign(lost_seconds=36.0)).iloc[0]
    assert row["runs"] == 35
    assert row["diverged_hours"] == pytest.approx(10 / 3600)
    done = table[table["status"] == "done"]["train_seconds"].sum()
    assert row["done_hours"] == pytest.approx(done / 3600)
    assert row["lost_hours"] == pytest.approx(35 * 36 / 3600)
    assert (row["further_attempts"], row["untimed"]) == (2, 1)


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
