"""Shares of the variance: they sum to one, are recovered from simulated studies, and their intervals cover."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from scipy import stats
from simulated_study import Truth, metaformer, run_table

from study.analysis.cell_grid import read_grid
from study.analysis.sums_of_squares import compute_sums_of_squares
from study.analysis.variance_shares import (
    decompose_variance,
    draw_shares,
    estimate_share_limits,
    normalize_shares,
    solve_noncentrality,
)
from study.errors import UserError

AXES = ["patch_size", "token_mixer"]
STUDIES = 1000
DRAWS = 200  # per study; their error averages out over the studies
MONTE_CARLO = 3.5 * np.sqrt(0.95 * 0.05 / STUDIES)


def balanced() -> Truth:
    """A study in which every term has a visible share."""
    effects = np.array([[0.010, 0.000, -0.010], [0.005, 0.000, -0.005], [-0.010, 0.000, -0.020]])
    return Truth({"patch_size": [1, 2, 4], "token_mixer": ["a", "b", "c"]}, 0.8 + effects, seed_sd=0.004, rest_sd=0.006)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_true_shares_are_recovered(seeds: int) -> None:
    """Law: over a thousand studies the mean components are the true ones, so the shares estimate the true ones."""
    truth = balanced()
    sums = compute_sums_of_squares(truth.values(STUDIES, seeds=seeds, key=f"shares {seeds}"), truth.cells(), AXES)
    components = sums.components()
    error = components.std(axis=0) / np.sqrt(STUDIES)
    expected = np.array(list(truth.shares().values()))
    total = expected[-1] and truth.rest_sd**2 / expected[-1]
    assert (np.abs(components.mean(axis=0) - expected * total) < 3.5 * error).all()
    np.testing.assert_allclose(normalize_shares(components).mean(axis=0), expected, atol=0.02)


def test_true_shares_are_recovered_where_runs_are_missing() -> None:
    """Law: Type II components with missing runs are unbiased for main effects, seeds and residual, without interaction."""
    additive = 0.8 + np.array([0.01, 0.0, -0.01])[:, None] + np.array([0.02, 0.0, -0.01])[None, :]
    truth = Truth(balanced().axes, additive, seed_sd=0.005, rest_sd=0.005)
    values = truth.values(STUDIES, seeds=5, key="holes")
    for cell, seed in [(0, 0), (1, 4), (3, 2), (8, 1), (8, 3)]:
        values[:, cell, seed] = np.nan
    components = compute_sums_of_squares(values, truth.cells(), AXES).components()
    expected = np.array(list(truth.shares().values()))
    expected = expected * truth.rest_sd**2 / expected[-1]
    error = components.std(axis=0) / np.sqrt(STUDIES)
    gap = np.abs(components.mean(axis=0) - expected)
    assert (gap < np.maximum(3.5 * error, 0.05 * expected)).all()  # missing runs weight the levels unequally


@pytest.mark.parametrize("seeds", [3, 5, pytest.param(10, marks=pytest.mark.slow)])
def test_intervals_of_shares_cover(seeds: int) -> None:
    """Law: 95 % intervals cover each true share in 93 to 98 % of a thousand studies."""
    truth = balanced()
    sums = compute_sums_of_squares(truth.values(STUDIES, seeds=seeds, key=f"cover {seeds}"), truth.cells(), AXES)
    low, high = estimate_share_limits(sums, draws=DRAWS)
    expected = np.array(list(truth.shares().values()))
    covered = ((low <= expected) & (expected <= high)).mean(axis=0)
    assert covered.min() > 0.95 - MONTE_CARLO
    assert covered.max() < 0.98


def test_intervals_keep_most_of_their_coverage_where_cells_spread_unequally() -> None:
    """Law: with standard deviations from a half to 1.3 times the usual, 95 % intervals cover in at least 87 % of studies."""
    truth = balanced()
    spread = np.repeat([0.5, 1.0, np.sqrt(1.75)], 3)[None, :, None]
    values = truth.values(STUDIES, seeds=5, key="unequal")
    typical = truth.means.reshape(1, -1, 1)
    common = (values - typical).mean(axis=1, keepdims=True)
    sums = compute_sums_of_squares(typical + common + (values - typical - common) * spread, truth.cells(), AXES)
    low, high = estimate_share_limits(sums, draws=DRAWS)
    expected = np.array(list(truth.shares().values()))
    assert ((low <= expected) & (expected <= high)).mean(axis=0).min() > 0.87


def test_where_nothing_matters_the_residual_may_be_everything() -> None:
    """Law: without any effect the residual's interval reaches its true share of 1 in most studies."""
    truth = Truth(balanced().axes, np.full((3, 3), 0.8), seed_sd=0.0, rest_sd=0.006)
    sums = compute_sums_of_squares(truth.values(STUDIES, seeds=3, key="null"), truth.cells(), AXES)
    _, high = estimate_share_limits(sums, draws=DRAWS // 2)
    assert (high[:, -1] == 1).mean() > 0.85


@pytest.mark.parametrize("df", [1, 2, 4, 12])
def test_the_inverted_noncentral_chi_squared_is_scipys(df: int) -> None:
    """Law: at the noncentrality found, scipy's distribution has the requested probability below the observed value."""
    below = np.linspace(0.005, 0.995, 34)
    for observed in (3.0 * df, 30.0 * df, 99.0 * df, 101.0 * df, 1000.0 * df):
        found = solve_noncentrality(np.full(34, observed), df, below=below)
        inside = found > 0
        np.testing.assert_allclose(stats.ncx2.cdf(observed, df, found[inside]), below[inside], atol=0.004)
        assert (below[~inside] > stats.chi2.cdf(observed, df) - 1e-9).all()


def test_a_gap_between_shares_holds_its_level() -> None:
    """Law: where two factors have equal shares, "one explains more" is claimed in about 5 % of studies at most."""
    effects = np.array([0.01, 0.0, -0.01])
    truth = Truth(balanced().axes, 0.8 + effects[:, None] + effects[None, :], seed_sd=0.003, rest_sd=0.01)
    sums = compute_sums_of_squares(truth.values(STUDIES, seeds=5, key="gap"), truth.cells(), AXES)
    drawn = draw_shares(sums, draws=DRAWS // 2)  # fewer draws claim more often
    low, high = np.quantile(drawn[:, :, 0] - drawn[:, :, 1], [0.025, 0.975], axis=1)
    assert ((low > 0) | (high < 0)).mean() < 0.05 + MONTE_CARLO


def test_sums_of_squares_are_statsmodels_type_ii() -> None:
    """Law: with missing runs, sums of squares and df equal anova_lm(typ=2) with the seed as a block."""
    table = run_table(balanced(), seeds=5).drop(index=[0, 9, 16, 17, 43])
    model = smf.ols("test_accuracy ~ C(patch_size) * C(token_mixer) + C(seed)", table).fit()
    anova = sm.stats.anova_lm(model, typ=2)
    found = decompose_variance(read_grid(table, AXES)).set_index("term")
    names = ["C(patch_size)", "C(token_mixer)", "C(patch_size):C(token_mixer)", "C(seed)", "Residual"]
    np.testing.assert_allclose(found["sum_squares"], anova.loc[names, "sum_sq"], rtol=1e-9)
    np.testing.assert_array_equal(found["df"], anova.loc[names, "df"])


def test_components_of_a_complete_table_are_those_of_the_textbook() -> None:
    """Law: (SS - df MSE) / N for factors, (MS - MSE) / cells for seeds, MSE for the residual."""
    table = run_table(balanced(), seeds=5)
    found = decompose_variance(read_grid(table, AXES)).set_index("term")
    noise = found.loc["residual", "sum_squares"] / found.loc["residual", "df"]
    effects = found.loc[["patch_size", "token_mixer", "patch_size x token_mixer"]]
    np.testing.assert_allclose(effects["component"], (effects["sum_squares"] - effects["df"] * noise) / 45)
    assert found.loc["seed", "component"] == pytest.approx((found.loc["seed", "sum_squares"] / 4 - noise) / 9)
    assert found.loc["residual", "component"] == pytest.approx(noise)


def test_shares_sum_to_one_and_are_within_their_limits() -> None:
    """Law: shares are at least 0 and sum to 1, also where components are negative."""
    table = run_table(Truth(balanced().axes, np.full((3, 3), 0.8), 0.0, 0.01), seeds=5)
    table.loc[7, "status"] = "diverged"
    found = decompose_variance(read_grid(table, AXES))
    assert found["share"].sum() == pytest.approx(1) and (found["share"] >= 0).all()
    assert ((found["low"] <= found["share"] + 1e-12) & (found["share"] <= found["high"] + 1e-12)).all()


def test_the_levels_and_seeds_are_named() -> None:
    """Law: a share depends on levels, and every row names them."""
    found = decompose_variance(read_grid(run_table(balanced(), seeds=4), AXES)).set_index("term")
    assert found.loc["patch_size", "levels"] == "1, 2, 4"
    assert found.loc["token_mixer", "levels"] == "a, b, c"
    assert found.loc["seed", "levels"] == "4 seeds"
    assert found["n"].unique().tolist() == [4]


def test_an_empty_cell_leaves_the_largest_complete_part_and_says_so() -> None:
    """Law: of a 3 x 3 design without one cell, the first largest complete 2 x 3 part is decomposed and named."""
    table = run_table(balanced(), seeds=4)
    table.loc[(table["patch_size"] == 4) & (table["token_mixer"] == "a"), "status"] = "failed"
    found = decompose_variance(read_grid(table, AXES)).set_index("term")
    assert found.loc["patch_size", "levels"] == "1, 2"
    assert found.loc["token_mixer", "levels"] == "a, b, c"
    assert "only the complete part" in found["note"].iloc[0]
    assert found["runs"].iloc[0] == 24


def test_diverged_runs_are_excluded_by_name() -> None:
    """Law: the note counts them."""
    table = run_table(metaformer(), seeds=5)
    table.loc[3, "status"] = "diverged"
    found = decompose_variance(read_grid(table, AXES)).set_index("term")
    assert "1 diverged run" in found["note"].iloc[0]


def test_an_option_that_some_levels_lack_is_merged_into_its_factor() -> None:
    """Law: kernel sizes of convolutions together with attention form a complete design of token mixers."""
    truth = Truth(
        {"patch_size": [1, 2], "token_mixer": ["attention", "depthwise_conv"], "kernel_size": [3, 5]}, np.full((2, 2, 2), 0.9)
    )
    table = run_table(truth, seeds=3)
    attention = table["token_mixer"] == "attention"
    table = table[~(attention & (table["kernel_size"] == 5))].copy()
    table["kernel_size"] = table["kernel_size"].astype("Int64").mask(table["token_mixer"] == "attention")
    found = decompose_variance(read_grid(table, list(truth.axes))).set_index("term")
    assert found.loc["token_mixer", "levels"] == "attention, depthwise conv (kernel size 3), depthwise conv (kernel size 5)"
    assert "kernel_size" not in found.index


def test_three_factors_have_one_term_of_all_three() -> None:
    """Law: main effects, pairs and the triple; df are products of levels less one."""
    truth = Truth({"p": [1, 2], "m": ["a", "b", "c"], "k": [3, 5]}, np.zeros((2, 3, 2)) + 0.9)
    found = decompose_variance(read_grid(run_table(truth, seeds=3), ["p", "m", "k"])).set_index("term")
    assert list(found.index) == ["p", "m", "k", "p x m", "p x k", "m x k", "p x m x k", "seed", "residual"]
    assert found["df"].tolist() == [1, 2, 1, 2, 1, 2, 2, 2, 22]
    assert found["share"].sum() == pytest.approx(1)


def test_a_factor_that_does_not_vary_is_no_term() -> None:
    """Law: a fixed option takes no share, and the variance of a single factor is shared between factor, seeds and residual."""
    table = run_table(metaformer(), seeds=3)
    constant = decompose_variance(read_grid(table.assign(depth=4), ["depth", *AXES]))
    pd.testing.assert_frame_equal(constant, decompose_variance(read_grid(table, AXES)))
    single = decompose_variance(read_grid(table[table["token_mixer"] == "identity"], ["patch_size"]))
    assert single["term"].tolist() == ["patch_size", "seed", "residual"]
    with pytest.raises(UserError, match="no two levels between them"):
        decompose_variance(read_grid(table[table["run_id"].str.contains("-0-")].assign(depth=4), ["depth"]))


def test_controls_have_no_share_but_in_a_column_of_their_own() -> None:
    """Law: the shares are those of the study without the control; `with_controls` are those with it as a level like others."""
    table = run_table(metaformer(), seeds=4)
    found = decompose_variance(read_grid(table, AXES))
    without = decompose_variance(read_grid(table[table["token_mixer"] != "identity"], AXES))
    like_others = decompose_variance(read_grid(table.replace({"token_mixer": {"identity": "none at all"}}), AXES))
    pd.testing.assert_frame_equal(found.drop(columns="with_controls"), without.drop(columns="with_controls"))
    np.testing.assert_allclose(found["with_controls"], like_others["share"])
    assert without["with_controls"].isna().all()


def test_two_seeds_give_shares_without_limits_and_one_gives_none() -> None:
    """Law: under three seeds no interval; with one, the interaction cannot be separated from the residual."""
    found = decompose_variance(read_grid(run_table(metaformer(), seeds=2), AXES))
    assert found["share"].notna().all()
    assert found[["low", "high"]].isna().all().all()
    with pytest.raises(UserError, match="two finished seeds"):
        decompose_variance(read_grid(run_table(metaformer(), seeds=1), AXES))


def test_a_study_without_complete_cells_is_refused() -> None:
    """Law: where no two levels of each factor are complete, there are no shares."""
    table = run_table(metaformer(), seeds=3)
    diagonal = table["token_mixer"].map({"attention": 1, "depthwise_conv": 2, "identity": 4}) == table["patch_size"]
    with pytest.raises(UserError, match="no two levels"):
        decompose_variance(read_grid(table[diagonal], AXES))


def test_studies_without_spread_have_no_shares() -> None:
    """Law: where all runs agree there is no variation and no share."""
    found = decompose_variance(read_grid(run_table(metaformer(), seeds=3).assign(test_accuracy=1.0), AXES))
    assert found["share"].isna().all()
    assert isinstance(found, pd.DataFrame)
