"""Error consistency is scikit-learn's kappa of every two runs, averaged as it says; images are counted by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from benchmarks.coverage import as_grid
from study.analysis.cell_grid import Grid
from study.analysis.error_consistency import compare_errors, compute_kappas
from study.rng import stream


def make_grid(*, images: int = 60, seeds: int = 4) -> Grid:
    """Two mixers at two patch sizes, half of the images as hard for every run."""
    rng = stream(0, "error consistency")
    shared, own = rng.random(images), rng.random((4, seeds, images))
    correct = np.where(np.arange(images) % 2, shared, own) < np.array([0.9, 0.8, 0.7, 0.6])[:, None, None]
    cells = tuple(itertools.product((2, 4), ("attention", "pooling")))
    return replace(as_grid(correct, {"lr": range(4)}), factors=("patch_size", "token_mixer"), cells=cells)


def test_kappas_are_those_of_scikit_learn() -> None:
    """Every two runs, of one cell or of two."""
    grid = make_grid()
    runs = grid.correct
    assert runs is not None
    for a, b, s, t in itertools.product(range(4), range(4), range(4), range(4)):
        assert compute_kappas(grid, a, b)[s, t] == pytest.approx(cohen_kappa_score(runs[a, s], runs[b, t]), abs=1e-6)


def test_pairs_are_averaged_over_other_factors_and_different_seeds() -> None:
    """One row for two mixers at two patch sizes, by loops over the definition."""
    grid = make_grid()
    found, runs = compare_errors(grid), grid.correct
    assert found is not None and runs is not None
    (row,) = found.to_dict("records")
    assert (row["factor"], row["upper"], row["lower"], row["cells"]) == ("token_mixer", "pooling", "attention", 2)

    def kappa(a: int, b: int) -> float:
        seeds = itertools.permutations(range(4), 2)
        return float(np.mean([cohen_kappa_score(runs[a, s], runs[b, t]) for s, t in seeds]))

    assert row["between"] == pytest.approx((kappa(1, 0) + kappa(3, 2)) / 2)
    assert row["within_upper"] == pytest.approx((kappa(1, 1) + kappa(3, 3)) / 2)
    assert row["within_lower"] == pytest.approx((kappa(0, 0) + kappa(2, 2)) / 2)


def test_images_that_only_one_classifies_correctly_by_hand() -> None:
    """Of five images one is a tie, one is right for both, two only for the first; a run that isn't done counts for nothing."""
    first = [[1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]]
    second = [[1, 0, 0, 1, 0], [1, 0, 0, 1, 1], [1, 1, 0, 0, 1]]
    grid = replace(as_grid(np.array([second, first], dtype=bool), {"lr": range(2)}), factors=("backbone",))
    grid = replace(grid, cells=(("convmixer",), ("vit",)))
    status = grid.status.copy()
    status[1, 2] = "diverged"
    found = compare_errors(replace(grid, status=status))
    assert found is not None
    (row,) = found.to_dict("records")
    assert row["upper"] == "vit"
    assert (row["only_upper"], row["only_lower"]) == pytest.approx((2 / 5, 1 / 5))


def test_agreement_that_is_certain_has_no_kappa() -> None:
    """Two runs without an error agree whatever they do; without correctness or without two mixers there is no table."""
    grid = make_grid()
    perfect = replace(grid, correct=np.ones((4, 4, 60), dtype=bool))
    assert all(
        np.isnan(compute_kappas(perfect, *pair)).all() for pair in itertools.product(range(len(perfect.cells)), repeat=2)
    )
    assert compare_errors(replace(grid, correct=None)) is None
    assert compare_errors(grid.select([0, 2])) is None
