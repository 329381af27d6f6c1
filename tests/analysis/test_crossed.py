"""Standard errors over seeds and images: held against REML of a mixed model, against the truth in simulations, and by laws."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from study.analysis.crossed import crossed_estimate


def normal_study(rng: np.random.Generator, *, seeds: int, images: int, seed_sd: float, image_sd: float) -> np.ndarray:
    """One study `1 n m` of the two-way random model with residuals of standard deviation 1."""
    rows = seed_sd * rng.normal(size=(1, seeds, 1)) + image_sd * rng.normal(size=(1, 1, images))
    return rows + rng.normal(size=(1, seeds, images))


@pytest.mark.parametrize(("seeds", "images"), [(4, 12), (6, 9)])
def test_variance_is_that_of_a_mixed_model(seeds: int, images: int) -> None:
    """On balanced data with positive components REML's estimates give the same variance of the mean."""
    values = normal_study(np.random.default_rng(seeds), seeds=seeds, images=images, seed_sd=2.0, image_sd=1.5)
    place = np.indices((seeds, images)).reshape(2, -1)
    frame = pd.DataFrame({"y": values.ravel(), "seed": place[0], "image": place[1], "all": 1})
    parts = {"seed": "0 + C(seed)", "image": "0 + C(image)"}
    model = sm.MixedLM.from_formula("y ~ 1", groups="all", vc_formula=parts, re_formula="0", data=frame)
    fitted = model.fit(reml=True, method="powell")
    components = dict(zip(fitted.model.exog_vc.names, fitted.vcomp, strict=True))
    expected = components["seed"] / seeds + components["image"] / images + fitted.scale / (seeds * images)
    found = crossed_estimate(values)
    assert found.covariance[0, 0] == pytest.approx(expected, rel=0.02)
    assert found.mean[0] == pytest.approx(float(fitted.fe_params.iloc[0]), abs=1e-6)
    assert found.seed_share[0] == pytest.approx(components["seed"] / seeds / expected, rel=0.05)


def correctness(
    rng: np.random.Generator, *, studies: int, seeds: int, images: int, accuracy: float, spread: tuple[float, float, float]
) -> np.ndarray:
    """Correctness `studies 2 n m` of two architectures of equal expected accuracy, by a logistic model.

    `spread`: standard deviations, on the logit scale, of an image's difficulty (shared), of an image's difficulty for one
    architecture, and of a seed.
    """
    shared, own, seed = spread
    latent = np.sqrt(shared**2 + own**2 + seed**2) * stats.norm.ppf((np.arange(2000) + 0.5) / 2000)
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 / (1 + np.exp(-(middle + latent)))).mean() < accuracy else (low, middle)
    logit = low + shared * rng.normal(size=(studies, 1, 1, images)) + own * rng.normal(size=(studies, 2, 1, images))
    logit = logit + seed * rng.normal(size=(studies, 2, seeds, 1))
    return (rng.random((studies, 2, seeds, images)) < 1 / (1 + np.exp(-logit))).astype(float)


@pytest.mark.parametrize("seeds", [3, 10])
@pytest.mark.parametrize(("accuracy", "spread"), [(0.985, (4.0, 2.0, 0.05)), (0.7, (2.0, 1.0, 0.1))])
def test_equal_architectures_are_rarely_called_different(
    seeds: int, accuracy: float, spread: tuple[float, float, float]
) -> None:
    """With new seeds and new images in every study the test errs in at most 6 %; over seeds alone it errs far more often."""
    studies = 400
    found = correctness(np.random.default_rng(7), studies=studies, seeds=seeds, images=360, accuracy=accuracy, spread=spread)
    crossed_errors = naive_errors = 0
    for first, second in found:
        difference = (first - second)[None]
        estimate = crossed_estimate(difference)
        low, high = estimate.interval()
        crossed_errors += not low[0] <= 0 <= high[0]
        by_seed = difference[0].mean(axis=1)
        naive_errors += seeds == 10 and abs(by_seed.mean()) > stats.t.ppf(0.975, 9) * by_seed.std(ddof=1) / np.sqrt(10)
    assert crossed_errors / studies <= 0.06 + 2 * np.sqrt(0.06 * 0.94 / studies)
    if seeds == 10:
        assert naive_errors / studies > 0.1


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_cover_the_expected_accuracy(seeds: int) -> None:
    studies = 400
    found = correctness(
        np.random.default_rng(8), studies=studies, seeds=seeds, images=360, accuracy=0.7, spread=(2.0, 1.0, 0.1)
    )
    estimates = [crossed_estimate(study[:1]).interval() for study in found]
    covered = np.mean([low[0] <= 0.7 <= high[0] for low, high in estimates])
    assert covered >= 0.93 - 2 * np.sqrt(0.93 * 0.07 / studies)


def test_seeds_and_images_are_only_names() -> None:
    values = normal_study(np.random.default_rng(3), seeds=4, images=30, seed_sd=0.3, image_sd=0.5)
    rng = np.random.default_rng(4)
    shuffled = values[:, rng.permutation(4)][:, :, rng.permutation(30)]
    one, other = crossed_estimate(values), crossed_estimate(shuffled)
    assert one.covariance == pytest.approx(other.covariance) and one.df == pytest.approx(other.df)


def test_the_variance_never_falls_below_one_source_alone() -> None:
    """Where seeds agree more than the images let them, the images' own standard error is kept, with its degrees of freedom."""
    image = np.random.default_rng(5).normal(size=50)
    noise = 1e-3 * np.outer([1.0, -1.0, 0.0], np.tile([1.0, -1.0], 25))  # no seed's mean differs from another's
    values = (image + noise)[None]
    found = crossed_estimate(values)
    assert found.standard_error[0] == pytest.approx(image.std(ddof=1) / np.sqrt(50), rel=1e-4)
    assert found.df[0] == 49


def test_covariance_of_contrasts_is_that_of_their_sum() -> None:
    """Var(a + b) = Var(a) + 2 Cov(a, b) + Var(b), where no floor holds."""
    rng = np.random.default_rng(6)
    a, b = (normal_study(rng, seeds=6, images=40, seed_sd=1.0, image_sd=1.0) for _ in range(2))
    both, total = crossed_estimate(np.concatenate([a, b])), crossed_estimate(a + b)
    assert total.covariance[0, 0] == pytest.approx(both.covariance.sum())


def test_fewer_than_two_seeds_or_images_have_no_standard_error() -> None:
    with pytest.raises(ValueError, match="two seeds"):
        crossed_estimate(np.ones((1, 1, 5)))
