"""The answer claims what the runs support, in words that fit the sweep."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
from simulated_study import Truth, keep_correctness, metaformer, run_table

from study.analysis.answer import Answer, answer_question
from study.analysis.cell_grid import Level
from study.analysis.factor_layout import list_levels
from study.analysis.margin import Margin
from study.analysis.study_comparison import compare_factors, compare_signs, join_contrasts, summarize_studies
from study.analysis.study_results import StudyResults

BACKBONES = {"patch_size": [1, 2, 4], "backbone": ["convmixer", "vit"]}
MIXERS = {"patch_size": [1, 2, 4], "token_mixer": ["attention", "depthwise_conv", "mlp", "identity"]}


def answer_table(table: pd.DataFrame, levels: Mapping[str, Sequence[Level]], *, baseline: float | None = None) -> Answer:
    table = table.assign(baseline_accuracy=np.nan if baseline is None else baseline)
    return answer_question(StudyResults(table, levels, margin=Margin(points=0.5)))


def answer_mixers(*, seeds: int = 5, baseline: float | None = None) -> Answer:
    return answer_table(run_table(metaformer(), seeds=seeds), metaformer().axes, baseline=baseline)


def patch_matters(*, range_of_mixers: float = 0.01) -> Truth:
    """Additive: patch sizes 16 points apart, token mixers by one or so, and a control far below."""
    mixers = np.array([range_of_mixers / 2, 0.0, -range_of_mixers / 2, -0.3])
    return Truth(MIXERS, 0.75 + np.array([0.08, 0.0, -0.08])[:, None] + mixers, 0.003, 0.003)


def contrasts_of(table: pd.DataFrame, factors: Sequence[str]) -> pd.DataFrame:
    found = StudyResults(table, {name: list_levels(table, name) for name in factors}, margin=Margin(points=0.5)).contrasts
    assert isinstance(found, pd.DataFrame)
    return found


def test_the_first_sentence_stands_alone() -> None:
    """Law: data set, budget, levels, n, number of test images, and the largest averaged difference with its interval."""
    study = StudyResults(*patch_study())
    head = answer_question(study).sentences[0]
    contrasts = study.contrasts
    assert isinstance(contrasts, pd.DataFrame)
    primary = contrasts[contrasts["primary"]]
    count = primary["verdict"].isin(["higher", "lower"]).sum()
    assert head.startswith("On digits at equal parameters, averaged over token mixer, ")
    assert head.endswith(
        f"; {count} of {len(primary)} primary contrasts are significant (patch size 1, 2, 4; token mixer attention, depthwise "
        "conv, MLP, identity; n = 5 seeds, 2,000 test images)."
    )
    row = primary[primary["contrast"] == "patch size 4 − patch size 2, averaged over token mixer"].iloc[0]
    limits = f"{100 * row['low']:+.2f} to {100 * row['high']:+.2f}".replace("-", "−")
    assert f"patch size 4 is {-100 * row['difference']:.2f} points lower than patch size 2 (95 % interval {limits})" in head


def patch_study(*, seeds: int = 5) -> tuple[pd.DataFrame, Mapping[str, Sequence[Level]], pd.DataFrame]:
    table, correctness = keep_correctness(run_table(patch_matters(), seeds=seeds))
    return table, MIXERS, correctness


def test_without_correctness_the_first_sentence_speaks_of_these_test_images() -> None:
    """Law: also where one run lacks it, or there are several test sets; the last sentence says why."""
    table, levels, correctness = patch_study()
    assert "these" not in answer_question(StudyResults(table, levels, correctness)).sentences[0]
    for own, kept in ((table, correctness[:0]), (table, correctness[1:]), (changed_digest(table), correctness)):
        found = answer_question(StudyResults(own, levels, kept))
        assert "n = 5 seeds, on these 2,000 test images)." in found.sentences[0]
        assert re.search(r"over new training seeds on these test images \(.*(kept|test images)", found.sentences[-1])


def changed_digest(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(data_digest=["b", *["a"] * (len(table) - 1)])


def test_nothing_significant_is_the_first_thing_said() -> None:
    """Law: without a significant primary contrast the headline says so, with the largest estimate, and claims no factor."""
    truth = Truth(MIXERS, np.full((3, 4), 0.9), 0.004, 0.01)
    found = answer_table(run_table(truth, seeds=3), MIXERS)
    assert found.sentences[0].startswith("On digits at equal parameters, none of 8 primary contrasts is significant; ")
    assert "the largest averaged estimate is" in found.sentences[0]
    assert found.larger is None and "matters more than" not in found.text


def test_each_factor_has_its_range_and_its_contrasts() -> None:
    """Law: best minus worst without the control, bounds, and every primary contrast with interval and verdict."""
    sentences = answer_question(StudyResults(*patch_study())).sentences
    assert re.match(
        r"Patch size \(averaged over token mixer\): range 1\d\.\d\d points \(.*\), best 1, worst 4; "
        r"2 − 1: −\S+ points \(.*\), lower; 4 − 2: ",
        sentences[1],
    )
    assert re.match(
        r"Token mixer \(averaged over patch size\): range \d\.\d\d points .*, best attention, worst MLP;", sentences[2]
    )
    assert re.search(r"identity − depthwise conv \(control\): −\S+ points \(.*\), lower", sentences[2])


def test_a_factor_matters_more_where_its_range_is_larger_throughout() -> None:
    """Law: claimed where the ranges differ, without any one level too; not where they are equal."""
    found = answer_question(StudyResults(*patch_study()))
    assert found.larger == "patch_size"
    assert "The patch size matters more than the token mixer here: the range of the patch size minus that of" in found.text
    equal = answer_table(run_table(patch_matters(range_of_mixers=0.16), seeds=5), MIXERS)
    assert equal.larger is None
    assert "Whether the patch size or the token mixer matters more here is inconclusive" in equal.text


def test_a_range_that_hangs_on_one_level_is_no_claim() -> None:
    """Law: patch sizes 2 and 4 are alike, so that the larger range of the patch size is that of patch size 1 alone."""
    means = 0.7 + np.array([0.16, 0.0, 0.001])[:, None] + np.array([0.02, 0.0, -0.02, -0.3])
    found = answer_table(run_table(Truth(MIXERS, means, 0.003, 0.003), seeds=5), MIXERS)
    assert found.larger is None
    assert "depends on the levels" in found.text and "has not the same sign without patch size 1" in found.text


def test_two_levels_are_compared_with_nothing() -> None:
    """Law: an effect of two levels is theirs alone, whatever its size."""
    truth = Truth(BACKBONES, 0.9 + np.array([[0.0, 0.0], [0.01, 0.01], [0.0, 0.01]]) - np.array([0.0, 0.2]), 0.002, 0.002)
    found = answer_table(run_table(truth), BACKBONES)
    assert found.larger is None
    assert "The backbone has two levels here: its effect is that of two levels alone" in found.text
    pair = {"patch_size": [1, 2], "backbone": ["convmixer", "vit"]}
    both = answer_table(run_table(Truth(pair, truth.means[:2], 0.002, 0.002)), pair)
    assert both.text.count("two levels here") == 1
    assert "The patch size has two levels and the backbone has two levels here: each of these effects is that of" in both.text


def test_an_empty_cell_is_named_and_both_ways_around_it_are_shown() -> None:
    """Law: a tie of the largest complete designs gives the ranges of each; no factor is compared where a level is lost."""
    table = run_table(patch_matters(), seeds=5)
    gone = (table["patch_size"] == 1) & (table["token_mixer"] == "mlp")
    found = answer_table(table.assign(status=table["status"].mask(gone, "failed")), MIXERS)
    assert found.state == "provisional" and found.larger is None
    assert (
        "the ranges are those in each of the largest complete parts of the study, without patch size 1 and without MLP"
        in found.text
    )


def test_every_factor_of_which_two_levels_are_left_is_named() -> None:
    """Law: around a hole, one part lacks a patch size and the other a mixer; a control isn't compared either."""
    axes = {"patch_size": [1, 2, 4], "token_mixer": ["attention", "depthwise_conv", "mlp"]}
    table = run_table(Truth(axes, 0.7 + np.add.outer([0.1, 0.0, -0.1], [0.01, 0.0, -0.01]), 0.003, 0.003))
    found = answer_table(table[(table["patch_size"] != 4) | (table["token_mixer"] != "attention")].reset_index(drop=True), axes)
    assert found.state == "answered"  # not planned, so nothing is missing
    assert (
        "The patch size is compared at 1 and 2 and the token mixer is compared at depthwise conv and MLP here: each of these "
        "effects is that of two levels alone"
    ) in found.text
    assert "Some combinations of levels lack runs" in found.text
    assert re.search(r"range \S+ points \(\S+ to \S+\), without attention, best 1", found.text)
    controls = answer_mixers()
    assert "The token mixer is compared at attention and depthwise conv here" in controls.text


def test_a_contrast_without_runs_says_why() -> None:
    """Law: what no seed has is said in place of a difference; where the runs diverged, that is the verdict."""
    table = run_table(metaformer(), seeds=5)
    gone = (table["patch_size"] == 4) & (table["token_mixer"] == "attention")
    found = answer_table(table.assign(status=table["status"].mask(gone, "missing")), metaformer().axes)
    assert "attention − depthwise conv: no seed has all the runs that it needs; identity" in found.text
    diverged = answer_table(table.assign(status=table["status"].mask(gone, "diverged")), metaformer().axes)
    assert "no seed has all the runs that it needs, inconclusive: diverged runs; identity" in diverged.text
    pair = run_table(Truth({"lr": [0.001, 0.01]}, np.array([0.8, 0.9])), backbone="vit")
    alone = answer_table(pair.assign(status=pair["status"].mask(pair["lr"] == 0.01, "diverged")), {"lr": [0.001, 0.01]})
    assert alone.state == "too few seeds" and "5 runs diverged and are excluded" in alone.text


def test_ranges_need_three_common_seeds() -> None:
    """Law: three runs of one patch size that failed with three of five seeds leave two in common, and five without it."""
    axes = {"patch_size": [1, 2, 4], "token_mixer": ["attention", "depthwise_conv", "mlp"]}
    table = run_table(Truth(axes, 0.7 + np.add.outer([0.1, 0.0, -0.1], [0.01, 0.0, -0.01]), 0.003, 0.003))
    table.loc[[0, 6, 12], "status"] = "failed"
    assert "in the largest complete part of the study, without patch size 1." in answer_table(table, axes).text
    cross = table[(table["token_mixer"] == "attention") | (table["patch_size"] == 1)].reset_index(drop=True)
    assert "no two levels of each factor have three seeds in common in all combinations" in answer_table(cross, axes).text
    control = {"token_mixer": ["attention", "identity"]}
    assert "ranges:" not in answer_table(run_table(Truth(control, np.array([0.9, 0.5]))), control).text


def test_several_test_sets_have_no_single_number_of_images() -> None:
    """Law: the number of one data set isn't given as that of all."""
    table, levels, _ = patch_study()
    table["test_images"] = np.where(table["patch_size"] == 1, 360, 2000)
    assert "n = 5 seeds, on these test images)." in answer_question(StudyResults(table, levels)).sentences[0]


def test_diverged_runs_overturn_a_claim_that_they_could_reverse() -> None:
    """Law: one run of five at chance makes patch sizes as far apart as mixers; far larger ranges stay a claim."""
    table = run_table(patch_matters(), seeds=5)
    here = (table["patch_size"] == 1) & (table["token_mixer"] == "mlp") & (table["seed"] == 0)
    found = answer_table(table.assign(status=table["status"].mask(here, "diverged")), MIXERS)
    assert found.state == "answered"
    assert "1 run diverged and is excluded from the means, which it could change by up to 1" in found.text
    assert found.larger is None and "which the diverged runs could reverse" in found.text


def test_doubtful_choices_of_tuning_are_flagged() -> None:
    """Law: cells at the end of their range, and those that resampled trials choose anew, are counted, and named if few."""
    study = StudyResults(run_table(patch_matters(), seeds=3), MIXERS)
    cells = study.cells[["patch_size", "token_mixer"]]
    edge = [("lr",) if size == 1 else () for size in cells["patch_size"]]
    another = np.where((cells["patch_size"] == 2) & (cells["token_mixer"] == "mlp"), 0.6, 0.4)
    choices = cells.assign(edge=edge, another=another, choice_variance=1e-5)
    sentences = answer_question(study, choices=choices).sentences
    assert "In 4 of 12 tuned cells the best learning rate is the lowest or highest tried, so" in " ".join(sentences)
    assert "In 1 of 12 tuned cells (patch size 2, MLP) resampled trials choose another candidate" in " ".join(sentences)
    assert "the standard errors count what this choice adds" in " ".join(sentences)
    own = answer_question(study, choices=choices.assign(choice_variance=np.nan))  # each seed tuned for itself
    assert "the spread over seeds counts what this choice adds" in own.text
    assert "tuned cells" not in answer_question(study).text


def test_interactions_are_changes_of_a_difference() -> None:
    """Law: attention, worse at small patches and better at large ones, changes against depthwise convolution."""
    text = answer_mixers(seeds=10).text
    assert re.search(
        r"The factors interact: attention − depthwise conv changes by \+\d\.\d\d points .* from patch size 1 to patch size 4",
        text,
    )
    additive = answer_table(run_table(patch_matters(), seeds=5), MIXERS).text
    assert "No interaction contrast is significant; the largest estimate: " in additive


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
    assert found.sentences[0].startswith("Undertrained: no answer. 2 cells do not exceed the test accuracy of a linear")
    assert "patch size 4, attention (83.0 %, baseline 85.0 %)" in found.text
    assert "points" not in found.text
    all_cells = answer_mixers(baseline=0.99).sentences[0]
    assert "6 cells do not exceed" in all_cells and all_cells.count("baseline 99.0 %") == 3
    assert "linear baseline: patch size 4, depthwise conv (82." in all_cells or "patch size 4, attention (83." in all_cells
    assert all_cells.endswith("; and 3 more.")


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


def test_each_cell_is_compared_with_the_baseline_of_its_images() -> None:
    """Law: 52 % exceeds a baseline of 30 % on fewer images; 80 % does not exceed the 85 % of more."""
    axes = {"patch_size": [1, 2], "train_images": [100, 1000]}
    for lowest, state in ((0.9, "answered"), (0.8, "undertrained")):
        table = run_table(Truth(axes, np.array([[0.55, 0.95], [0.52, lowest]]), 0.0, 0.001))
        baselines = table["train_images"].map({100: 0.3, 1000: 0.85})
        found = answer_question(StudyResults(table.assign(baseline_accuracy=baselines), axes))
        assert found.state == state
    assert "1 cell does not exceed" in found.text and "baseline 85.0 %" in found.text


def test_cells_without_runs_are_not_said_to_exceed_the_baseline() -> None:
    """Law: the sentence speaks of all cells only if all were measured."""
    table = run_table(metaformer(), seeds=5).assign(baseline_accuracy=0.2)
    assert (
        "All non-control cells exceed the linear baseline of 20.0 %"
        in answer_question(StudyResults(table, metaformer().axes)).text
    )
    gone = (table["patch_size"] == 4) & (table["token_mixer"] == "attention")
    table["status"] = table["status"].mask(gone, "missing")
    assert "All measured non-control cells exceed" in answer_question(StudyResults(table, metaformer().axes)).text


@pytest.mark.parametrize("seeds", [1, 2])
def test_under_three_seeds_nothing_is_claimed(seeds: int) -> None:
    """Law: differences are shown without interval, and the first sentence says that there is no answer."""
    found = answer_mixers(seeds=seeds)
    assert found.state == "too few seeds"
    assert found.sentences[0].startswith(f"No answer: {seeds} seed")
    assert not any(word in found.text for word in ("higher", "lower", "matters more"))


def test_an_unfinished_sweep_says_so_first() -> None:
    """Law: the first sentence counts the runs shown and the missing ones."""
    table = run_table(metaformer(), seeds=5)
    table.loc[[0, 7, 8], "status"] = ["failed", "missing", "missing"]
    found = answer_table(table, metaformer().axes)
    assert found.state == "provisional"
    assert found.sentences[0] == "Provisional: 42 of 45 runs (1 failed, 2 missing)."


def test_a_study_without_a_finished_run_has_no_answer() -> None:
    """Law: without a finished run nothing is claimed."""
    found = answer_table(run_table(metaformer()).assign(status="missing"), metaformer().axes)
    assert found.state == "no runs"


def test_equivalence_has_a_margin() -> None:
    """Law: equal backbones are equivalent with many seeds, and inconclusive with few; both are explained by the margin."""
    truth = Truth(BACKBONES, np.full((3, 2), 0.9), 0.004, 0.003)
    found = answer_table(run_table(truth, seeds=20), BACKBONES)
    assert ", equivalent" in found.sentences[2] and "4 equivalent within 0.5 points" in found.sentences[0]
    assert "The smallest effect of interest is 0.5 points: equivalent contrasts" in found.text
    noisy = Truth(BACKBONES, np.full((3, 2), 0.9), 0.004, 0.02)
    assert "ViT − ConvMixer" in (sentence := answer_table(run_table(noisy, seeds=3), BACKBONES).sentences[2])
    assert sentence.endswith(", inconclusive.")
    unstated = answer_question(StudyResults(run_table(noisy, seeds=3), BACKBONES)).text
    assert "states no effect of interest, so no contrast can be called equivalent" in unstated
    clear = Truth({"lr": [0.001, 0.01]}, np.array([0.8, 0.9]))
    assert "of interest" not in answer_table(run_table(clear, backbone="vit"), clear.axes).text


def test_one_factor_is_answered_by_its_differences() -> None:
    """Law: without a second factor there are no shares, only differences."""
    truth = Truth({"lr": [0.001, 0.01]}, np.array([0.8, 0.9]))
    found = answer_table(run_table(truth, backbone="vit"), truth.axes)
    assert "parameters, learning rate 0.01 is 10." in found.sentences[0]
    assert "; the primary contrast is significant (" in found.sentences[0]
    assert found.sentences[1].startswith("Learning rate: 0.01 − 0.001: +10.")
    assert "interact" not in found.text


def test_without_contrasts_there_are_too_few_cells() -> None:
    """Law: with cells on one diagonal only, no two cells differ in one factor."""
    table = run_table(metaformer(), seeds=3)
    diagonal = table["token_mixer"].map({"attention": 1, "depthwise_conv": 2, "identity": 4}) == table["patch_size"]
    found = answer_table(table[diagonal].reset_index(drop=True), metaformer().axes)
    assert found.state == "too few cells"


def test_budgets_whose_signs_differ_get_a_sentence() -> None:
    """Law: attention better at equal MACs and worse at equal parameters is one sentence; equal studies change no sign."""
    first = run_table(metaformer(), seeds=5)
    second = first.copy()
    second.loc[second["token_mixer"] == "attention", "test_accuracy"] += 0.03
    tables = {"at equal parameters": first, "at equal MACs": second}
    factors = ["patch_size", "token_mixer"]
    compared = join_contrasts({name: contrasts_of(table, factors) for name, table in tables.items()})
    assert set(compared["study"]) == {"at equal parameters", "at equal MACs"}
    sentences = summarize_studies(compared, {}, dict.fromkeys(tables), held="what is held equal")
    assert (compare_signs(compared)["sign_change"] == "significant").sum() == 2  # the other is exploratory
    assert sentences[0].startswith("The sign changes with what is held equal in 1 of 6 primary contrasts; 5 have")
    assert re.match(
        r"Averaged over patch size, attention − depthwise conv is −0.77 points \(.*\) at equal parameters", sentences[1]
    )
    assert re.search(r"\+2.23 points \(.*\) at equal MACs: the sign changes with what is held equal\.$", sentences[1])
    same = join_contrasts({name: contrasts_of(first, factors) for name in ("a", "b")})
    assert set(compare_signs(same)["sign_change"]) <= {"none", "not significant"}
    assert summarize_studies(same, {}, {"a": None, "b": None}, held="the study")[0].startswith(
        "No contrast changes sign with the study: of "
    )


def test_a_change_of_sign_that_is_not_significant_is_possible() -> None:
    """Law: a sign that is not significant in one study "may change"."""
    first = Truth(BACKBONES, 0.9 + np.array([[0.0, 0.02]] * 3), 0.001, 0.001)
    second = Truth(BACKBONES, 0.9 + np.array([[0.0, -0.002]] * 3), 0.001, 0.02)
    tables = {"at equal parameters": run_table(first, seeds=3), "at nothing": run_table(second, seeds=3, key="a")}
    compared = join_contrasts({name: contrasts_of(table, list(BACKBONES)) for name, table in tables.items()})
    found = summarize_studies(compared, {}, dict.fromkeys(tables), held="the study")
    sentences = [sentence for sentence in found if sentence.startswith("Averaged over patch size, ViT")]
    assert len(sentences) == 1
    assert "; not significant)" in sentences[0] and sentences[0].endswith(": the sign may change with the study.")


def test_factors_that_matter_more_are_compared_between_studies() -> None:
    """Law: one factor everywhere is one statement; different factors depend on what is held equal; none claims nothing."""
    (same,) = compare_factors({"at equal parameters": "backbone", "at equal MACs": "backbone"}, held="what is held equal")
    assert same == "The backbone matters more than the other factor at equal parameters and at equal MACs."
    (differ,) = compare_factors({"at equal parameters": "backbone", "at equal MACs": "patch_size"}, held="what is held equal")
    assert differ.startswith("Which factor matters more depends on what is held equal: the backbone at equal parameters and")
    (some,) = compare_factors({"at equal parameters": "backbone", "at equal MACs": None}, held="it")
    assert "depends" not in some and "not decided at equal MACs" in some
    assert compare_factors({"at equal parameters": None, "at equal MACs": None}, held="it") == []


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
