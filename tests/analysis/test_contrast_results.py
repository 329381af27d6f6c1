"""Results of the planned contrasts: differences within seeds, simultaneous intervals, and verdicts read off these alone."""

from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from simulated_study import Truth, correctness_grid, draw_correctness, metaformer, run_table

from study.analysis.cell_grid import read_grid
from study.analysis.contrast_results import compute_sign_flip_p, estimate_contrasts
from study.analysis.margin import Margin
from study.analysis.planned_contrasts import Contrast, plan_contrasts
from study.rng import stream

AXES = ["patch_size", "token_mixer"]
PAIR = {"token_mixer": ["attention", "depthwise_conv"]}
HALF_A_POINT = Margin(points=0.5)


def compared(table: pd.DataFrame) -> pd.DataFrame:
    return estimate_contrasts(read_grid(table, AXES), plan_contrasts(metaformer().axes)).set_index("contrast")


def pair(gap: float, *, seeds: int, rest_sd: float = 0.002) -> pd.Series:
    """A study of two mixers, attention ahead by `gap`; the margin is half a point."""
    truth = Truth(PAIR, np.array([0.9 + gap, 0.9]), 0.01, rest_sd)
    grid = read_grid(run_table(truth, seeds=seeds), list(PAIR))
    return estimate_contrasts(grid, plan_contrasts(PAIR), margin=HALF_A_POINT).iloc[0]


def test_simple_differences_are_scipys_paired_t() -> None:
    """Law: without correctness, difference, unadjusted interval and p of two cells are scipy's for the seeds they share."""
    table = run_table(metaformer(), seeds=7)
    wide = table.pivot_table(index="seed", columns=AXES, values="test_accuracy")
    row = compared(table).loc["attention − depthwise conv, at patch size 2"]
    test = stats.ttest_rel(wide[2, "attention"], wide[2, "depthwise_conv"])
    interval = test.confidence_interval(0.95)
    assert row[["low_single", "high_single", "p", "df"]].tolist() == pytest.approx(
        [interval.low, interval.high, test.pvalue, 6]
    )
    assert row["images"] is pd.NA and np.isnan(row["seed_share"])


def test_averaged_differences_are_paired_t_of_the_averages() -> None:
    """Law: averaging over patch sizes happens within seeds, before the test."""
    table = run_table(metaformer(), seeds=5)
    means = table.groupby(["seed", "token_mixer"])["test_accuracy"].mean().unstack()
    test = stats.ttest_rel(means["attention"], means["depthwise_conv"])
    row = compared(table).loc["attention − depthwise conv, averaged over patch size"]
    assert row["p"] == pytest.approx(test.pvalue)


def test_only_seeds_with_both_sides_count() -> None:
    """Law: a seed that lacks one side is excluded from that contrast only."""
    table = run_table(metaformer(), seeds=5)
    table.loc[0, "status"] = "missing"  # patch size 1, attention, seed 0
    found = compared(table)
    assert found.loc["attention − depthwise conv, at patch size 1", "n"] == 4
    assert found.loc["identity − depthwise conv, at patch size 1", "n"] == 5
    assert found.loc["attention − depthwise conv, averaged over patch size", "n"] == 4


def test_all_primary_contrasts_are_one_family() -> None:
    """Law: the averaged contrasts and the interactions share one critical value; the others have one in each family."""
    found = compared(run_table(metaformer(), seeds=5))
    found["critical"] = (found["high"] - found["difference"]) / found["se"]
    assert found.groupby("family")["primary"].all().to_dict() == {
        "patch size within each token mixer": False,
        "patch size, averaged": True,
        "token mixer at each patch size": False,
        "token mixer x patch size": True,
        "token mixer, averaged": True,
    }
    spread = found.groupby(found["family"].mask(found["primary"], ""))["critical"]
    assert (spread.max() - spread.min()).max() < 1e-9
    assert spread.first().nunique() == 3
    assert (found["critical"] > stats.t.ppf(0.975, 4)).all()
    np.testing.assert_array_equal(found["p_adjusted"] < 0.05, (found["low"] > 0) | (found["high"] < 0))


def test_with_one_factor_its_contrasts_are_primary() -> None:
    assert [contrast.primary for contrast in plan_contrasts({"lr": [1, 2, 3]})] == [True, True]


@pytest.mark.parametrize("seeds", [3, 6, 9])
def test_sign_flips_count_every_pattern_exactly(seeds: int) -> None:
    """Law: p is the share of sign patterns, enumerated with fractions, whose sum is at least as far from zero."""
    rng = stream(0, "sign flips", seeds)
    for differences in rng.integers(-4, 6, (20, seeds)):
        exact = [Fraction(int(each), 360) for each in differences]
        sums = [abs(sum(s * d for s, d in zip(signs, exact, strict=True))) for signs in product((-1, 1), repeat=seeds)]
        expected = sum(each >= abs(sum(exact)) for each in sums) / 2**seeds
        assert compute_sign_flip_p(differences) == expected


def test_sums_that_are_equal_count_as_equal() -> None:
    """Law: p is that of fractions also where weights are thirds and accuracies three hundred sixtieths, and NaN else."""
    axes = {"patch_size": [1, 2, 4], **PAIR}
    table = run_table(Truth(axes, np.zeros((3, 2))), seeds=5)
    hits = stream(0, "ties").integers(335, 343, (20, 6, 5))
    for study in hits:
        table["test_accuracy"] = study.ravel() / 360
        found = estimate_contrasts(read_grid(table, AXES), plan_contrasts(axes)).set_index("contrast")
        gaps = (study[0::2] - study[1::2]).sum(axis=0)  # attention minus convolution, over the three patch sizes
        sums = [abs(np.dot(signs, gaps)) for signs in product((-1, 1), repeat=5)]
        row = found.loc["attention − depthwise conv, averaged over patch size"]
        assert row["sign_flip_p"] == np.mean(np.array(sums) >= abs(gaps.sum()))
    table["test_accuracy"] += 0.1 / 360
    assert estimate_contrasts(read_grid(table, AXES), plan_contrasts(axes))["sign_flip_p"].isna().all()


def test_differences_with_ties_as_floats_have_them_as_numbers_of_images() -> None:
    """Law: of 3, 3, −1, −3 and 1 images, floats of which give 0.625, 26 of 32 patterns are as extreme."""
    assert compute_sign_flip_p(np.array([3, 3, -1, -3, 1])) == 0.8125


def test_a_sign_flip_test_of_many_seeds_is_exact_too() -> None:
    """Law: with all of 40 differences of one sign, two of the 2^40 patterns are as extreme."""
    assert compute_sign_flip_p(np.arange(1, 41)) == 2.0**-39
    assert np.isnan(compute_sign_flip_p(np.array([1, 2])))


def test_verdicts_follow_from_the_simultaneous_interval() -> None:
    """Law: higher or lower where it leaves out 0, equivalent where it is within the margin, else inconclusive."""
    assert pair(0.02, seeds=5)["verdict"] == "higher"
    assert pair(-0.02, seeds=5)["verdict"] == "lower"
    assert pair(0.02, seeds=2)["verdict"] == "too few seeds"
    assert pair(0.0, seeds=3, rest_sd=0.01)["verdict"] == "inconclusive"
    assert pair(0.0, seeds=20)["verdict"] == "equivalent"


def test_nothing_is_equivalent_without_a_margin() -> None:
    grid = read_grid(run_table(Truth(PAIR, np.array([0.9, 0.9]), 0.0, 0.001), seeds=20), list(PAIR))
    assert estimate_contrasts(grid, plan_contrasts(PAIR))["verdict"].tolist() == ["inconclusive"]


def test_an_error_ratio_is_a_margin_by_the_contrasts_own_cells() -> None:
    """Law: a ratio of 1.1 allows a tenth of the mean error of the compared cells."""
    truth = Truth({"patch_size": [1, 2], **PAIR}, np.array([[0.98, 0.98], [0.9, 0.9]]), 0.0, 0.0)
    grid = read_grid(run_table(truth), list(truth.axes))
    found = estimate_contrasts(grid, plan_contrasts(truth.axes), margin=Margin.from_facts({"error_ratio": 1.1}))
    margins = found.set_index("where")["margin"]
    assert margins["at patch size 1"] == pytest.approx(0.002)
    assert margins["averaged over patch size"] == pytest.approx(0.006)


def test_a_difference_of_the_margin_is_rarely_called_equivalent() -> None:
    """Law: where the true difference equals the margin, "equivalent" is claimed in at most 2.5 % of studies."""
    studies, rng = 400, stream(0, "margin")
    plan, claimed = plan_contrasts(PAIR), 0
    base = read_grid(run_table(Truth(PAIR, np.zeros(2)), seeds=10), list(PAIR))
    for _ in range(studies):
        values = np.stack([rng.normal(0.905, 0.002, 10), rng.normal(0.9, 0.002, 10)])
        found = estimate_contrasts(replace(base, values=values), plan, margin=HALF_A_POINT)
        claimed += found["verdict"].iloc[0] == "equivalent"
    assert claimed / studies < 0.025 + 3.5 * np.sqrt(0.025 * 0.975 / studies)


def diverge(table: pd.DataFrame, *, margin: Margin | None = None) -> pd.Series:
    """The pair's contrast without attention's first seed, which diverged."""
    table.loc[0, "status"] = "diverged"
    return estimate_contrasts(read_grid(table, list(PAIR)), plan_contrasts(PAIR), margin=margin).iloc[0]


def test_diverged_runs_bound_the_difference_and_can_overturn_a_verdict() -> None:
    """Law: the bounds are the differences with chance and with the best accuracy in place of the diverged run; what they
    contradict isn't claimed."""
    table = run_table(Truth(PAIR, np.array([0.92, 0.9]), 0.01, 0.001), seeds=6)
    row = diverge(table)
    a = table["test_accuracy"][:6].to_numpy()
    b = table["test_accuracy"][6:].to_numpy()
    assert row["difference"] == pytest.approx((a - b)[1:].mean())
    assert row["bound_low"] == pytest.approx(((0.1 - b[0]) + (a - b)[1:].sum()) / 6)
    assert row["bound_high"] == pytest.approx(((a[1:].max() - b[0]) + (a - b)[1:].sum()) / 6)
    assert row["verdict"] == "inconclusive: diverged runs"
    equal = run_table(Truth(PAIR, np.array([0.9, 0.9]), 0.01, 0.001), seeds=20)
    assert diverge(equal, margin=HALF_A_POINT)["verdict"] == "inconclusive: diverged runs"


def test_equal_differences_give_no_interval() -> None:
    """Law: accuracies come in steps, so differences equal in all seeds have no interval; others keep theirs."""
    table = run_table(metaformer(), seeds=5)
    flat = (table["patch_size"] == 1) & (table["token_mixer"] != "identity")
    table.loc[flat, "test_accuracy"] = 0.9
    found = compared(table)
    row = found.loc["attention − depthwise conv, at patch size 1"]
    assert row["verdict"] == "inconclusive" and "same value" in row["note"]
    assert np.isnan(row[["low", "p_adjusted", "low_single"]].astype(float)).all()
    assert found.loc["attention − depthwise conv, at patch size 2", "low"] > -1


def test_with_correctness_equal_architectures_are_rarely_called_different() -> None:
    """Law: with new seeds and new test images in every study, primary contrasts of equal cells err in at most 5 %."""
    plan, wrong, studies = plan_contrasts({"lr": [0, 1, 2, 3]}), 0, 150
    found = draw_correctness(stream(0, "family"), studies=studies, seeds=5, images=360, accuracy=0.7, cells=4)
    for study in found:
        contrasts = estimate_contrasts(correctness_grid(study), plan)
        wrong += bool(contrasts["verdict"].isin(["higher", "lower"]).any())
    assert (contrasts["images"] == 360).all()
    assert wrong / studies <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / studies)


def test_a_contrast_needs_weights_that_sum_to_zero() -> None:
    with pytest.raises(AssertionError, match="do not sum to zero"):
        Contrast("f", "lr", "a", "b", "", ("lr",), (((1,), 1.0),), primary=True, control=False)
