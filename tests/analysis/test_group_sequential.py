"""Looks at a growing study: published boundaries, the level with known and estimated variances, repeated intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from study.analysis.crossed import Estimates
from study.analysis.group_sequential import Look, find_nominal_levels, repeated_intervals, spend
from study.rng import stream

SIZES = (5, 10, 15, 20, 25, 30)


def estimate(mean: list[float], *, df: float = 1e6) -> Estimates:
    size = len(mean)
    zeros = np.zeros(size)
    return Estimates(np.array(mean), np.eye(size), np.full(size, df), np.full(size, 5.0), zeros, zeros, 100)


@pytest.mark.parametrize(
    ("looks", "level", "published"),
    [(4, 0.05, [4.332634, 2.963131, 2.359044, 2.014090]), (4, 0.10, [3.74955, 2.53993, 2.01604, 1.72014])],
)
def test_boundaries_are_the_published_ones(looks: int, level: float, published: list[float]) -> None:
    """Lan-DeMets of the O'Brien-Fleming type at equal steps.

    By gsDesign (R; `gsDesign(k=4, test.type=1, alpha=0.025, sfu=sfLDOF)`), and by the README of SeqBounds (Julia), whose
    grid of integration gives four digits.
    """
    found = find_nominal_levels(tuple(range(1, looks + 1)), looks, level=level)
    assert stats.norm.isf(found / 2) == pytest.approx(published, abs=6e-5)


@pytest.mark.parametrize("contrasts", [1, 6])
def test_each_look_spends_what_it_may(contrasts: int) -> None:
    """Of simulated Brownian motions as many have crossed up to each look as the spending function says, at unequal steps."""
    sizes, last = (6, 14, 17, 30), 30
    levels = find_nominal_levels(sizes, last, contrasts=contrasts, level=0.4)
    draws = 100_000
    steps = np.sqrt(np.diff(sizes, prepend=0)) * stream(0, "Brownian motion", contrasts).standard_normal((draws, 4))
    crossed = np.abs(np.cumsum(steps, axis=1) / np.sqrt(sizes)) > stats.norm.isf(levels / 2)
    share = np.maximum.accumulate(crossed, axis=1).mean(axis=0)
    expected = 1 - (1 - spend(np.array(sizes) / last, level=0.4)) ** (1 / contrasts)
    assert np.all(np.abs(share - expected) < 4 * np.sqrt(expected / draws))


@pytest.mark.parametrize("sizes", [SIZES, (3, 6, 9, 12), (3, 4, 5, 6, 7, 8, 9, 10), (10, 20, 30)])
def test_looks_by_t_tests_keep_the_level(sizes: tuple[int, ...]) -> None:
    """Where only seeds vary, and their variance is estimated anew at each look, 5 % of studies err at some look at most."""
    studies = 40_000
    drawn = stream(0, "t tests", *sizes).standard_normal((studies, sizes[-1]))
    wrong = np.zeros(studies, dtype=bool)
    for number, size in enumerate(sizes, start=1):
        seen = drawn[:, :size]
        t = seen.mean(axis=1) / (seen.std(axis=1, ddof=1) / np.sqrt(size))
        wrong |= np.abs(t) > Look(number, sizes).critical_value(size - 1, contrasts=1)
    assert wrong.mean() <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / studies)


def test_images_that_all_looks_share_make_them_more_alike() -> None:
    """With a part of the variance that no seed reduces, looks have the stated correlation, and fewer studies err."""
    studies, images = 100_000, 0.3
    rng = stream(0, "shared images")
    seeds = rng.standard_normal((studies, SIZES[-1]))
    means = np.array([seeds[:, :size].mean(axis=1) for size in SIZES]) + np.sqrt(images) * rng.standard_normal(studies)
    z = means / np.sqrt(1 / np.array(SIZES) + images)[:, None]
    correlation = np.sqrt((1 / 30 + images) / (1 / 5 + images))
    assert np.corrcoef(z)[0, -1] == pytest.approx(correlation, abs=0.01) and correlation > np.sqrt(5 / 30)
    crossed = np.abs(z) > stats.norm.isf(find_nominal_levels(SIZES, 30) / 2)[:, None]
    assert crossed.any(axis=0).mean() < 0.045


def test_p_values_agree_with_intervals() -> None:
    """A repeated interval leaves out 0 exactly where the adjusted p is below 5 %; both are wider than at one analysis."""
    for number in (2, 4, 6):
        look = Look(number, SIZES)
        critical = float(look.critical_value(1e6, contrasts=3))
        found = repeated_intervals(estimate([0.999 * critical, 1.001 * critical, 0.0]), look)
        assert (found.low > 0).tolist() == [False, True, False] == (found.p < 0.05).tolist()
        assert found.p[2] == pytest.approx(1.0) and critical > stats.norm.isf(0.025 / 3)


def test_levels_rise_from_look_to_look_and_fall_with_contrasts() -> None:
    """More contrasts leave less to each; an early look has next to nothing."""
    alone, family = (find_nominal_levels(SIZES, 30, contrasts=count) for count in (1, 10))
    assert np.all(np.diff(alone) > 0) and np.all(family < alone / 9) and alone[0] < 1e-6
    assert Look(6, SIZES).spent == pytest.approx(0.0475) and replace(Look(6, SIZES), number=2).name == "look 2 of 6"
