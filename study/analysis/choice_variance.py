"""How much depends on which candidate tuning happened to choose: resampled choices, and the variance that they add to a cell.

All final runs of a cell share one choice, so their spread over seeds doesn't contain it. Trials have few seeds and validation
images, and where candidates are nearly equal another set of trials would often have chosen another. If `mu` are the
candidates' true accuracies and `pi` the probabilities with which new trials would choose them, the choice adds the variance of
`mu` over `pi`. Observed accuracies in place of `mu` count validation noise as differences between candidates; with that noise
subtracted, nothing is left in most cells. So the accuracies are shrunk towards their cell's mean: `mu` is normal around it, its
variance the same in all cells in units of their noise, with a uniform prior on the noise's share of the total (Daniels, "A
prior for the variance in hierarchical models", Canadian Journal of Statistics 27, 1999). The result is at most about a third of
the noise, and small where one candidate is far better than the others.

Population: new trials, with new seeds and new validation images, of the same candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from study.analysis.cell_grid import BoolArray, FloatArray
from study.rng import stream

RESAMPLINGS = 2_000
POSTERIOR_DRAWS = 8_000
CONTENDER_RATE = 0.01  # how often a resampling must choose a candidate for it to count
NOISE_SHARES = (np.arange(200) + 0.5) / 200  # of the prior: validation noise by the total variance of candidates' accuracies


@dataclass(frozen=True, eq=False)
class CandidateTrials:
    """The trials of one choice: `accuracy` of each candidate with each trial seed, the selected candidate first."""

    name: str  # of the choice, for its random stream
    accuracy: FloatArray  # candidates seeds; NaN where a trial diverged
    images: int  # validation images of one trial
    correct: BoolArray | None = None  # candidates seeds images; None where it wasn't kept
    shared: bool = False  # whether all seeds have the same validation images


def resample_choices(trials: CandidateTrials) -> npt.NDArray[np.int_]:
    """The candidate that each of many bootstrap samples of trial seeds and, within each, of validation images chooses.

    All candidates get the same seeds and images. Without correctness per image, each accuracy is resampled as a binomial one,
    which ignores that candidates err on the same images. Ties keep the earlier candidate. Diverged trials rank below others.
    """
    rng = stream("choice", "resampled", trials.name)
    count, seeds = trials.accuracy.shape
    picked = rng.integers(seeds, size=(RESAMPLINGS, seeds))
    scores = np.zeros((RESAMPLINGS, count))
    jointly = _resample_accuracies(trials, range(seeds), RESAMPLINGS, rng) if trials.shared else None
    for slot in range(seeds):
        for seed in range(seeds):
            rows = np.flatnonzero(picked[:, slot] == seed)
            drawn = (
                jointly[rows, :, seed] if jointly is not None else _resample_accuracies(trials, [seed], len(rows), rng)[..., 0]
            )
            scores[rows] += np.where(np.isnan(trials.accuracy[:, seed]), -seeds - 1.0, drawn)
    return np.asarray(np.argmax(np.round(scores, 9), axis=1))


def _resample_accuracies(trials: CandidateTrials, seeds: Sequence[int], draws: int, rng: np.random.Generator) -> FloatArray:
    """Accuracies on resampled images, the same ones for all candidates and given seeds: `draws candidates seeds`."""
    if trials.correct is None:
        known = np.nan_to_num(trials.accuracy[:, list(seeds)]).clip(0, 1)
        return np.asarray(rng.binomial(trials.images, known, size=(draws, *known.shape)) / trials.images)
    own = trials.correct[:, list(seeds)]
    patterns, counts = np.unique(own.reshape(-1, own.shape[-1]), axis=1, return_counts=True)  # images that all see alike
    drawn = rng.multinomial(own.shape[-1], counts / counts.sum(), size=draws)
    return np.asarray(drawn @ patterns.T / own.shape[-1]).reshape(draws, *own.shape[:2])


def estimate_choice_variances(cells: Sequence[CandidateTrials]) -> FloatArray:
    """What the choice adds to the variance of each cell's mean (fraction squared; `cells`), as the module's docstring says.

    Candidates that resamplings choose in less than 1 % of cases, or with a diverged trial, are left out: 0 where one is left.
    """
    found = np.zeros(len(cells))
    contenders = [_find_contenders(cell) for cell in cells]
    places = [place for place, cell in enumerate(contenders) if len(cell.accuracy) > 1]
    noise = dict(zip(places, _estimate_noise([contenders[place] for place in places]), strict=True))
    places = [place for place in places if noise[place] > 0]
    means = {place: contenders[place].accuracy.mean(axis=1) for place in places}
    degrees = sum(len(means[place]) - 1 for place in places)
    squares = sum(((means[place] - means[place].mean()) ** 2).sum() / noise[place] for place in places)
    logarithm = degrees / 2 * np.log(NOISE_SHARES) - NOISE_SHARES * squares / 2
    weights = np.exp(logarithm - logarithm.max())
    for place in places:
        rng = stream("choice", "variance", cells[place].name)
        share = rng.choice(NOISE_SHARES, size=(POSTERIOR_DRAWS, 1), p=weights / weights.sum())
        sd, center = np.sqrt(noise[place]), means[place].mean()
        draws = (POSTERIOR_DRAWS, len(means[place]))
        truth = center + (1 - share) * (means[place] - center) + np.sqrt(1 - share) * sd * rng.normal(size=draws)
        # Half the mean squared difference of two tunings is the variance of one.
        one, other = (np.argmax(truth + sd * rng.normal(size=draws), axis=1)[:, None] for _ in range(2))
        found[place] = ((np.take_along_axis(truth, one, 1) - np.take_along_axis(truth, other, 1)) ** 2).mean() / 2
    return found


def _find_contenders(trials: CandidateTrials) -> CandidateTrials:
    """The candidates that resamplings choose more than rarely, if all of their trials have an accuracy."""
    counts = np.bincount(resample_choices(trials), minlength=len(trials.accuracy))
    kept = (counts >= CONTENDER_RATE * RESAMPLINGS) & ~np.isnan(trials.accuracy).any(axis=1)
    return replace(trials, accuracy=trials.accuracy[kept], correct=None if trials.correct is None else trials.correct[kept])


def _estimate_noise(cells: Sequence[CandidateTrials]) -> list[float]:
    """The error variance of a candidate's mean beside the other candidates of its cell, for each cell.

    It is that of finite images, by the candidates' differences per image, times a factor that all cells have in common: by how
    much differences vary more over seeds than over images, at least 1. Without correctness per image, the variance is the
    binomial one, and the factor corrects it in both directions.
    """
    by_image: list[float] = []
    ratios, degrees = [0.0], [0]
    for cell in cells:
        count, seeds = cell.accuracy.shape
        by_image.append(_estimate_image_noise(cell))
        if seeds > 1 and by_image[-1] > 0:
            y = cell.accuracy
            rest = y - y.mean(axis=0) - y.mean(axis=1, keepdims=True) + y.mean()
            degrees.append((count - 1) * (seeds - 1))
            ratios.append((rest**2).sum() / seeds / by_image[-1])
    kept = all(cell.correct is not None for cell in cells)
    factor = sum(ratios) / sum(degrees) if sum(degrees) else 1.0
    return [noise * (max(factor, 1.0) if kept else factor) for noise in by_image]


def _estimate_image_noise(cell: CandidateTrials) -> float:
    """The part of `_estimate_noise` that finite validation images make."""
    count, seeds = cell.accuracy.shape
    if cell.correct is None:
        mean = float(cell.accuracy.mean())
        return float(mean * (1 - mean) / cell.images / seeds)
    values = cell.correct.mean(axis=1, keepdims=True) if cell.shared else cell.correct.astype(float)
    differences = values - values.mean(axis=0)
    differences -= differences.mean(axis=2, keepdims=True)
    sets = values.shape[1]  # of images
    return float((differences**2).sum() / sets / ((count - 1) * (cell.images - 1)) / cell.images / sets)
