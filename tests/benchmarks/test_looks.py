"""Simulated studies that are looked at after every stage: no more of them are wrong than the documentation says."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import looks
from benchmarks.coverage import list_families
from benchmarks.looks import compare_pair, list_studies, miss_family


@pytest.mark.parametrize("name", list_studies())
def test_equal_architectures_are_rarely_called_different_at_any_look(name: str) -> None:
    """Law: with new seeds and new images in every study, which all its looks share, 5 % err within Monte Carlo error."""
    found = compare_pair(list_studies()[name], images=200, studies=50, sizes=(5, 10))
    assert np.mean(found["some look misses"]) <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 50)


def test_a_family_rarely_errs_at_any_look() -> None:
    """Law: of six primary contrasts all repeated intervals hold at all looks in 95 % of studies, within Monte Carlo error."""
    missed = miss_family(list_families()["no effects"], images=200, studies=10, sizes=(5, 10))
    assert np.mean(missed) <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 10)


def test_every_table_of_looks_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(looks, "SIZES", (3, 4))
    assert looks.main(["--quick"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in (*list_studies(), *looks.FAMILIES)) and "called equivalent" in text
