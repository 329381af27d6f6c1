"""Weighted means of cells with their standard errors and covariances: every estimate of a report is one of these.

Every seed of a cell is judged by the same test images, so correctness is a table of seeds by images with two sources of
variance: another seed trains another network, another test set asks other questions. Accuracies of a few seeds show the first
alone, and with 360 images the second is often the larger.

Population: new training seeds *and* new test images of the same kind, where correctness per image was kept; else new seeds, on
these test images. Cornfield & Tukey, "Average values of mean squares in factorials", 1956 (two-way random effects without
replication); Satterthwaite, "An approximate distribution of estimates of variance components", 1946; Miller, "Adding error
bars to evals", arXiv 2411.00640, 2024.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from study.analysis.cell_grid import BoolArray, FloatArray, Grid, is_measured
from study.analysis.intervals import CONFIDENCE, MIN_SEEDS, ZERO

_NO_VARIANCE = 1e-12
"""Variances of an image's contrast below this are rounding errors: a single run that differs in one image has more."""


MANY_RUNS = 1000
"""Of more runs, all done, correctness is counted in sums over seeds: pairs of runs would be too many. Only last bits differ."""


@dataclass(frozen=True, eq=False)
class Estimates:
    """`k` estimates over seeds and images, or over seeds alone, with the covariance of their errors.

    Standard errors are NaN, and covariances 0, below three seeds and where no run differs from another.
    """

    mean: FloatArray  # k
    covariance: FloatArray  # k k; positive semidefinite where known
    df: FloatArray  # k
    n: FloatArray  # k; seeds with which all cells of the estimate were measured
    sd: FloatArray  # k; over seeds, on these test images (ddof = 1)
    seed_share: FloatArray  # k; share of the variance that more seeds would reduce; NaN on these test images
    images: int | None  # None: on these test images

    @property
    def standard_error(self) -> FloatArray:
        return np.sqrt(np.diag(self.covariance))

    def select(self, places: "Sequence[int] | pd.Index[int] | npt.NDArray[np.int_]") -> "Estimates":
        """Some of the estimates, in the order given."""
        chosen = np.asarray(places, dtype=int)
        return replace(
            self,
            covariance=self.covariance[np.ix_(chosen, chosen)],
            **{name: getattr(self, name)[chosen] for name in ("mean", "df", "n", "sd", "seed_share")},
        )

    def interval(self) -> tuple[FloatArray, FloatArray]:
        """Lower and upper limits by Student's t, each by itself (not simultaneous)."""
        half = stats.t.ppf(0.5 + CONFIDENCE / 2, self.df) * self.standard_error
        return self.mean - half, self.mean + half

    @property
    def p(self) -> FloatArray:
        """Two-sided p of "the mean is 0", each by itself: below 1 - CONFIDENCE exactly where the interval excludes 0."""
        return np.asarray(2 * stats.t.sf(np.abs(self.mean / self.standard_error), self.df))

    @property
    def notes(self) -> list[str]:
        """Why each estimate has no interval; "" where it has one."""
        return [_explain_missing_interval(int(n), bool(se > 0)) for n, se in zip(self.n, self.standard_error, strict=True)]


def estimate_weighted_means(grid: Grid, weights: FloatArray) -> Estimates:
    """The weighted means of cells `weights @ means` (`k cells`), each over the seeds with which all its cells were measured.

    With correctness `d[s, i]` of an estimate (the weighted sum over cells) and its mean squares of seeds, images and
    residual, `Var(mean d) = (MS_seed + MS_image - MS_residual) / (n m)`, which is unbiased but may come out too small where
    few seeds show little spread: it is never taken below `max(MS_seed, MS_image) / (n m)`. Degrees of freedom by Satterthwaite;
    where the floor holds, those of its mean square. Without correctness: Student's t over seeds. Covariances come from common
    seeds, and are 0 below two of them. The variance that tuning's choice adds to a cell (`grid.choice_variance`) is added.
    """
    finite = np.asarray(np.isfinite(weights).all(axis=1))
    weights = np.where(finite[:, None], weights, 0.0)
    known = is_measured(grid.values)
    lacking = (weights != 0).astype(float) @ (~known).astype(float)
    used = np.equal(lacking, 0) & finite[:, None]  # estimates seeds
    values = np.where(known, grid.values if grid.correct is None else grid.correct.mean(axis=2), 0.0)
    by_seed = np.where(used, weights @ values, 0.0)
    n = used.sum(axis=1).astype(float)
    mean = np.where(n > 0, by_seed.sum(axis=1) / np.maximum(n, 1), np.nan)
    common, product = _multiply_deviations(np.where(used, by_seed - mean[:, None], 0.0), used)
    seed = np.where(common > 1, product / np.maximum(common - 1, 1), 0.0)
    overlap = common / np.maximum(np.outer(n, n), 1)  # 1 / n where all seeds are common
    if grid.correct is None:
        found = _Variances(overlap * seed, np.diag(seed) / np.maximum(n, 1), np.maximum(n - 1, 1), np.full(len(n), np.nan))
        spread = np.sqrt(found.variance) > ZERO * np.maximum(np.abs(mean), 1e-3)
    else:
        m = grid.correct.shape[2]
        image, residual = _image_mean_squares(grid, weights, used, by_seed, product)
        between = np.where(common > 1, (image - residual) / np.maximum(common, 1), 0.0)
        found = _cross_variances(overlap * seed + between, *map(np.diag, (seed, image, residual)), n=n, m=m)
        spread = m * n * found.variance > _NO_VARIANCE
    covariance, variance = found.covariance, found.variance
    if grid.choice_variance is not None:
        added = (weights * grid.choice_variance) @ weights.T
        covariance, variance = covariance + added, variance + np.diag(added)
    allowed = (n >= MIN_SEEDS) & spread
    return Estimates(
        mean,
        _complete_covariance(covariance, variance, allowed),
        found.df,
        n,
        np.where(n > 1, np.sqrt(np.diag(seed)), np.nan),
        np.where(allowed, found.over_seeds / np.where(allowed, variance, 1.0), np.nan),
        None if grid.correct is None else grid.correct.shape[2],
    )


@dataclass(frozen=True, eq=False)
class _Variances:
    covariance: FloatArray  # k k
    variance: FloatArray  # k; its diagonal, never below the floor
    df: FloatArray  # k
    over_seeds: FloatArray  # k; the part of the variance that more seeds would reduce


def _cross_variances(
    covariance: FloatArray, seed: FloatArray, image: FloatArray, residual: FloatArray, *, n: FloatArray, m: int
) -> _Variances:
    """Variances of means over `n` seeds and `m` images by their mean squares, which are divided by m (`k` each)."""
    unbiased, floor = seed + image - residual, np.maximum(seed, image)
    raised = unbiased <= floor
    scatter = seed**2 / np.maximum(n - 1, 1) + image**2 / max(m - 1, 1) + residual**2 / np.maximum((n - 1) * (m - 1), 1)
    df = np.divide(unbiased**2, scatter, out=np.ones_like(n), where=scatter > 0)
    df = np.maximum(np.where(raised, np.where(seed >= image, n - 1, m - 1.0), df), 1)
    variance = np.where(raised, floor, unbiased) / np.maximum(n, 1)
    # What no seed reduces is the images' component; the mean square of seeds contains the residual, which falls with n too.
    return _Variances(covariance, variance, df, seed / np.maximum(n, 1))


def _multiply_deviations(deviations: FloatArray, used: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Numbers of common seeds, and sums of products of deviations from the means over them (`k k` each)."""
    mask = used.astype(float)
    common = mask @ mask.T
    sums = deviations @ mask.T
    return common, deviations @ deviations.T - sums * sums.T / np.maximum(common, 1)


def _image_mean_squares(
    grid: Grid, weights: FloatArray, used: BoolArray, by_seed: FloatArray, seed: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Mean squares and products of images and of the residual over common seeds, divided by the number of images (`k k`)."""
    assert grid.correct is not None
    m = grid.correct.shape[2]
    if (used.all(axis=1) | ~weights.any(axis=1)).all() and grid.values.size > MANY_RUNS:
        over_pairs, over_seeds = (weights @ (counts / m) @ weights.T for counts in grid.summed_joint_counts)
    else:
        over_pairs, over_seeds = np.zeros((2, len(weights), len(weights)))
        for s in range(len(grid.seeds)):
            for t in range(s, len(grid.seeds)):
                own = weights * (used[:, s] & used[:, t])[:, None]
                product = own @ (grid.joint_counts[:, s, :, t] / np.float64(m)) @ own.T
                over_pairs += product if s == t else product + product.T
                over_seeds += product if s == t else 0.0
    mask = used.astype(float)
    common = np.maximum(mask @ mask.T, 1)
    sums = by_seed @ mask.T
    square = sums * sums.T / common
    image = over_pairs / common - square
    residual = over_seeds - square - seed - image
    return image / max(m - 1, 1), residual / (np.maximum(common - 1, 1) * max(m - 1, 1))


def _complete_covariance(matrix: FloatArray, diagonal: FloatArray, allowed: BoolArray) -> FloatArray:
    """The nearest positive semidefinite matrix by eigenvalues, scaled to the given diagonal; NaN there where not allowed."""
    found = np.diag(np.where(allowed, 0.0, np.nan))
    part = np.ix_(allowed, allowed)
    raised, wanted = matrix[part], diagonal[allowed]
    eigenvalues, vectors = np.linalg.eigh((raised + raised.T) / 2 + np.diag(wanted - np.diag(raised)))
    repaired = (vectors * np.maximum(eigenvalues, 0.0)) @ vectors.T
    scale = np.sqrt(wanted / np.diag(repaired))
    found[part] = repaired * np.outer(scale, scale)
    return found


def _explain_missing_interval(n: int, varies: bool) -> str:
    if n == 0:
        return "no run was measured"
    if n < MIN_SEEDS:
        return f"no interval: {n} seed{'s' * (n > 1)}, and an interval needs at least {MIN_SEEDS}"
    if not varies:
        return f"no interval: all {n} seeds gave the same value, so the spread is below one test image"
    return ""
