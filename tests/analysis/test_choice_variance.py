"""What tuning's choice adds to a cell's variance: bounds, special cases, and the rates of false differences with it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from benchmarks.tuned_pairs import TunedStudy
from study.analysis.choice_variance import CandidateTrials, estimate_choice_variances, resample_choices
from study.rng import stream


def drawn(*accuracies: float, images: int = 180, seeds: int = 2, key: str = "") -> CandidateTrials:
    """Candidates of these expected accuracies, images independent; the best of them first."""
    rng = stream(0, "candidates", key, *map(str, accuracies))
    correct = rng.random((len(accuracies), seeds, images)) < np.array(accuracies)[:, None, None]
    order = np.argsort(-correct.mean(axis=(1, 2)), kind="stable")
    return CandidateTrials(key, correct[order].mean(axis=2), images, correct[order])


@pytest.mark.parametrize("study", [TunedStudy(), TunedStudy((0.0, 1.0, 2.5), 0.7)], ids=["98.5 %", "70 %"])
def test_tuned_equals_are_rarely_called_different(study):
    """Law: at most 10 % false differences with one choice per cell, fewer than where the choice is ignored.

    200 studies: a rate of 5 % has a Monte Carlo standard error of 1.5 points. The whole table: docs/tuning.md.
    """
    ignored, counted = study.false_rates(200)
    assert counted <= 0.10 and counted < ignored


def test_seeds_that_tune_for_themselves_need_no_correction():
    """Law: at most 6 % false differences, within three Monte Carlo standard errors, since the choices differ over the seeds."""
    assert TunedStudy(per_seed=True, seeds=5).false_rates(200)[0] <= 0.06 + 3 * 0.015


def test_resampled_choices_have_the_probabilities_of_a_normal_difference():
    """Oracle: two candidates' difference over independent images is nearly normal, so another choice has the normal's tail."""
    trials = drawn(0.90, 0.88, images=4000, seeds=1)
    gap = float(np.diff(trials.accuracy[::-1, 0])[0])
    assert trials.correct is not None
    se = (trials.correct[0, 0].astype(float) - trials.correct[1, 0]).std() / np.sqrt(4000)
    expected = stats.norm.sf(gap / se)
    assert (resample_choices(trials) == 1).mean() == pytest.approx(expected, abs=4 * np.sqrt(expected / 2000) + 0.005)


def test_resampling_draws_seeds_and_images():
    """Law: candidates that each lead with one of two seeds, on images that all answer alike, are chosen by the seeds drawn.

    Both are equal where both seeds are drawn, which keeps the first; the other wins where its seed is drawn twice.
    """
    correct = np.zeros((2, 2, 100), dtype=bool)
    correct[0, 0], correct[1, 1] = True, True
    trials = CandidateTrials("seeds", correct.mean(axis=2), 100, correct)
    assert (resample_choices(trials) == 1).mean() == pytest.approx(0.25, abs=0.04)
    alone = replace(trials, accuracy=trials.accuracy[:, :1], correct=correct[:, :1])
    assert not resample_choices(alone).any()


def test_shared_images_are_drawn_once_for_all_seeds():
    """Law: with the same images for all seeds their errors don't average out, so another choice is more frequent."""
    rng = stream(0, "shared images")
    one = rng.random((2, 1, 300)) < np.array([0.9, 0.87])[:, None, None]
    correct = np.repeat(one, 4, axis=1)
    own = CandidateTrials("images", correct.mean(axis=2), 300, correct)
    rates = [(resample_choices(replace(own, shared=shared)) == 1).mean() for shared in (False, True)]
    single = (resample_choices(replace(own, accuracy=own.accuracy[:, :1], correct=one)) == 1).mean()
    assert rates[0] < rates[1] == pytest.approx(single, abs=0.04)


def test_diverged_trials_rank_last():
    """Law: a candidate with a diverged trial wins only where that seed isn't drawn; one that always diverges never does."""
    accuracy = np.array([[0.8, 0.8], [0.9, np.nan], [np.nan, np.nan]])
    choices = resample_choices(CandidateTrials("diverged", accuracy, 100_000))
    assert (choices == 1).mean() == pytest.approx(0.25, abs=0.04) and not (choices == 2).any()
    assert estimate_choice_variances([CandidateTrials("diverged", accuracy, 100_000)]).tolist() == [0.0]


def test_a_clear_choice_adds_nothing_and_a_close_one_less_than_the_noise():
    """Law: 0 where one candidate is far ahead; below half of a candidate's error variance else; many images make it small."""
    clear, close = drawn(0.99, 0.8, 0.5, key="clear"), drawn(0.90, 0.90, 0.89, key="close")
    large = drawn(0.90, 0.90, 0.89, images=20_000, key="large")
    found = estimate_choice_variances([clear, close, large])
    noise = 0.9 * 0.1 / 180 / 2
    assert found[0] == 0 and 0 < found[1] < noise / 2 and found[2] < found[1] / 20
    assert estimate_choice_variances([clear, close, large]).tolist() == found.tolist()  # a fixed random stream
    assert estimate_choice_variances([]).tolist() == []
    rarely = drawn(0.90, 0.86, images=400, key="rarely1")
    assert 0 < (resample_choices(rarely) > 0).mean() < 0.01 and estimate_choice_variances([rarely, close])[0] == 0


@pytest.mark.parametrize("kept", [True, False])
def test_the_variance_is_that_of_new_tunings(kept):
    """Oracle: the variance of the chosen candidate's true accuracy over simulated tunings, on the average over studies.

    With or without correctness per image, between a third of it and three times it, for candidates that do differ.
    """
    truth, rng = np.array([0.90, 0.89, 0.87]), stream(0, "new tunings")
    hits = rng.binomial(2 * 180, truth, size=(20_000, 3))
    expected = truth[np.argmax(hits + 1e-6 * rng.random(hits.shape), axis=1)].var()
    studies = [drawn(*truth, key=str(key)) for key in range(60)]
    if not kept:
        studies = [replace(study, correct=None) for study in studies]
    found = np.mean([estimate_choice_variances(studies[n : n + 4]).mean() for n in range(0, 60, 4)])
    assert expected / 3 < found < 3 * expected
