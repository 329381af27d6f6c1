"""The choices of tuning agree with what pandas computes from the trials."""

from __future__ import annotations

import example_sweeps
import pandas as pd
import pytest

from study.analysis.tuning_choices import select_best_candidates, summarize_candidates, summarize_choices

FACTORS = ["patch_size", "backbone"]


def test_the_choice_and_its_gap_are_those_of_the_means() -> None:
    """Law: accuracy is the mean over trial seeds of the chosen level, the gap that to the second best mean of the cell."""
    trials = example_sweeps.tuned().trials
    found = summarize_choices(trials, ["lr"], FACTORS)
    assert len(found) == 4
    for row in found.to_dict("records"):
        own = trials[(trials["backbone"] == row["backbone"]) & (trials["patch_size"] == row["patch_size"])]
        means = own.groupby("lr")["val_accuracy"].mean().sort_values(ascending=False)
        assert row["lr"] == means.index[0]
        assert row["accuracy"] == pytest.approx(means.iloc[0])
        assert row["gap"] == pytest.approx(means.iloc[0] - means.iloc[1])
        assert (row["candidates"], row["tried"], row["tied"]) == (4, 8, 0)


def test_a_choice_at_the_end_of_the_grid_is_named() -> None:
    """Law: the lowest learning rate tried is at the edge; an inner one is not; an option with one level has no edge."""
    trials = example_sweeps.tuned().trials
    found = summarize_choices(trials, ["lr", "weight_decay"], FACTORS).groupby("backbone")["edge"].agg(set).to_dict()
    assert found == {"convmixer": {()}, "vit": {("lr",)}}


def test_diverged_trials_rank_last_and_ties_are_counted() -> None:
    """Law: a candidate all of whose trials diverged has no accuracy; one of equal accuracy is a tie."""
    trials = example_sweeps.tuned().trials
    own = trials[trials["cell"] == "convmixer-p2"].reset_index(drop=True)
    own.loc[own["lr"] == 0.01, ["status", "val_accuracy"]] = ["diverged", pd.NA]
    own.loc[own["lr"].isin([0.001, 0.003]), "val_accuracy"] = 0.95
    own["selected"] = own["lr"] == 0.001
    (row,) = summarize_choices(own, ["lr"], FACTORS).to_dict("records")
    assert (row["tied"], row["gap"], row["diverged"]) == (1, 0.0, 2)
    found = summarize_candidates(own, ["lr"]).set_index("lr")
    assert pd.isna(found.loc[0.01, "accuracy"])
    assert found.loc[0.01, "diverged"] == 2


def test_each_level_keeps_its_best_candidate() -> None:
    """Law: over one of two tuned options, each level keeps the trials of its best mean over the other, and all seeds."""
    trials = example_sweeps.tuned(decays=(0.0, 0.02, 0.1)).trials
    kept = select_best_candidates(trials, ["lr", "weight_decay"], over="lr")
    means = trials.groupby(["cell", "lr", "weight_decay"])["val_accuracy"].mean().groupby(["cell", "lr"]).max()
    assert len(kept) == 2 * len(means)
    pd.testing.assert_series_equal(kept.groupby(["cell", "lr"])["val_accuracy"].mean(), means, check_names=False)
    assert select_best_candidates(trials, ["lr"], over="lr") is trials
