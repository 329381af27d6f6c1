"""CKA against its definition on small matrices, and its invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from study.probing.similarity import center_gram, compute_cka, match_depths
from study.rng import stream


def hsic(k: np.ndarray, other: np.ndarray) -> float:
    """Song et al., JMLR 2012, equation 5, as it is written."""
    n, one = len(k), np.ones(len(k))
    k, other = k - np.diag(np.diag(k)), other - np.diag(np.diag(other))
    trace = np.trace(k @ other) + (one @ k @ one) * (one @ other @ one) / ((n - 1) * (n - 2))
    return (trace - 2 / (n - 2) * one @ k @ other @ one) / (n * (n - 3))


def draw(*words: str, shape: tuple[int, ...] = (3, 2, 6, 5)) -> np.ndarray:
    """Features `layers batches images features`."""
    return stream("test", "cka", *words).normal(size=shape) + 1.0


def describe(features: np.ndarray) -> torch.Tensor:
    tensor = torch.from_numpy(features)
    return torch.stack([torch.stack([center_gram(batch).flatten() for batch in layer]) for layer in tensor])


def test_cka_is_its_definition():
    """The unbiased HSIC of every two layers, averaged over minibatches, by those of each with itself."""
    one, other = draw("one"), draw("other")

    def average(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.mean([hsic(a @ a.T, b @ b.T) for a, b in zip(x, y, strict=True)]))

    expected = [[average(x, y) / np.sqrt(average(x, x) * average(y, y)) for y in other] for x in one]
    np.testing.assert_allclose(compute_cka(describe(one), describe(other)), expected)


def test_rotated_and_scaled_outputs_are_the_same():
    """1 for a rotation, a scale and a shift of the features; far from it for other features."""
    one = draw("one", shape=(1, 2, 40, 5))
    rotation, _ = np.linalg.qr(draw("rotation", shape=(5, 5)))
    assert compute_cka(describe(one), describe(3 * one @ rotation + 7))[0, 0] == pytest.approx(1)
    assert abs(compute_cka(describe(one), describe(draw("other", shape=(1, 2, 40, 5))))[0, 0]) < 0.3


def test_independent_features_have_none_on_average():
    """The biased estimate would be far above 0 with as many features as images; the unbiased one is 0 on average."""
    found = [
        compute_cka(describe(draw("a", str(n), shape=(1, 1, 12, 20))), describe(draw("b", str(n), shape=(1, 1, 12, 20))))
        for n in range(200)
    ]
    assert abs(np.mean(found)) < 0.05


def test_layers_without_differences_have_no_similarity():
    constant = np.ones((1, 1, 6, 5))
    assert np.isnan(compute_cka(describe(constant), describe(constant)))


def test_depths_are_matched_by_their_fraction():
    assert list(match_depths(2, 2)) == [(0, 0), (1, 1), (2, 2)]
    assert list(match_depths(2, 6)) == [(0, 0), (1, 3), (2, 6)]
    assert list(match_depths(6, 2)) == [(0, 0), (3, 1), (6, 2)]
