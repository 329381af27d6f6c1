"""The answer says what the runs can bear, in words that fit the sweep, and nothing when they bear nothing."""

import re

import numpy as np
import pandas as pd
import pytest
from simulated_study import Truth, metaformer, run_table

from study.analysis.answer import Answer, FactorComparison, answer_question
from study.analysis.cell_means import summarize_cells
from study.analysis.contrast_results import estimate_contrasts
from study.analysis.planned_contrasts import plan_contrasts
from study.analysis.study_comparison import compare_factor_shares, compare_signs, compare_studies, summarize_studies

BACKBONES = {"patch_size": [1, 2, 4], "backbone": ["convmixer", "vit"]}


def mixers(*, seeds: int = 5, **settings: float) -> Answer:
    return answer_question(run_table(metaformer(), seeds=seeds), metaformer().axes, **settings)


def test_the_answer_names_shares_differences_uncertainty_and_n() -> None:
    """Law: the headline carries shares with limits and n; each difference its interval, n and corrected p."""
    found = mixers()
    assert found.state == "answered"
    assert found.sentences[0].startswith("The patch size carries more than the token mixer: patch size 70 % [")
    assert "5 seeds, 45 runs" in found.sentences[0]
    assert "patch size 1, 2, 4; token mixer attention, depthwise conv, identity" in found.sentences[0]
    assert found.sentences[1].startswith(
        "Averaged over patch size, attention is 0.77 points below depthwise conv (−0.77 points, "
    )
    assert "n = 5 seeds, Holm p = 0.002" in found.sentences[1]


def test_a_sign_that_turns_with_the_patch_size_is_said() -> None:
    """Law: where attention loses at small and wins at large patches, the average isn't the whole answer."""
    assert "The sign of attention − depthwise conv turns with the patch size" in mixers().text


def test_whole_backbones_are_never_called_attention() -> None:
    """Law: the word is backbone where whole architectures differ."""
    truth = Truth(BACKBONES, 0.9 + np.array([[0.0, 0.02], [0.0, 0.02], [0.0, 0.01]]))
    text = answer_question(run_table(truth, backbone="unused"), truth.axes).text
    assert "attention" not in text.lower()
    assert "Whole backbones are compared" in text
    assert "ViT is 1." in text
    assert "Whole backbones" not in mixers().text


def test_below_the_baseline_there_is_no_answer() -> None:
    """Law: a cell that doesn't lie above the baseline makes the study undertrained, and is named."""
    found = mixers(baseline=0.85)
    assert found.state == "undertrained"
    assert found.sentences[0].startswith("Undertrained: no answer. 2 cells do not clear the baseline of 85.0 %")
    assert "patch size 4, attention (83.0 %)" in found.text
    assert "points" not in found.text


def test_controls_need_not_clear_the_baseline() -> None:
    """Law: identity mixing is there to be poor; it doesn't make a study undertrained."""
    truth = metaformer()
    means = truth.means.copy()
    means[:, 2] = 0.5
    table = run_table(Truth(truth.axes, means), seeds=5)
    assert answer_question(table, truth.axes, baseline=0.7).state == "answered"
    means[:, 1] = 0.5
    assert answer_question(run_table(Truth(truth.axes, means), seeds=5), truth.axes, baseline=0.7).state == "undertrained"


def test_a_cells_mean_has_to_lie_above_the_baseline() -> None:
    """Law: how far training went shows in the mean; few seeds widen an interval and make no study undertrained."""
    found = summarize_cells(run_table(metaformer(), seeds=5), ["patch_size", "token_mixer"])
    lowest = float(found[found["token_mixer"] != "identity"]["mean"].min())
    assert mixers(baseline=lowest).state == "undertrained"
    assert mixers(baseline=lowest - 0.0001).state == "answered"


@pytest.mark.parametrize("seeds", [1, 2])
def test_under_three_seeds_nothing_is_claimed(seeds: int) -> None:
    """Law: differences are shown without interval, and the first sentence says that there is no answer."""
    found = mixers(seeds=seeds)
    assert found.state == "too few seeds"
    assert found.sentences[0].startswith(f"No answer: {seeds} seed")
    assert not any(word in found.text for word in ("above", "below", "carries more"))


def test_an_unfinished_sweep_says_so_first() -> None:
    """Law: the first sentence counts the runs shown and those to come."""
    table = run_table(metaformer(), seeds=5)
    table.loc[[0, 7, 8], "status"] = ["failed", "missing", "missing"]
    found = answer_question(table, metaformer().axes)
    assert found.state == "provisional"
    assert found.sentences[0] == "Provisional: 42 of 45 runs (1 failed, 2 missing)."


def test_diverged_runs_are_outcomes_and_are_told() -> None:
    """Law: they make nothing provisional, are counted, and the most that they could have moved is named."""
    table = run_table(metaformer(), seeds=5)
    table.loc[3, "status"] = "diverged"
    found = answer_question(table, metaformer().axes)
    assert found.state == "answered"
    assert "1 run diverged and is left out of the means, which it could move by up to 16" in found.text


def test_a_study_without_a_finished_run_has_no_answer() -> None:
    """Law: nothing done, nothing said."""
    found = answer_question(run_table(metaformer()).assign(status="missing"), metaformer().axes)
    assert found.state == "no runs"


def test_no_difference_is_bounded_and_undecided_says_what_could_be_seen() -> None:
    """Law: equal backbones with many seeds differ by less than the margin; with few they can't be told apart."""
    truth = Truth(BACKBONES, np.full((3, 2), 0.9), 0.004, 0.003)
    assert "differ by less than 0.50 points, if at all" in answer_question(run_table(truth, seeds=20), BACKBONES).text
    noisy = Truth(BACKBONES, np.full((3, 2), 0.9), 0.004, 0.02)
    text = answer_question(run_table(noisy, seeds=3), BACKBONES).text
    assert "can't be told apart" in text
    assert "would have been seen in four of five such studies" in text


def test_one_factor_is_answered_by_its_differences() -> None:
    """Law: without a second factor there are no shares, only differences."""
    truth = Truth({"lr": [0.001, 0.01]}, np.array([0.8, 0.9]))
    found = answer_question(run_table(truth, backbone="vit"), truth.axes)
    assert found.sentences[0].startswith("Learning rate 0.01 is 10.")
    assert "variation" not in found.text


def test_what_cannot_be_shared_out_is_said_and_the_differences_stay() -> None:
    """Law: with cells on one diagonal only, no shares and no comparison."""
    table = run_table(metaformer(), seeds=3)
    diagonal = table["token_mixer"].map({"attention": 1, "depthwise_conv": 2, "identity": 4}) == table["patch_size"]
    found = answer_question(table[diagonal].reset_index(drop=True), metaformer().axes)
    assert found.state == "too few cells"


def test_the_headline_tells_how_much_is_undecided() -> None:
    """Law: the first sentence ends in a count of all planned contrasts by verdict, which adds up."""
    truth = Truth(BACKBONES, 0.9 + np.array([[0.0, 0.02]] * 3), 0.001, 0.001)
    table = run_table(truth, seeds=5)
    verdicts = estimate_contrasts(table, plan_contrasts(truth.axes))["verdict"]
    told = verdicts.isin(["higher", "lower"]).sum()
    equal = (verdicts == "no difference").sum()
    assert 0 < told < len(verdicts)
    head = answer_question(table, truth.axes).sentences[0]
    assert f"Of {len(verdicts)} planned contrasts {told} are told from zero" in head
    assert re.search(rf"{len(verdicts) - told - equal} (is|are) undecided\.$", head)


def test_budgets_whose_signs_differ_get_a_plain_sentence() -> None:
    """Law: attention ahead at equal MACs and behind at equal parameters is said in one sentence; equal studies turn nowhere."""
    first = run_table(metaformer(), seeds=5)
    second = first.copy()
    second.loc[second["token_mixer"] == "attention", "test_accuracy"] += 0.03
    compared = compare_studies({"at equal parameters": first, "at equal MACs": second}, ["patch_size", "token_mixer"])
    assert set(compared["study"]) == {"at equal parameters", "at equal MACs"}
    told = summarize_studies(compared, {"at equal parameters": None, "at equal MACs": None}, held="what is held equal")
    turning = (compare_signs(compared)["turns"] == "firm").sum()
    assert told[0].startswith(f"The sign turns with what is held equal in {turning} of {len(compared) // 2} planned contrasts")
    assert re.match(r"Averaged over patch size, attention − depthwise conv is −0.77 points \(.*\) at equal parameters", told[1])
    assert re.search(r"\+2.23 points \(.*\) at equal MACs: the sign turns with what is held equal\.$", told[1])
    same = compare_studies({"a": first, "b": first}, ["patch_size", "token_mixer"])
    assert set(compare_signs(same)["turns"]) <= {"no", "untold"}
    assert summarize_studies(same, {"a": None, "b": None}, held="the study")[0].startswith("No sign turns with the study: of ")


def test_a_doubtful_change_of_sign_is_called_doubtful() -> None:
    """Law: a sign that one study doesn't tell from zero may turn, not turns."""
    first = Truth(BACKBONES, 0.9 + np.array([[0.0, 0.02]] * 3), 0.001, 0.001)
    second = Truth(BACKBONES, 0.9 + np.array([[0.0, -0.002]] * 3), 0.001, 0.02)
    tables = {"at equal parameters": run_table(first, seeds=3), "at nothing": run_table(second, seeds=3, key="a")}
    found = summarize_studies(compare_studies(tables, list(BACKBONES)), dict.fromkeys(tables), held="the study")
    told = [sentence for sentence in found if sentence.startswith("Averaged over patch size, ViT")]
    assert len(told) == 1
    assert "; not told from zero)" in told[0] and told[0].endswith(": the sign may turn with the study.")


def test_who_carries_more_is_put_side_by_side() -> None:
    """Law: one winner everywhere is one statement; different winners depend on what is held equal; a draw is undecided."""
    backbone = FactorComparison("backbone", "patch size", (0.38, 0.1), decided=True)
    patch = FactorComparison("patch size", "backbone", (0.35, 0.02), decided=True)
    draw = FactorComparison("patch size", "backbone", (0.2, 0.18), decided=False)
    seeds = pd.Series([10, 10])
    (same,) = compare_factor_shares(
        {"at equal parameters": backbone, "at equal MACs": backbone}, held="what is held equal", seeds=seeds
    )
    assert same.startswith("The backbone carries more than the patch size at equal parameters (38 % of the variation")
    assert same.endswith("; n = 10 seeds in each.")
    (differ,) = compare_factor_shares(
        {"at equal parameters": backbone, "at equal MACs": patch}, held="what is held equal", seeds=seeds
    )
    assert differ.startswith("Which factor carries more depends on what is held equal: the backbone at equal parameters")
    (open_,) = compare_factor_shares(
        {"at equal parameters": backbone, "at equal MACs": draw}, held="what is held equal", seeds=seeds
    )
    assert "depends" not in open_ and "undecided at equal MACs" in open_
    assert compare_factor_shares({"at equal parameters": backbone, "at equal MACs": None}, held="it", seeds=seeds) == []


def test_without_a_varied_factor_there_is_an_accuracy_and_no_comparison() -> None:
    """Law: a sweep over seeds alone tells its one cell's mean, interval and n, whether its fixed level is named or not."""
    table = run_table(Truth({"lr": [0.01]}, np.array([0.9])), seeds=5)
    for levels in ({}, {"lr": [0.01]}):
        found = answer_question(table, levels)
        assert found.state == "answered"
        mean = f"{100 * table['test_accuracy'].mean():.1f}"
        assert found.text.startswith(f"Nothing is varied, so nothing is compared: test accuracy {mean} %")
        assert "n = 5 seeds, 95 % interval" in found.text


def test_seeds_that_no_comparison_shares_are_no_pairs() -> None:
    """Law: five done seeds on each side, none of them in common, are said to be no pair and not five seeds."""
    table = run_table(Truth({"lr": [0.001, 0.01]}, np.array([0.8, 0.9])), seeds=10, backbone="vit")
    apart = (table["seed"] < 5) == (table["lr"] == 0.01)
    found = answer_question(table.assign(status=np.where(apart, "done", "missing")), {"lr": [0.001, 0.01]})
    assert found.state == "too few seeds"
    assert "No answer: no seed has both runs of any comparison; 3 such seeds are the fewest." in found.sentences


def test_interactions_are_written_with_a_cross() -> None:
    """Law: a sentence for the terminal names an interaction as the tables do."""
    text = answer_question(run_table(metaformer()), metaformer().axes).text
    assert "patch size × token mixer" in text
    assert "patch size x token mixer" not in text
