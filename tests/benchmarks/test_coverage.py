"""Simulated studies: their truth is what is stated, and verdicts on them are as rarely wrong as the documentation says."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import coverage
from benchmarks.coverage import Population, compare_two, list_families, list_pairs, miss_family
from study.rng import stream


@pytest.mark.parametrize("tails", ["normal", "t3", "collapse"])
def test_cells_have_their_stated_accuracy(tails: str) -> None:
    """Law: the mean over many runs and images, each used once, is the expected accuracy, whatever the skill's distribution."""
    population = Population((0.7, 0.9), seed_sd=(0.8, 0.2), tails=tails)
    rng = stream(0, "stated accuracy", tails)
    found = np.mean([population.draw(rng, seeds=1, images=1)[:, 0, 0] for _ in range(20_000)], axis=0)
    assert found == pytest.approx([0.7, 0.9], abs=4 * np.sqrt(0.21 / 20_000))


def test_cells_of_a_group_share_their_skill() -> None:
    """Law: accuracies of one group move together over seeds, those of different groups don't."""
    population = Population((0.7,) * 3, seed_sd=1.0, groups=(0, 0, 1))
    accuracies = population.draw(stream(0, "groups"), seeds=200, images=500).mean(axis=2)
    correlation = np.corrcoef(accuracies)
    assert correlation[0, 1] > 0.9 and abs(correlation[0, 2]) < 0.3


@pytest.mark.parametrize("name", list_families())
def test_a_family_of_primary_contrasts_rarely_has_a_wrong_claim(name: str) -> None:
    """Law: with five seeds and 360 images all simultaneous intervals hold in 95 % of studies, within Monte Carlo error."""
    missed = miss_family(list_families()[name], seeds=5, images=360, studies=120)["some interval misses"]
    assert np.mean(missed) <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 120)


@pytest.mark.parametrize("name", list_pairs())
def test_single_intervals_cover(name: str) -> None:
    """Law: with five seeds and 1,000 images intervals of contrasts and cells cover in 93 % of studies and more."""
    found = compare_two(list_pairs()[name], seeds=5, images=1000, studies=200)
    for kind in ("interval of a contrast covers", "interval of a cell covers"):
        assert np.mean(found[kind]) >= 0.93 - 2.5 * np.sqrt(0.93 * 0.07 / 200)


def test_every_table_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(coverage, "SEEDS", (3,))
    assert coverage.main(["--quick"]) == 0
    text = capsys.readouterr().out
    assert text.count("| 98.5 %") == 1 and all(name in text for name in list_families())
