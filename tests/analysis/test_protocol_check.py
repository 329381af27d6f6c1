"""The protocol check reports what the records show: equal, different by design, or deviating, with the deviating runs."""

import numpy as np
import pandas as pd
from simulated_study import metaformer, run_table

from study.analysis.protocol_check import check_protocol

AXES = ["patch_size", "token_mixer"]


def states(table: pd.DataFrame) -> pd.DataFrame:
    return check_protocol(table, AXES).set_index("aspect")


def recorded() -> pd.DataFrame:
    """A study in which everything outside the factors is equal."""
    return run_table(metaformer(), seeds=4).assign(
        epochs=10, lr=0.001, flip=True, stem="patchify", initialization="matched", norm="layer", dim=64, data_digest="ab12"
    )


def test_a_fair_study_is_equal_in_every_recorded_aspect() -> None:
    """Law: where only the factors vary, nothing deviates or differs, and the values are given."""
    found = states(recorded())
    assert set(found["state"]) == {"under study", "equal", "not recorded"}
    assert "learning rate 0.001" in found.loc["recipe", "detail"]
    assert found.loc["seeds, data order", "detail"] == "the same 4 seeds in each of 9 cells"
    assert found.loc["tuning trials", "state"] == "not recorded"


def test_entries_are_written_for_readers() -> None:
    """Law: yes and no are sentences, the way of splitting is explained, and counts have separators."""
    found = states(recorded().assign(dirty=False, exact=True, split="by_seed", train_images=1018))
    assert found.loc["software", "detail"].endswith("; no uncommitted changes")
    assert found.loc["exact resumption", "detail"] == "interrupted runs end as uninterrupted ones"
    assert "training images 1,018" in found.loc["data", "detail"]
    assert "validation images drawn by the seed" in found.loc["data", "detail"]


def test_an_option_that_follows_a_factor_differs_by_design() -> None:
    """Law: a learning rate per mixer is named with its levels, and is not a deviation."""
    rates = {"attention": 0.001, "depthwise_conv": 0.01, "identity": 0.01}
    table = recorded()
    found = states(table.assign(lr=table["token_mixer"].map(rates)))
    assert found.loc["recipe", "state"] == "differs by design"
    assert "learning rate by token mixer (attention: 0.001" in found.loc["recipe", "detail"]
    assert "epochs" not in found.loc["recipe", "detail"]


def test_widths_solved_per_cell_differ_by_design() -> None:
    """Law: a width that is a function of the cell belongs to the model's options."""
    table = recorded()
    found = states(table.assign(dim=table["patch_size"] * 10 + table["token_mixer"].str.len()))
    assert found.loc["model options", "state"] == "differs by design"
    assert "width by patch size and token mixer" in found.loc["model options", "detail"]


def test_a_run_that_differs_from_its_own_cell_is_named() -> None:
    """Law: the run on another device is the deviation, not the forty others."""
    table = recorded()
    table.loc[5, "device_name"] = "another cpu"
    found = states(table)
    assert found.loc["device", "state"] == "deviates"
    assert table.loc[5, "run_id"] in found.loc["device", "detail"]
    assert table.loc[6, "run_id"] not in found.loc["device", "detail"]


def test_cells_that_miss_their_budget_are_named() -> None:
    """Law: the largest mismatch is given, and beyond the tolerance its cell; unmatched studies are reported as such."""
    table = recorded()
    assert states(table).loc["budget", "detail"] == "parameters matched; largest mismatch 0.80 %"
    table.loc[table["patch_size"] == 4, "match_residual"] = -0.031
    found = states(table)
    assert found.loc["budget", "state"] == "deviates"
    assert "patch size 4, attention" in found.loc["budget", "detail"]
    assert "patch size 2" not in found.loc["budget", "detail"]
    assert states(table.assign(match_by="none", match_residual=np.nan)).loc["budget", "state"] == "differs by design"


def test_a_seed_that_a_cell_lacks_is_a_deviation() -> None:
    """Law: cells that finished different seeds are not paired."""
    table = recorded()
    table.loc[2, "status"] = "failed"
    found = states(table)
    assert found.loc["seeds, data order", "detail"] == "seeds not done: patch size 1, attention lacks 2"


def test_only_done_runs_are_checked() -> None:
    """Law: options of failed or missing runs are ignored."""
    table = recorded()
    table.loc[3, ["status", "lr"]] = ["failed", 0.5]
    assert states(table).loc["recipe", "state"] == "equal"


def test_options_that_a_backbone_lacks_do_not_count() -> None:
    """Law: NA means that the cell lacks the option; it is not another value."""
    table = recorded().assign(kernel_size=5.0).convert_dtypes()
    table.loc[table["token_mixer"] == "attention", "kernel_size"] = pd.NA
    assert states(table).loc["model options", "state"] == "equal"
