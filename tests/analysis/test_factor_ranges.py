"""Ranges of factors: worked by hand on exact data, silent in null studies, found where one factor matters more."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from study.analysis import factor_ranges
from study.analysis.factor_ranges import compare_ranges, factor_range
from study.analysis.simultaneous import simultaneous_intervals

CELLS = list(itertools.product((1, 2, 4), ("attention", "conv", "mlp")))
FACTORS = ("patch_size", "token_mixer")


def study(
    rng: np.random.Generator, *, rows: float, columns: float, seeds: int, images: int = 400, kind: str = "plain"
) -> np.ndarray:
    """Correctness `cells n m`: additive effects of these ranges about 75 %, per-image difficulty, seeds of sd 1.5 points."""
    effects = np.array([rows * (i - 1) / 2 + columns * (j - 1) / 2 for i in range(3) for j in range(3)])[:, None, None]
    seed = 0.015 * (rng.standard_t(3, size=(9, seeds, 1)) if kind == "heavy tails" else rng.normal(size=(9, seeds, 1)))
    if kind == "one noisy mixer":
        seed[::3] *= 5
    if kind == "seed x mixer":
        seed += 0.02 * np.tile(rng.normal(size=(3, seeds, 1)), (3, 1, 1))
    if kind == "collapsed runs":
        seed -= 0.3 * (rng.random((9, seeds, 1)) < 0.08)
    image = 0.3 * rng.normal(size=(1, 1, images)) + 0.15 * rng.normal(size=(9, 1, images))
    return (rng.random((9, seeds, images)) < 0.75 + effects + seed + image).astype(float)


@pytest.fixture(autouse=True)
def _fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = lambda estimate: simultaneous_intervals(estimate, draws=4000)  # noqa: E731
    monkeypatch.setattr(factor_ranges, "simultaneous_intervals", quick)


def test_estimates_are_those_of_the_cell_means() -> None:
    """Means of 2, 4, 6 tenths over rows and 3, 4, 5 over columns: ranges of 4 and 2, also with a level left out."""
    means = np.array([0.1, 0.2, 0.3, 0.3, 0.4, 0.5, 0.5, 0.6, 0.7])
    correct = np.stack([np.tile(np.arange(10) < round(10 * mean), (2, 1)) for mean in means]).astype(float)
    found = compare_ranges(correct, CELLS, FACTORS, (0, 1))
    assert [bounds.value for bounds in found.ranges] == pytest.approx([0.4, 0.2])
    assert found.difference.value == pytest.approx(0.2)
    assert found.without["patch_size", 1] == pytest.approx(0.0)
    assert found.without["patch_size", 2] == pytest.approx(0.2)
    assert found.without["token_mixer", "mlp"] == pytest.approx(0.3)
    logit = np.log(means / (1 - means)).reshape(3, 3)
    assert found.log_odds == pytest.approx(np.ptp(logit.mean(axis=1)) - np.ptp(logit.mean(axis=0)))
    assert found.larger is None  # without patch size 1 the difference vanishes
    assert factor_range(correct, CELLS, 0).value == pytest.approx(0.4)


@pytest.mark.parametrize("kind", ["plain", "heavy tails", "one noisy mixer", "seed x mixer", "collapsed runs"])
@pytest.mark.parametrize("size", [0.0, 0.06])
def test_equal_factors_are_not_ranked(kind: str, size: float) -> None:
    """Whether both factors do nothing or both do the same, one is said to matter more in at most 5 % of studies."""
    rng, studies = np.random.default_rng(21), 40
    claims = [
        compare_ranges(study(rng, rows=size, columns=size, seeds=seeds, kind=kind), CELLS, FACTORS, (0, 1)).larger
        for seeds in (3, 5, 10)
        for _ in range(studies)
    ]
    assert sum(claim is not None for claim in claims) / len(claims) <= 0.05


def test_a_factor_that_matters_more_is_named() -> None:
    rng = np.random.default_rng(22)
    claims = [compare_ranges(study(rng, rows=0.16, columns=0.01, seeds=10), CELLS, FACTORS, (0, 1)).larger for _ in range(20)]
    assert claims.count("patch_size") >= 18 and "token_mixer" not in claims


def test_bounds_cover_the_true_range() -> None:
    """Of studies with ranges of 10 and 4 points at least 93 % bound both and their difference."""
    rng, studies, covered = np.random.default_rng(23), 60, 0
    for _ in range(studies):
        found = compare_ranges(study(rng, rows=0.10, columns=0.04, seeds=5), CELLS, FACTORS, (0, 1))
        true = zip((*found.ranges, found.difference), (0.10, 0.04, 0.06), strict=True)
        covered += all(bounds.low <= value <= bounds.high for bounds, value in true)
    assert covered / studies >= 0.93 - 2 * np.sqrt(0.93 * 0.07 / studies)
