"""Means over seeds and test images at once: standard errors of a crossed design.

Every seed of a cell is judged by the same test images, so correctness is a table of seeds by images with two sources of
variance: another seed trains another network, another test set asks other questions. Accuracies of a few seeds show the first
alone, and with 360 images the second is often the larger.

Population of every interval here: new training seeds *and* new test images of the same kind. Cornfield & Tukey, "Average values
of mean squares in factorials", 1956 (two-way random effects without replication); Satterthwaite, "An approximate
distribution of estimates of variance components", 1946; Miller, "Adding error bars to evals", arXiv 2411.00640, 2024.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CrossedEstimate:
    """Means over `n` seeds and `m` images, `k` of them, with the covariance of their errors."""

    mean: Array  # k
    covariance: Array  # k k; positive semidefinite, the diagonal never below the floor of `crossed_estimate`
    df: Array  # k; Satterthwaite's degrees of freedom
    seed_share: Array  # k; share of the variance that more seeds would reduce; the rest is the finite test set's
    n: int
    m: int

    @property
    def standard_error(self) -> Array:
        return np.sqrt(np.diag(self.covariance))

    def interval(self, confidence: float = 0.95) -> tuple[Array, Array]:
        """Lower and upper limits by Student's t, each by itself (not simultaneous)."""
        half = stats.t.ppf(0.5 + confidence / 2, self.df) * self.standard_error
        return self.mean - half, self.mean + half


def crossed_estimate(values: Array) -> CrossedEstimate:
    """Means of `values` `k n m` (seeds by images; a contrast's differences of correctness, or correctness itself).

    With the mean squares of seeds, images and residual, `Var(mean) = (MS_seed + MS_image - MS_residual) / (n m)`, which is
    unbiased but may come out too small, even negative, where few seeds show little spread: it is never taken below
    `max(MS_seed, MS_image) / (n m)`. Degrees of freedom by Satterthwaite; where the floor holds, those of its mean square.
    Needs two seeds and two images at least (ValueError).
    """
    k, n, m = values.shape
    if n < 2 or m < 2:
        raise ValueError(f"a crossed standard error needs two seeds and two images at least, not {n} and {m}")
    mean = values.mean(axis=(1, 2))
    by_seed, by_image = values.mean(axis=2) - mean[:, None], values.mean(axis=1) - mean[:, None]
    centered = (values - mean[:, None, None]).reshape(k, n * m)
    sums = {"seed": m * by_seed @ by_seed.T, "image": n * by_image @ by_image.T, "all": centered @ centered.T}
    seed, image = sums["seed"] / (n - 1), sums["image"] / (m - 1)
    residual = (sums["all"] - sums["seed"] - sums["image"]) / ((n - 1) * (m - 1))
    unbiased = seed + image - residual
    s, i, r = (np.diag(part) for part in (seed, image, residual))
    floor = np.maximum(s, i)
    raised = np.diag(unbiased) <= floor
    spread = s**2 / (n - 1) + i**2 / (m - 1) + r**2 / ((n - 1) * (m - 1))
    own = np.divide((s + i - r) ** 2, spread, out=np.full(k, n - 1.0), where=spread > 0)
    variance = np.where(raised, floor, np.diag(unbiased))
    return CrossedEstimate(
        mean=mean,
        covariance=_with_diagonal(unbiased, variance) / (n * m),
        df=np.where(raised, np.where(s >= i, n - 1.0, m - 1.0), own),
        seed_share=np.divide(np.maximum(s - r, 0.0), variance, out=np.zeros(k), where=variance > 0).clip(max=1.0),
        n=n,
        m=m,
    )


def _with_diagonal(matrix: Array, diagonal: Array) -> Array:
    """The nearest positive semidefinite matrix by eigenvalues, scaled to the given diagonal."""
    eigenvalues, vectors = np.linalg.eigh((matrix + matrix.T) / 2 + np.diag(diagonal - np.diag(matrix)))
    repaired = (vectors * np.maximum(eigenvalues, 0.0)) @ vectors.T
    own = np.diag(repaired)
    scale = np.sqrt(np.divide(diagonal, own, out=np.zeros_like(own), where=own > 0))
    return np.asarray(repaired * np.outer(scale, scale))
