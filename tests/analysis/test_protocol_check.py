"""The fairness table tells what the records show: equal, different by design, or deviating, and who."""

import numpy as np
import pandas as pd
import pytest
from simulated_study import metaformer, run_table

from study.analysis.protocol_check import check_protocol, summarize_compute

AXES = ["patch_size", "token_mixer"]


def told(table: pd.DataFrame) -> pd.DataFrame:
    return check_protocol(table, AXES).set_index("aspect")


def recorded() -> pd.DataFrame:
    """A study in which everything outside the factors is equal."""
    return run_table(metaformer(), seeds=4).assign(
        epochs=10, lr=0.001, flip=True, stem="patchify", initialization="matched", norm="layer", dim=64, data_digest="ab12"
    )


def test_a_fair_study_is_equal_in_every_recorded_aspect() -> None:
    """Law: where only the factors vary, nothing deviates or differs, and the values are told."""
    found = told(recorded())
    assert set(found["state"]) == {"under study", "equal", "not recorded"}
    assert "learning rate 0.001" in found.loc["recipe", "told"]
    assert found.loc["seeds, data order", "told"] == "the same 4 seeds in each of 9 cells"
    assert found.loc["tuning trials", "state"] == "not recorded"


def test_an_option_that_follows_a_factor_differs_by_design() -> None:
    """Law: a learning rate per mixer is named with its levels, and isn't called a deviation."""
    rates = {"attention": 0.001, "depthwise_conv": 0.01, "identity": 0.01}
    table = recorded()
    found = told(table.assign(lr=table["token_mixer"].map(rates)))
    assert found.loc["recipe", "state"] == "differs by design"
    assert "learning rate by token mixer (attention: 0.001" in found.loc["recipe", "told"]
    assert "epochs" not in found.loc["recipe", "told"]


def test_widths_solved_per_cell_differ_by_design() -> None:
    """Law: a width that is a function of the cell belongs to the model's options."""
    table = recorded()
    found = told(table.assign(dim=table["patch_size"] * 10 + table["token_mixer"].str.len()))
    assert found.loc["model options", "state"] == "differs by design"
    assert "width by patch size and token mixer" in found.loc["model options", "told"]


def test_a_run_that_differs_from_its_own_cell_is_named() -> None:
    """Law: the run on another device is the deviation, not the forty others."""
    table = recorded()
    table.loc[5, "device_name"] = "another cpu"
    found = told(table)
    assert found.loc["device", "state"] == "deviates"
    assert table.loc[5, "run_id"] in found.loc["device", "told"]
    assert table.loc[6, "run_id"] not in found.loc["device", "told"]


def test_cells_off_their_budget_are_named() -> None:
    """Law: the largest mismatch is told, and beyond the tolerance its cell too; unmatched studies say so."""
    table = recorded()
    assert told(table).loc["budget", "told"] == "parameters matched; largest mismatch 0.80 %"
    table.loc[table["patch_size"] == 4, "match_residual"] = -0.031
    found = told(table)
    assert found.loc["budget", "state"] == "deviates"
    assert "patch size 4, attention" in found.loc["budget", "told"]
    assert "patch size 2" not in found.loc["budget", "told"]
    assert told(table.assign(match_by="none", match_residual=np.nan)).loc["budget", "state"] == "differs by design"


def test_a_seed_that_a_cell_lacks_is_a_deviation() -> None:
    """Law: pairing is broken where cells finished different seeds."""
    table = recorded()
    table.loc[2, "status"] = "failed"
    found = told(table)
    assert found.loc["seeds, data order", "told"] == "seeds not done: patch size 1, attention lacks 2"


def test_only_done_runs_speak() -> None:
    """Law: what a failed or missing run would have used is no evidence."""
    table = recorded()
    table.loc[3, ["status", "lr"]] = ["failed", 0.5]
    assert told(table).loc["recipe", "state"] == "equal"


def test_options_that_a_backbone_lacks_do_not_count() -> None:
    """Law: NA is "has no such option", not another value."""
    table = recorded().assign(kernel_size=5.0).convert_dtypes()
    table.loc[table["token_mixer"] == "attention", "kernel_size"] = pd.NA
    assert told(table).loc["model options", "state"] == "equal"


def test_hours_add_up_by_outcome() -> None:
    """Law: the hours of done and diverged runs are pandas' sums; missing runs cost nothing; NA is not 0."""
    table = recorded().convert_dtypes()
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


def test_backbones_and_devices_are_counted_apart() -> None:
    """Law: one row per backbone and device."""
    table = recorded()
    table.loc[:17, "backbone"] = "vit"
    table.loc[:3, "device_name"] = "a gpu"
    found = summarize_compute(table)
    assert list(zip(found["backbone"], found["device"], found["runs"], strict=True)) == [
        ("metaformer", "a cpu", 18),
        ("vit", "a cpu", 14),
        ("vit", "a gpu", 4),
    ]
