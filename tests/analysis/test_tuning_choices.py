"""The choices of tuning agree with what pandas computes from the trials."""

from __future__ import annotations

from dataclasses import replace

import example_sweeps
import numpy as np
import pandas as pd
import pytest

from study.analysis.crossed import estimate_weighted_means
from study.analysis.findings import Findings
from study.analysis.protocol_check import check_protocol
from study.analysis.tuning_choices import read_choice_variances, select_best_candidates, summarize_candidates, summarize_choices
from study.rng import stream

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


def kept_correctness(trials: pd.DataFrame, *, difficulty: float = 3.0) -> pd.DataFrame:
    """Correctness on 400 validation images with each trial's accuracy: hard images are wrong first, those of a seed alike."""
    rows = []
    for trial in trials.to_dict("records"):
        rng = stream(int(trial["seed"]), "images")
        hard = difficulty * rng.normal(size=400) + stream(0, str(trial["run_id"])).normal(size=400)
        correct = np.argsort(np.argsort(hard)) < round(400 * trial["val_accuracy"])
        rows.append((trial["run_id"], "val", 400, np.packbits(correct).tobytes()))
    return pd.DataFrame(rows, columns=["run_id", "split", "images", "correct"])


def test_resampled_choices_come_from_the_trials_images() -> None:
    """Law: with correctness per image, another choice is rarer than with binomial images, which ignore what errors share.

    Fixed streams: the same numbers whatever the order of rows. Without the number of images nothing is known.
    """
    trials = example_sweeps.tuned().trials.assign(val_images=400, split="by_seed")
    kept = kept_correctness(trials)
    found = summarize_choices(trials, ["lr"], FACTORS, correctness=kept)
    binomial = summarize_choices(trials, ["lr"], FACTORS)
    assert found["another"].between(0, 1).all() and (found["choice_variance"] > 0).all()
    assert found["another"].mean() < binomial["another"].mean()
    again = summarize_choices(trials.iloc[::-1], ["lr"], FACTORS, correctness=kept.iloc[::-1]).iloc[::-1].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, found)
    unknown = summarize_choices(trials.drop(columns="val_images"), ["lr"], FACTORS)
    assert unknown["another"].isna().all() and read_choice_variances(unknown, FACTORS) == {}


def test_what_the_choice_adds_is_in_the_standard_errors() -> None:
    """Law: a difference of two cells has the variance over images and seeds plus that of both choices."""
    sweep = example_sweeps.tuned()
    trials = sweep.trials.assign(val_images=400, split="by_seed")
    study = replace(sweep.tables, trials=trials, correctness=kept_correctness(trials))
    (part,), (plain,) = Findings(study).parts, Findings(sweep.tables).parts
    assert isinstance(part.choices, pd.DataFrame)
    added = read_choice_variances(part.choices, FACTORS)
    weights = np.array([[1.0, -1.0, 0.0, 0.0]])
    found, before = (np.diag(estimate_weighted_means(each.grid, weights).covariance)[0] for each in (part, plain))
    assert found - before == pytest.approx(sum(added[cell] for cell in part.grid.cells[:2])) and found > before


def test_seeds_that_tune_for_themselves_are_shown_per_cell() -> None:
    """Law: one row per cell with the levels and how many seeds selected them; nothing is added to standard errors."""
    one = example_sweeps.tuned()
    trials = [
        one.trials.assign(
            for_seed=seed,
            val_images=400,
            cell=one.trials["cell"] + f"-s{seed}",
            run_id=one.trials["run_id"] + f"-{seed}",
            val_accuracy=one.trials["val_accuracy"] + (0.05 if seed == 2 else 0.0) * (one.trials["lr"] == 0.001),
        )
        for seed in (0, 1, 2)
    ]
    table = pd.concat(trials, ignore_index=True)
    means = table.groupby(["cell", "lr"])["val_accuracy"].transform("mean")
    table["selected"] = means == means.groupby(table["cell"]).transform("max")
    found = summarize_choices(table, ["lr"], FACTORS)
    by_backbone = found.set_index(FACTORS)["lr"].to_dict()
    assert by_backbone == {
        (patch, backbone): f"{first}, {other}"
        for patch in (2, 4)
        for backbone, first, other in (("vit", "0.0003 (2)", "0.001 (1)"), ("convmixer", "0.001 (1)", "0.003 (2)"))
    }
    assert set(found["tried"]) == {24} and read_choice_variances(found, FACTORS) == {}
    assert found.set_index(FACTORS)["edge"].to_dict() == {
        (p, b): ("lr",) if b == "vit" else () for p in (2, 4) for b in ("vit", "convmixer")
    }
    own = one.table.assign(lr=[0.001 if seed == 2 else lr for seed, lr in zip(one.table["seed"], one.table["lr"], strict=True)])
    (part,) = Findings(replace(one.tables, table=own, trials=table)).parts
    state = check_protocol(part.table, FACTORS, tuned_per_seed=part.tuned).set_index("aspect").loc["recipe"]
    assert state["state"] == "differs by design" and "learning rate: selected for each seed by itself" in state["detail"]


def test_seeds_that_tuned_an_option_away_are_shown() -> None:
    """Law: clipping that one seed selected and the other turned off is "1 (1), none (1)"."""
    rows = [
        {
            "run_id": f"{seed}-{clip}-{trial}",
            "cell": f"vit-s{seed}",
            "patch_size": 4,
            "backbone": "vit",
            "for_seed": seed,
            "grad_clip": clip,
            "seed": trial,
            "val_accuracy": 0.9 + 0.01 * ((clip is None) == bool(seed)),
            "val_images": 100,
            "status": "done",
            "selected": (clip is None) == bool(seed),
        }
        for seed in (0, 1)
        for clip in (None, 1.0)
        for trial in (100, 101)
    ]
    found = summarize_choices(pd.DataFrame(rows).convert_dtypes(), ["grad_clip"], FACTORS)
    assert list(found["grad_clip"]) == ["1 (1), none (1)"]
