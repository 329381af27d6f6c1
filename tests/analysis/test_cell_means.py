"""Means of cells: which runs are counted; intervals agree with pandas, scipy and statsmodels."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from simulated_study import Truth, correctness_grid, draw_correctness, metaformer, run_table
from statsmodels.stats.proportion import proportion_confint

from study.analysis.cell_grid import Grid, read_grid
from study.analysis.cell_means import summarize_cells
from study.errors import UserError
from study.rng import stream

BY = ["patch_size", "token_mixer"]


def test_means_and_t_intervals_are_those_of_pandas_and_scipy() -> None:
    """Law: mean, sd, n and interval of a cell are recomputed from its runs alone."""
    table = run_table(metaformer(), seeds=6)
    found = summarize_cells(read_grid(table, BY)).set_index(BY)
    for key, runs in table.groupby(BY)["test_accuracy"]:
        row = found.loc[key]
        low, high = stats.t.interval(0.95, 5, loc=runs.mean(), scale=stats.sem(runs))
        assert (row["n"], row["mean"], row["sd"]) == (6, pytest.approx(runs.mean()), pytest.approx(runs.std(ddof=1)))
        assert (row["low"], row["high"]) == (pytest.approx(low), pytest.approx(high))


def perfect_grid(*, wrong: int = 0) -> Grid:
    """Two cells over three seeds and 500 images; every run errs on the first `wrong` images."""
    table = run_table(Truth({"patch_size": [1, 2]}, np.ones(2)), seeds=3)
    correct = np.broadcast_to(np.arange(500) >= wrong, (2, 3, 500))
    return replace(read_grid(table, ["patch_size"]), correct=correct)


def test_with_correctness_the_interval_is_wilsons() -> None:
    """Law: where all seeds agree the images are the only source of variance, and the interval is nearly statsmodels' Wilson."""
    row = summarize_cells(perfect_grid(wrong=20)).iloc[0]
    low, high = proportion_confint(480, 500, method="wilson")
    assert (row["mean"], row["images"]) == (0.96, 500) and row["seed_share"] < 1e-9
    assert (row["low"], row["high"]) == (pytest.approx(low, abs=2e-4), pytest.approx(high, abs=2e-4))


def test_a_cell_without_errors_has_an_interval_over_images_alone() -> None:
    """Law: at accuracy 1 Wilson's interval has a width; equal runs give no interval over seeds but the reason."""
    row = summarize_cells(perfect_grid()).iloc[0]
    assert (row["low"], row["high"]) == (pytest.approx(500 / (500 + 1.96**2), abs=1e-4), pytest.approx(1.0))
    assert row["note"] == ""
    found = summarize_cells(read_grid(run_table(metaformer()).assign(test_accuracy=1.0), BY))
    assert found["low"].isna().all()
    assert found["note"].str.contains("same value").all()


def test_the_interval_with_correctness_covers_the_expected_accuracy() -> None:
    """Law: with new seeds, new images and difficulties of images per cell, near the ceiling and far from it."""
    for accuracy in (0.985, 0.7):
        found = draw_correctness(stream(0, "cells"), studies=100, seeds=5, images=360, accuracy=accuracy)
        cells = pd.concat(summarize_cells(correctness_grid(study)) for study in found)
        covered = ((cells["low"] <= accuracy) & (accuracy <= cells["high"])).mean()
        assert covered >= 0.93 - 2 * np.sqrt(0.93 * 0.07 / 200)


@pytest.mark.parametrize(("seeds", "said"), [(1, "1 seed,"), (2, "2 seeds,")])
def test_under_three_seeds_there_is_no_interval_but_a_reason(seeds: int, said: str) -> None:
    """Law: fewer than three seeds give a mean, no interval, and the reason."""
    found = summarize_cells(read_grid(run_table(metaformer(), seeds=seeds), BY))
    assert found["mean"].notna().all()
    assert found[["low", "high"]].isna().all().all()
    assert found["note"].str.contains(said).all()


def test_runs_without_an_accuracy_are_counted_by_status() -> None:
    """Law: planned = done + diverged + failed + missing, and only done runs enter the mean."""
    table = run_table(metaformer(), seeds=5)
    table.loc[[0, 1], "status"] = ["diverged", "failed"]
    table.loc[2, ["status", "test_accuracy"]] = ["missing", np.nan]
    first = summarize_cells(read_grid(table, BY)).iloc[0]
    assert first[["planned", "done", "diverged", "failed", "missing", "n"]].tolist() == [5, 2, 1, 1, 1, 2]
    assert first["mean"] == pytest.approx(table.loc[[3, 4], "test_accuracy"].mean())
    assert first["worst"] == pytest.approx(
        (table.loc[[3, 4], "test_accuracy"].sum() + 0.1) / 3
    )  # failed and missing runs are not outcomes


def test_diverged_runs_bound_the_mean_between_chance_and_the_best_run_of_the_cell() -> None:
    """Law: worst and best are the means with chance and with the cell's best accuracy in place of the diverged run."""
    table = run_table(metaformer(), seeds=5)
    table.loc[0, "status"] = "diverged"
    own = table.loc[1:4, "test_accuracy"]
    first = summarize_cells(read_grid(table, BY)).iloc[0]
    assert first["worst"] == pytest.approx((own.sum() + 0.1) / 5)
    assert first["best"] == pytest.approx((own.sum() + own.max()) / 5)


def test_a_cell_of_diverged_runs_alone_stays_in_the_table() -> None:
    """Law: an outcome is never omitted; such a cell has bounds and no mean."""
    table = run_table(metaformer(), seeds=3)
    table.loc[:2, "status"] = "diverged"
    first = summarize_cells(read_grid(table, BY)).iloc[0]
    assert first["planned"] == first["diverged"] == 3
    assert np.isnan(first["mean"])
    assert first["worst"] == pytest.approx(0.1)
    assert first["best"] == pytest.approx(table["test_accuracy"][3:].max())


def test_a_factor_that_is_not_named_is_an_error_that_names_it() -> None:
    """Law: two runs of one cell and seed are never averaged; the error names the option in which they differ."""
    with pytest.raises(UserError, match="token_mixer"):
        read_grid(run_table(metaformer()), ["patch_size"])


def test_a_misspelled_factor_is_reported_with_the_nearest_column() -> None:
    """Law: an unknown column is a user error that names the nearest match."""
    with pytest.raises(UserError, match="did you mean 'patch_size'"):
        read_grid(run_table(metaformer()), ["patchsize"])


def test_nullable_columns_and_options_that_a_cell_lacks_are_read() -> None:
    """Law: the table as read from disk (NA, nullable integers) gives the same grid; a missing option is a level."""
    table = run_table(metaformer(), seeds=3)
    table.loc[table["token_mixer"] == "identity", "kernel_size"] = np.nan
    table.loc[table["token_mixer"] != "identity", "kernel_size"] = 5.0
    grid = read_grid(table.convert_dtypes(), [*BY, "kernel_size"])
    assert grid.levels("kernel_size") == (5, None)
    np.testing.assert_array_equal(grid.values, read_grid(table, BY).values)


def test_a_study_without_factors_is_one_cell() -> None:
    """Law: nothing varied gives one row over all seeds."""
    table = run_table(Truth({"patch_size": [4]}, np.array([0.9])), seeds=4)
    assert summarize_cells(read_grid(table, []))[["planned", "n"]].to_numpy().tolist() == [[4, 4]]


def test_a_measurement_missing_from_a_done_run_is_missing() -> None:
    """Law: NA is not 0: the run is excluded from the mean."""
    table = run_table(metaformer(), seeds=4).convert_dtypes()
    table.loc[0, "test_accuracy"] = pd.NA
    first = summarize_cells(read_grid(table, BY)).iloc[0]
    assert first["n"] == 3
    assert first["mean"] == pytest.approx(table.loc[1:3, "test_accuracy"].astype(float).mean())
