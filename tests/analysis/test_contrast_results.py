"""Results of the planned contrasts: paired differences, corrected tests, and verdicts that n supports."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from simulated_study import Truth, metaformer, run_table
from statsmodels.stats.multitest import multipletests

from study.analysis.contrast_results import compute_paired_differences, estimate_contrasts
from study.analysis.factor_layout import list_levels
from study.analysis.intervals import estimate_mean, solve_detectable_difference
from study.analysis.planned_contrasts import plan_contrasts
from study.rng import stream

AXES = ["patch_size", "token_mixer"]
PAIR = {"token_mixer": ["attention", "depthwise_conv"]}
STUDIES = 2000


def compared(table: pd.DataFrame) -> pd.DataFrame:
    return estimate_contrasts(table, plan_contrasts({name: list_levels(table, name) for name in AXES})).set_index("contrast")


def pair(gap: float, *, seeds: int, seed_sd: float = 0.01, rest_sd: float = 0.002, key: str = "") -> pd.DataFrame:
    """A study of two mixers, attention ahead by `gap`."""
    truth = Truth(PAIR, np.array([0.9 + gap, 0.9]), seed_sd, rest_sd)
    table = run_table(truth, seeds=seeds, key=key)
    return estimate_contrasts(table, plan_contrasts(truth.axes)).iloc[0]


def test_simple_differences_are_scipys_paired_t() -> None:
    """Law: difference, interval, p and correlation of two cells are scipy's for the seeds they share."""
    table = run_table(metaformer(), seeds=7)
    found = compared(table)
    wide = table.pivot_table(index="seed", columns=AXES, values="test_accuracy")
    row = found.loc["attention − depthwise conv, at patch size 2"]
    a, b = wide[2, "attention"], wide[2, "depthwise_conv"]
    test = stats.ttest_rel(a, b)
    interval = test.confidence_interval(0.95)
    assert row[["difference", "low", "high", "p", "correlation"]].tolist() == pytest.approx(
        [(a - b).mean(), interval.low, interval.high, test.pvalue, np.corrcoef(a, b)[0, 1]]
    )


def test_averaged_differences_are_paired_t_of_the_averages() -> None:
    """Law: averaging over patch sizes happens within seeds, before the test."""
    table = run_table(metaformer(), seeds=5)
    means = table.groupby(["seed", "token_mixer"])["test_accuracy"].mean().unstack()
    test = stats.ttest_rel(means["attention"], means["depthwise_conv"])
    row = compared(table).loc["attention − depthwise conv, averaged over patch size"]
    assert row["p"] == pytest.approx(test.pvalue)


def test_holm_corrects_over_the_family_with_its_untestable_members() -> None:
    """Law: the corrected p are statsmodels' over each family, in which a contrast without a p counts as p = 1."""
    table = run_table(metaformer(), seeds=5)
    table.loc[(table["patch_size"] == 4) & (table["token_mixer"] == "attention"), "status"] = "missing"
    for _, family in compared(table).groupby("family"):
        corrected = multipletests(family["p"].fillna(1.0), method="holm")[1]
        np.testing.assert_allclose(family["p_holm"], np.where(family["p"].isna(), np.nan, corrected))


def test_only_seeds_with_both_sides_count() -> None:
    """Law: a seed that lacks one side is excluded from that contrast only."""
    table = run_table(metaformer(), seeds=5)
    table.loc[0, "status"] = "missing"  # patch size 1, attention, seed 0
    found = compared(table)
    assert found.loc["attention − depthwise conv, at patch size 1", "n"] == 4
    assert found.loc["identity − depthwise conv, at patch size 1", "n"] == 5
    assert found.loc["attention − depthwise conv, averaged over patch size", "n"] == 4


@pytest.mark.parametrize("seeds", [9, 12])
def test_sign_flips_enumerate_all_patterns(seeds: int) -> None:
    """Law: the exact p counts the sign patterns whose mean is at least as far from zero as the one observed."""
    table = run_table(metaformer(rest_sd=0.03), seeds=seeds)
    wide = table.pivot_table(index="seed", columns=AXES, values="test_accuracy")
    gaps = (wide[2, "attention"] - wide[2, "depthwise_conv"]).to_numpy()
    patterns = np.array(list(itertools.product([-1, 1], repeat=seeds)))
    by_hand = (np.abs(patterns @ gaps) >= abs(gaps.sum()) - 1e-12).mean()
    row = compared(table).loc["attention − depthwise conv, at patch size 2"]
    assert row["attainable_p"] == 2.0 ** (1 - seeds)
    assert row["permutation_p"] == pytest.approx(by_hand)


def test_sign_flips_are_computed_only_where_n_can_reach_the_level() -> None:
    """Law: five seeds cannot go below 0.0625, and a family of six needs eight seeds; such tests are omitted."""
    few = compared(run_table(metaformer(), seeds=5))
    assert few["permutation_p"].isna().all()
    assert few["attainable_p"].unique().tolist() == [0.0625]
    seven, eight = (compared(run_table(metaformer(), seeds=seeds)) for seeds in (7, 8))
    simple = seven["family"] == "token mixer at each patch size"
    assert seven.loc[simple, "permutation_p"].isna().all()
    assert eight.loc[simple, "permutation_p"].notna().all()


def test_sign_flip_tests_hold_their_level() -> None:
    """Law: with no true difference and skewed noise of equal sides, at most 5 % of the tests reject at 5 %."""
    rng = stream(0, "sign flip level")
    gaps = rng.exponential(size=(STUDIES, 8)) - rng.exponential(size=(STUDIES, 8))
    patterns = np.array(list(itertools.product([-1, 1], repeat=8)))
    p = (np.abs(gaps @ patterns.T) >= np.abs(gaps.sum(axis=1, keepdims=True)) - 1e-12).mean(axis=1)
    assert (p <= 0.05).mean() < 0.05 + 3.5 * np.sqrt(0.05 * 0.95 / STUDIES)


def test_holm_holds_the_level_of_the_family() -> None:
    """Law: with no true difference anywhere, at most 5 % of studies declare one of a family of six."""
    truth = Truth(metaformer().axes, np.full((3, 3), 0.9))
    plan = [contrast for contrast in plan_contrasts(truth.axes) if contrast.family == "token mixer at each patch size"]
    cells = truth.cells()
    weights = np.zeros((len(plan), len(cells)))
    for row, contrast in enumerate(plan):
        for cell, weight in contrast.weights:
            weights[row, cells.index(cell)] = weight
    p = estimate_mean(compute_paired_differences(truth.values(STUDIES, seeds=5, key="family"), weights)).p
    declared = (p.min(axis=1) * len(plan) <= 0.05).mean()  # Holm declares anything exactly where Bonferroni does
    assert declared < 0.05 + 3.5 * np.sqrt(0.05 * 0.95 / STUDIES)


def test_improvement_is_the_share_of_seeds_with_clopper_pearson_limits() -> None:
    """Law: seeds won, with scipy's exact binomial interval."""
    table = run_table(metaformer(rest_sd=0.02), seeds=12)
    wide = table.pivot_table(index="seed", columns=AXES, values="test_accuracy")
    won = int((wide[2, "attention"] > wide[2, "depthwise_conv"]).sum())
    limits = stats.binomtest(won, 12).proportion_ci(method="exact")
    row = compared(table).loc["attention − depthwise conv, at patch size 2"]
    assert row[["improvement", "improvement_low", "improvement_high"]].tolist() == pytest.approx(
        [won / 12, limits.low, limits.high]
    )


def test_pairing_shows_as_correlation() -> None:
    """Law: an effect of the seed on both sides correlates them; without one they are uncorrelated."""
    assert pair(0.0, seeds=40, seed_sd=0.02)["correlation"] > 0.9
    assert abs(pair(0.0, seeds=40, seed_sd=0.0)["correlation"]) < 0.5


def test_equivalence_needs_power() -> None:
    """Law: a null result of few seeds is inconclusive; of many it is "equivalent", with the margin detectable."""
    assert pair(0.0, seeds=3, rest_sd=0.01)["verdict"] == "inconclusive"
    many = pair(0.0, seeds=20, rest_sd=0.002)
    assert many["verdict"] == "equivalent"
    assert many["detectable"] <= 0.005
    table = run_table(Truth(PAIR, np.array([0.9, 0.9])), seeds=3)
    table["test_accuracy"] = [0.9017, 0.9, 0.8983, 0.9, 0.9, 0.9]
    narrow = estimate_contrasts(table, plan_contrasts(PAIR)).iloc[0]
    assert narrow["high"] < 0.005 < narrow["detectable"]  # inside the margin, by luck
    assert narrow["verdict"] == "inconclusive"


def test_a_difference_of_the_margin_is_rarely_called_equivalent() -> None:
    """Law: where the true difference equals the margin, "equivalent" is claimed in at most 2.5 % of studies."""
    gaps = stream(0, "margin").normal(0.005, 0.004, (STUDIES, 10))
    estimate = estimate_mean(gaps)
    able = solve_detectable_difference(1.0, 10) * estimate.sd <= 0.005
    claimed = (estimate.high <= 0.005) & (estimate.low >= -0.005) & able
    assert claimed.mean() < 0.025 + 3.5 * np.sqrt(0.025 * 0.975 / STUDIES)


def test_verdicts_name_the_direction() -> None:
    """Law: a significant difference is higher or lower, by its sign."""
    assert pair(0.02, seeds=5)["verdict"] == "higher"
    assert pair(-0.02, seeds=5)["verdict"] == "lower"
    assert pair(0.02, seeds=2)["verdict"] == "too few seeds"


def test_diverged_runs_bound_the_difference_and_can_overturn_a_verdict() -> None:
    """Law: the bounds are the differences with chance and with the best accuracy in place of the diverged run; a sign that
    they can change is inconclusive."""
    truth = Truth(PAIR, np.array([0.92, 0.9]), 0.01, 0.001)
    table = run_table(truth, seeds=6)
    table.loc[0, "status"] = "diverged"  # attention, seed 0
    row = estimate_contrasts(table, plan_contrasts(truth.axes)).iloc[0]
    a = table["test_accuracy"][:6].to_numpy()
    b = table["test_accuracy"][6:].to_numpy()
    assert row["difference"] == pytest.approx((a - b)[1:].mean())
    assert row["bound_low"] == pytest.approx(((0.1 - b[0]) + (a - b)[1:].sum()) / 6)
    assert row["bound_high"] == pytest.approx(((a[1:].max() - b[0]) + (a - b)[1:].sum()) / 6)
    assert row["verdict"] == "inconclusive: diverged runs"


def test_equal_differences_give_no_interval() -> None:
    """Law: accuracies come in steps, so differences equal in all seeds have no interval."""
    table = run_table(Truth(PAIR, np.array([0.92, 0.9]), 0.0, 0.0), seeds=5)
    row = estimate_contrasts(table, plan_contrasts(PAIR)).iloc[0]
    assert row["verdict"] == "no spread"
    assert np.isnan([row["low"], row["p"], row["detectable"]]).all()
