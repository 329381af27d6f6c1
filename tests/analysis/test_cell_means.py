"""Means of cells: which runs are counted; intervals agree with pandas, scipy and statsmodels."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from simulated_study import Truth, metaformer, run_table
from statsmodels.stats.proportion import proportion_confint

from study.analysis.cell_grid import read_grid
from study.analysis.cell_means import summarize_cells
from study.errors import UserError

BY = ["patch_size", "token_mixer"]


def test_means_and_t_intervals_are_those_of_pandas_and_scipy() -> None:
    """Law: mean, sd, n and interval of a cell are recomputed from its runs alone."""
    table = run_table(metaformer(), seeds=6)
    found = summarize_cells(table, BY).set_index(BY)
    for key, runs in table.groupby(BY)["test_accuracy"]:
        row = found.loc[key]
        low, high = stats.t.interval(0.95, 5, loc=runs.mean(), scale=stats.sem(runs))
        assert (row["n"], row["mean"], row["sd"]) == (6, pytest.approx(runs.mean()), pytest.approx(runs.std(ddof=1)))
        assert (row["low"], row["high"]) == (pytest.approx(low), pytest.approx(high))


def test_the_binomial_interval_is_wilsons() -> None:
    """Law: the standard error from the test set comes with statsmodels' Wilson interval for the mean accuracy on its images."""
    found = summarize_cells(run_table(metaformer()), BY)
    low, high = proportion_confint(found["mean"] * 360, 360, method="wilson")
    np.testing.assert_allclose(found["binomial_low"], low)
    np.testing.assert_allclose(found["binomial_high"], high)
    np.testing.assert_allclose(found["binomial_error"], np.sqrt(found["mean"] * (1 - found["mean"]) / 360))


def test_a_cell_without_errors_has_a_wilson_interval() -> None:
    """Law: at accuracy 1 the Wilson interval has a width, and equal runs give no interval over seeds but the reason."""
    table = run_table(metaformer()).assign(test_accuracy=1.0)
    found = summarize_cells(table, BY)
    assert (found["binomial_low"] < 0.995).all()
    assert found["low"].isna().all()
    assert found["note"].str.contains("same value").all()


@pytest.mark.parametrize(("seeds", "said"), [(1, "1 seed,"), (2, "2 seeds,")])
def test_under_three_seeds_there_is_no_interval_but_a_reason(seeds: int, said: str) -> None:
    """Law: fewer than three seeds give a mean, no interval, and the reason."""
    found = summarize_cells(run_table(metaformer(), seeds=seeds), BY)
    assert found["mean"].notna().all()
    assert found[["low", "high"]].isna().all().all()
    assert found["note"].str.contains(said).all()


def test_runs_without_an_accuracy_are_counted_by_status() -> None:
    """Law: planned = done + diverged + failed + missing, and only done runs enter the mean."""
    table = run_table(metaformer(), seeds=5)
    table.loc[[0, 1], "status"] = ["diverged", "failed"]
    table.loc[2, ["status", "test_accuracy"]] = ["missing", np.nan]
    first = summarize_cells(table, BY).iloc[0]
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
    first = summarize_cells(table, BY).iloc[0]
    assert first["worst"] == pytest.approx((own.sum() + 0.1) / 5)
    assert first["best"] == pytest.approx((own.sum() + own.max()) / 5)


def test_a_cell_of_diverged_runs_alone_stays_in_the_table() -> None:
    """Law: an outcome is never omitted; such a cell has bounds and no mean."""
    table = run_table(metaformer(), seeds=3)
    table.loc[:2, "status"] = "diverged"
    first = summarize_cells(table, BY).iloc[0]
    assert first["planned"] == first["diverged"] == 3
    assert np.isnan(first["mean"])
    assert first["worst"] == pytest.approx(0.1)
    assert first["best"] == pytest.approx(table["test_accuracy"][3:].max())


def test_a_factor_that_is_not_named_is_an_error_that_names_it() -> None:
    """Law: two runs of one cell and seed are never averaged; the error names the option in which they differ."""
    with pytest.raises(UserError, match="token_mixer"):
        summarize_cells(run_table(metaformer()), ["patch_size"])


def test_a_misspelled_factor_is_reported_with_the_nearest_column() -> None:
    """Law: an unknown column is a user error that names the nearest match."""
    with pytest.raises(UserError, match="did you mean 'patch_size'"):
        summarize_cells(run_table(metaformer()), ["patchsize"])


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
    assert summarize_cells(table, [])[["planned", "n"]].to_numpy().tolist() == [[4, 4]]


def test_a_measurement_missing_from_a_done_run_is_missing() -> None:
    """Law: NA is not 0: the run is excluded from the mean."""
    table = run_table(metaformer(), seeds=4).convert_dtypes()
    table.loc[0, "test_accuracy"] = pd.NA
    first = summarize_cells(table, BY).iloc[0]
    assert first["n"] == 3
    assert first["mean"] == pytest.approx(table.loc[1:3, "test_accuracy"].astype(float).mean())
