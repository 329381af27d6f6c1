"""Standard errors over seeds and images: held against REML of a mixed model, against the truth in simulations, and by laws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from simulated_study import correctness_grid, draw_correctness, estimate_values

from study.analysis import crossed
from study.analysis.crossed import estimate_weighted_means
from study.rng import stream


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
    found = estimate_values(values)
    assert found.covariance[0, 0] == pytest.approx(expected, rel=0.02)
    assert found.mean[0] == pytest.approx(float(fitted.fe_params.iloc[0]), abs=1e-6)
    # More seeds reduce the residual's part too; only the images' own component stays.
    assert found.seed_share[0] == pytest.approx(1 - components["image"] / images / expected, rel=0.01)


def mean_squares(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Mean products of seeds, images and residual of two tables `n m`, from their definitions."""
    n, m = a.shape
    parts = []
    for table, mean in ((a, a.mean()), (b, b.mean())):
        seed, image = table.mean(axis=1, keepdims=True) - mean, table.mean(axis=0, keepdims=True) - mean
        parts.append((seed, image, table - mean - seed - image))
    (s, i, r), (t, j, q) = parts
    return m * (s * t).sum() / (n - 1), n * (i * j).sum() / (m - 1), (r * q).sum() / ((n - 1) * (m - 1))


def test_estimates_are_those_of_the_definition_also_with_missing_runs() -> None:
    """Law: variances, degrees of freedom and covariances follow from mean squares over the (common) seeds of the contrasts."""
    correct = draw_correctness(stream(0, "definition"), studies=1, seeds=7, images=90, accuracy=0.7, cells=4)[0]
    grid = correctness_grid(correct)
    values, kept = grid.values.copy(), np.ones((4, 7), dtype=bool)
    kept[0, [0, 3]] = kept[2, 3:5] = False
    values[~kept] = np.nan
    grid = replace(grid, values=values, correct=correct & kept[:, :, None])
    weights = np.array([[1, -1, 0, 0], [0, 0, 1, -1], [0.5, -0.5, 0.5, -0.5], [0, 1, 0, -1]])
    found = estimate_weighted_means(grid, weights)
    seeds = [{1, 2, 4, 5, 6}, {0, 1, 2, 5, 6}, {1, 2, 5, 6}, set(range(7))]
    assert found.n.tolist() == [len(own) for own in seeds]
    tables = np.tensordot(weights, correct.astype(float), axes=1)
    for k, own in enumerate(seeds):
        d, n = tables[k, sorted(own)], len(own)
        s, i, r = mean_squares(d, d)
        variance = max(s, i, s + i - r) / (n * 90)
        assert (found.mean[k], found.covariance[k, k]) == (pytest.approx(d.mean()), pytest.approx(variance))
        assert found.sd[k] == pytest.approx(d.mean(axis=1).std(ddof=1))
        if s + i - r > max(s, i):
            df = (s + i - r) ** 2 / (s**2 / (n - 1) + i**2 / 89 + r**2 / ((n - 1) * 89))
            assert found.df[k] == pytest.approx(df)
    for k, other in ((0, 1), (0, 3), (1, 2)):
        common = sorted(seeds[k] & seeds[other])
        s, i, r = mean_squares(tables[k, common], tables[other, common])
        share = len(common) / len(seeds[k]) / len(seeds[other])
        expected = share * s / 90 + (i - r) / len(common) / 90
        pair = estimate_weighted_means(grid, weights[[k, other]])  # by themselves no repair of the matrix is needed
        assert pair.covariance[0, 1] == pytest.approx(expected)


def test_many_runs_are_counted_in_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimates are those of the pairs of runs, one by one."""
    grid = correctness_grid(draw_correctness(stream(0, "sums"), studies=1, seeds=4, images=70, accuracy=0.7, cells=5)[0])
    weights = stream(0, "weights").standard_normal((6, 5))
    pairs = estimate_weighted_means(grid, weights)
    monkeypatch.setattr(crossed, "MANY_RUNS", 0)
    monkeypatch.setattr(type(grid), "joint_counts", None)
    sums = estimate_weighted_means(grid, weights)
    np.testing.assert_allclose(sums.covariance, pairs.covariance, rtol=1e-9)
    np.testing.assert_allclose(sums.df, pairs.df, rtol=1e-9)


def test_without_correctness_it_is_students_t() -> None:
    """Law: mean, interval and p are scipy's of the weighted sums within seeds; covariances are the sample's over n."""
    values = normal_study(np.random.default_rng(1), seeds=6, images=3, seed_sd=1.0, image_sd=1.0)[0].T
    grid = replace(correctness_grid(np.zeros((3, 6, 5), dtype=bool)), values=values, correct=None)
    weights = np.array([[1.0, -1.0, 0.0], [0.5, 0.5, -1.0]])
    found = estimate_weighted_means(grid, weights)
    sums = weights @ values
    for k, own in enumerate(sums):
        test = stats.ttest_1samp(own, 0)
        limits = test.confidence_interval(0.95)
        assert [found.p[k], *(end[k] for end in found.interval())] == pytest.approx([test.pvalue, limits.low, limits.high])
    np.testing.assert_allclose(found.covariance, np.cov(sums) / 6)
    assert found.images is None and np.isnan(found.seed_share).all()


def test_what_tunings_choice_adds_is_added() -> None:
    """Law: W diag(v) W' for the variances v of the cells."""
    grid = correctness_grid(draw_correctness(stream(0, "choice"), studies=1, seeds=4, images=50, accuracy=0.7, cells=3)[0])
    weights = np.array([[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]])
    plain = estimate_weighted_means(grid, weights).covariance
    chosen = estimate_weighted_means(replace(grid, choice_variance=np.array([1e-3, 2e-3, 0.0])), weights).covariance
    np.testing.assert_allclose(chosen - plain, [[3e-3, 1e-3], [1e-3, 1e-3]])


@pytest.mark.parametrize("seeds", [3, 10])
@pytest.mark.parametrize("accuracy", [0.985, 0.7])
def test_equal_architectures_are_rarely_called_different(seeds: int, accuracy: float) -> None:
    """With new seeds and new images in every study the test errs in at most 6 %; over seeds alone it errs far more often."""
    studies = 300
    found = draw_correctness(np.random.default_rng(7), studies=studies, seeds=seeds, images=360, accuracy=accuracy)
    grids = [correctness_grid(study) for study in found]
    gap = np.array([[1.0, -1.0]])
    errors = np.mean([estimate_weighted_means(grid, gap).p[0] < 0.05 for grid in grids])
    assert errors <= 0.06 + 2 * np.sqrt(0.06 * 0.94 / studies)
    if seeds == 10:
        naive = [estimate_weighted_means(replace(grid, correct=None), gap).p[0] < 0.05 for grid in grids]
        assert np.mean(naive) > 0.1


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_cover_the_expected_accuracy(seeds: int) -> None:
    studies = 300
    found = draw_correctness(np.random.default_rng(8), studies=studies, seeds=seeds, images=360, accuracy=0.7)
    intervals = [estimate_weighted_means(correctness_grid(study), np.eye(2)).interval() for study in found]
    covered = np.mean([(low <= 0.7) & (high >= 0.7) for low, high in intervals])
    assert covered >= 0.93 - 2 * np.sqrt(0.93 * 0.07 / (2 * studies))


def test_seeds_and_images_are_only_names() -> None:
    values = normal_study(np.random.default_rng(3), seeds=4, images=30, seed_sd=0.3, image_sd=0.5)
    rng = np.random.default_rng(4)
    shuffled = values[:, rng.permutation(4)][:, :, rng.permutation(30)]
    one, other = estimate_values(values), estimate_values(shuffled)
    assert one.covariance == pytest.approx(other.covariance) and one.df == pytest.approx(other.df)


def test_the_variance_never_falls_below_one_source_alone() -> None:
    """Where seeds agree more than the images let them, the images' own standard error is kept, with its degrees of freedom."""
    image = np.random.default_rng(5).normal(size=50)
    noise = 1e-3 * np.outer([1.0, -1.0, 0.0], np.tile([1.0, -1.0], 25))  # no seed's mean differs from another's
    values = (image + noise)[None]
    found = estimate_values(values)
    assert found.standard_error[0] == pytest.approx(image.std(ddof=1) / np.sqrt(50), rel=1e-4)
    assert found.df[0] == 49


def test_covariance_of_contrasts_is_that_of_their_sum() -> None:
    """Var(a + b) = Var(a) + 2 Cov(a, b) + Var(b), where no floor holds."""
    rng = np.random.default_rng(6)
    a, b = (normal_study(rng, seeds=6, images=40, seed_sd=1.0, image_sd=1.0) for _ in range(2))
    both, total = estimate_values(np.concatenate([a, b])), estimate_values(a + b)
    assert total.covariance[0, 0] == pytest.approx(both.covariance.sum())
