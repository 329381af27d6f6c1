"""The answer claims what the runs support, in words that fit the sweep."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
from simulated_study import Truth, metaformer, run_table

from study.analysis.answer import Answer, FactorComparison, answer_question
from study.analysis.cell_grid import Level
from study.analysis.factor_layout import list_levels
from study.analysis.margin import Margin
from study.analysis.study_comparison import compare_factor_shares, compare_signs, join_contrasts, summarize_studies
from study.analysis.study_results import StudyResults

BACKBONES = {"patch_size": [1, 2, 4], "backbone": ["convmixer", "vit"]}


def answer_table(table: pd.DataFrame, levels: Mapping[str, Sequence[Level]], *, baseline: float | None = None) -> Answer:
    return answer_question(StudyResults(table, levels, margin=Margin(points=0.5)), baseline=baseline)


def answer_mixers(*, seeds: int = 5, baseline: float | None = None) -> Answer:
    return answer_table(run_table(metaformer(), seeds=seeds), metaformer().axes, baseline=baseline)


def contrasts_of(table: pd.DataFrame, factors: Sequence[str]) -> pd.DataFrame:
    found = StudyResults(table, {name: list_levels(table, name) for name in factors}, margin=Margin(points=0.5)).contrasts
    assert isinstance(found, pd.DataFrame)
    return found


def test_the_answer_names_shares_differences_uncertainty_and_n() -> None:
    """Law: the headline has shares with limits and n; each difference its interval, n and corrected p."""
    found = answer_mixers()
    assert found.state == "answered"
    assert found.sentences[0].startswith("The patch size explains more of the variance than the token mixer: patch size 70 % [")
    assert "5 seeds, 45 runs" in found.sentences[0]
    assert "patch size 1, 2, 4; token mixer attention, depthwise conv, identity" in found.sentences[0]
    assert found.sentences[1].startswith(
        "Averaged over patch size, attention is 0.77 points lower than depthwise conv (−0.77 points, "
    )
    assert "n = 5 seeds, adjusted p = 0.006" in found.sentences[1]


def test_a_sign_that_changes_with_the_patch_size_is_reported() -> None:
    """Law: where attention is worse at small patches and better at large ones, a sentence says so."""
    assert "The sign of attention − depthwise conv changes with the patch size" in answer_mixers().text


def test_whole_backbones_are_never_called_attention() -> None:
    """Law: the word is backbone where whole architectures differ."""
    truth = Truth(BACKBONES, 0.9 + np.array([[0.0, 0.02], [0.0, 0.02], [0.0, 0.01]]))
    text = answer_table(run_table(truth, backbone="unused"), truth.axes).text
    assert "attention" not in text.lower()
    assert "Whole backbones are compared" in text
    assert "ViT is 1." in text
    assert "Whole backbones" not in answer_mixers().text


def test_below_the_baseline_there_is_no_answer() -> None:
    """Law: a cell that does not exceed the baseline makes the study undertrained, and is named."""
    found = answer_mixers(baseline=0.85)
    assert found.state == "undertrained"
    assert found.sentences[0].startswith("Undertrained: no answer. 2 cells do not exceed the linear baseline of 85.0 %")
    assert "patch size 4, attention (83.0 %)" in found.text
    assert "points" not in found.text


def test_controls_need_not_exceed_the_baseline() -> None:
    """Law: identity mixing is a control; it does not make a study undertrained."""
    truth = metaformer()
    means = truth.means.copy()
    means[:, 2] = 0.5
    table = run_table(Truth(truth.axes, means), seeds=5)
    assert answer_table(table, truth.axes, baseline=0.7).state == "answered"
    means[:, 1] = 0.5
    assert answer_table(run_table(Truth(truth.axes, means), seeds=5), truth.axes, baseline=0.7).state == "undertrained"


def test_the_mean_of_a_cell_has_to_exceed_the_baseline() -> None:
    """Law: the mean is compared with the baseline, not the interval, which few seeds widen."""
    found = StudyResults(run_table(metaformer(), seeds=5), metaformer().axes).cells
    lowest = float(found[found["token_mixer"] != "identity"]["mean"].min())
    assert answer_mixers(baseline=lowest).state == "undertrained"
    assert answer_mixers(baseline=lowest - 0.0001).state == "answered"


@pytest.mark.parametrize("seeds", [1, 2])
def test_under_three_seeds_nothing_is_claimed(seeds: int) -> None:
    """Law: differences are shown without interval, and the first sentence says that there is no answer."""
    found = answer_mixers(seeds=seeds)
    assert found.state == "too few seeds"
    assert found.sentences[0].startswith(f"No answer: {seeds} seed")
    assert not any(word in found.text for word in ("higher", "lower", "explains more"))


def test_an_unfinished_sweep_says_so_first() -> None:
    """Law: the first sentence counts the runs shown and the missing ones."""
    table = run_table(metaformer(), seeds=5)
    table.loc[[0, 7, 8], "status"] = ["failed", "missing", "missing"]
    found = answer_table(table, metaformer().axes)
    assert found.state == "provisional"
    assert found.sentences[0] == "Provisional: 42 of 45 runs (1 failed, 2 missing)."


def test_diverged_runs_are_outcomes_and_are_reported() -> None:
    """Law: they make nothing provisional, and are counted with the largest change that they could make."""
    table = run_table(metaformer(), seeds=5)
    table.loc[3, "status"] = "diverged"
    found = answer_table(table, metaformer().axes)
    assert found.state == "answered"
    assert "1 run diverged and is excluded from the means, which it could change by up to 16" in found.text


def test_a_study_without_a_finished_run_has_no_answer() -> None:
    """Law: without a finished run nothing is claimed."""
    found = answer_table(run_table(metaformer()).assign(status="missing"), metaformer().axes)
    assert found.state == "no runs"


def test_equivalence_has_a_margin_and_other_null_results_are_inconclusive() -> None:
    """Law: equal backbones are equivalent with many seeds, and inconclusive with few."""
    truth = Truth(BACKBONES, np.full((3, 2), 0.9), 0.004, 0.003)
    assert "are equivalent within 0.50 points" in answer_table(run_table(truth, seeds=20), BACKBONES).text
    noisy = Truth(BACKBONES, np.full((3, 2), 0.9), 0.004, 0.02)
    text = answer_table(run_table(noisy, seeds=3), BACKBONES).text
    assert "is inconclusive (" in text


def test_one_factor_is_answered_by_its_differences() -> None:
    """Law: without a second factor there are no shares, only differences."""
    truth = Truth({"lr": [0.001, 0.01]}, np.array([0.8, 0.9]))
    found = answer_table(run_table(truth, backbone="vit"), truth.axes)
    assert found.sentences[0].startswith("Learning rate 0.01 is 10.")
    assert "variance" not in found.text


def test_without_contrasts_there_are_too_few_cells() -> None:
    """Law: with cells on one diagonal only, no two cells differ in one factor."""
    table = run_table(metaformer(), seeds=3)
    diagonal = table["token_mixer"].map({"attention": 1, "depthwise_conv": 2, "identity": 4}) == table["patch_size"]
    found = answer_table(table[diagonal].reset_index(drop=True), metaformer().axes)
    assert found.state == "too few cells"


def test_the_headline_counts_inconclusive_contrasts() -> None:
    """Law: the first sentence ends in a count of all planned contrasts by verdict, which sums to their number."""
    truth = Truth(BACKBONES, 0.9 + np.array([[0.0, 0.02]] * 3), 0.001, 0.001)
    table = run_table(truth, seeds=5)
    verdicts = contrasts_of(table, list(BACKBONES))["verdict"]
    significant = verdicts.isin(["higher", "lower"]).sum()
    equal = (verdicts == "equivalent").sum()
    assert 0 < significant < len(verdicts)
    head = answer_table(table, truth.axes).sentences[0]
    assert f"Of {len(verdicts)} planned contrasts, {significant} are significantly different from zero (adjusted)" in head
    assert re.search(rf"{len(verdicts) - significant - equal} (is|are) inconclusive\.$", head)


def test_budgets_whose_signs_differ_get_a_sentence() -> None:
    """Law: attention better at equal MACs and worse at equal parameters is one sentence; equal studies change no sign."""
    first = run_table(metaformer(), seeds=5)
    second = first.copy()
    second.loc[second["token_mixer"] == "attention", "test_accuracy"] += 0.03
    tables = {"at equal parameters": first, "at equal MACs": second}
    factors = ["patch_size", "token_mixer"]
    compared = join_contrasts({name: contrasts_of(table, factors) for name, table in tables.items()})
    assert set(compared["study"]) == {"at equal parameters", "at equal MACs"}
    sentences = summarize_studies(compared, {"at equal parameters": None, "at equal MACs": None}, held="what is held equal")
    changed = (compare_signs(compared)["sign_change"] == "significant").sum()
    assert sentences[0].startswith(
        f"The sign changes with what is held equal in {changed} of {len(compared) // 2} planned contrasts"
    )
    assert re.match(
        r"Averaged over patch size, attention − depthwise conv is −0.77 points \(.*\) at equal parameters", sentences[1]
    )
    assert re.search(r"\+2.23 points \(.*\) at equal MACs: the sign changes with what is held equal\.$", sentences[1])
    same = join_contrasts({name: contrasts_of(first, factors) for name in ("a", "b")})
    assert set(compare_signs(same)["sign_change"]) <= {"none", "not significant"}
    assert summarize_studies(same, {"a": None, "b": None}, held="the study")[0].startswith(
        "No contrast changes sign with the study: of "
    )


def test_a_change_of_sign_that_is_not_significant_is_possible() -> None:
    """Law: a sign that is not significant in one study "may change"."""
    first = Truth(BACKBONES, 0.9 + np.array([[0.0, 0.02]] * 3), 0.001, 0.001)
    second = Truth(BACKBONES, 0.9 + np.array([[0.0, -0.002]] * 3), 0.001, 0.02)
    tables = {"at equal parameters": run_table(first, seeds=3), "at nothing": run_table(second, seeds=3, key="a")}
    compared = join_contrasts({name: contrasts_of(table, list(BACKBONES)) for name, table in tables.items()})
    found = summarize_studies(compared, dict.fromkeys(tables), held="the study")
    sentences = [sentence for sentence in found if sentence.startswith("Averaged over patch size, ViT")]
    assert len(sentences) == 1
    assert "; not significant)" in sentences[0] and sentences[0].endswith(": the sign may change with the study.")


def test_factors_that_explain_more_are_compared_between_studies() -> None:
    """Law: one factor everywhere is one statement; different factors depend on what is held equal; a tie is inconclusive."""
    backbone = FactorComparison("backbone", "patch size", (0.38, 0.1), decided=True)
    patch = FactorComparison("patch size", "backbone", (0.35, 0.02), decided=True)
    draw = FactorComparison("patch size", "backbone", (0.2, 0.18), decided=False)
    seeds = pd.Series([10, 10])
    (same,) = compare_factor_shares(
        {"at equal parameters": backbone, "at equal MACs": backbone}, held="what is held equal", seeds=seeds
    )
    assert same.startswith("The backbone explains more of the variance than the patch size at equal parameters (38 %, 10 %)")
    assert same.endswith("; n = 10 seeds in each.")
    (differ,) = compare_factor_shares(
        {"at equal parameters": backbone, "at equal MACs": patch}, held="what is held equal", seeds=seeds
    )
    assert differ.startswith(
        "Which factor explains more of the variance depends on what is held equal: the backbone at equal parameters"
    )
    (open_,) = compare_factor_shares(
        {"at equal parameters": backbone, "at equal MACs": draw}, held="what is held equal", seeds=seeds
    )
    assert "depends" not in open_ and "inconclusive at equal MACs" in open_
    assert compare_factor_shares({"at equal parameters": backbone, "at equal MACs": None}, held="it", seeds=seeds) == []


def test_without_a_varied_factor_there_is_an_accuracy_and_no_comparison() -> None:
    """Law: a sweep over seeds alone gives its one cell's mean, interval and n, whether its fixed level is named or not."""
    table = run_table(Truth({"lr": [0.01]}, np.array([0.9])), seeds=5)
    for levels in ({}, {"lr": [0.01]}):
        found = answer_table(table, levels)
        assert found.state == "answered"
        mean = f"{100 * table['test_accuracy'].mean():.1f}"
        assert found.text.startswith(f"No factor varies, so there is no comparison: test accuracy {mean} %")
        assert "n = 5 seeds, 95 % interval" in found.text


def test_seeds_without_both_sides_are_not_pairs() -> None:
    """Law: five done seeds on each side, none of them in common, are no pairs."""
    table = run_table(Truth({"lr": [0.001, 0.01]}, np.array([0.8, 0.9])), seeds=10, backbone="vit")
    apart = (table["seed"] < 5) == (table["lr"] == 0.01)
    found = answer_table(table.assign(status=np.where(apart, "done", "missing")), {"lr": [0.001, 0.01]})
    assert found.state == "too few seeds"
    assert "No answer: no seed has both runs of any contrast; at least 3 such seeds are needed." in found.sentences


def test_interactions_are_written_with_a_cross() -> None:
    """Law: a sentence names an interaction as the tables do."""
    text = answer_table(run_table(metaformer()), metaformer().axes).text
    assert "patch size × token mixer" in text
    assert "patch size x token mixer" not in text
