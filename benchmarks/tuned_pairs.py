"""What standard errors are worth where options were tuned: equal architectures, as the table of docs/tuning.md.

    python -m benchmarks.tuned_pairs            # as Markdown, in about ten minutes on one core
    python -m benchmarks.tuned_pairs --quick    # the same table from few studies: checks the logic, measures nothing

Architectures are equal in all but their names, so every difference that a study calls significant is a false one. Seeds and
images are drawn: the log-odds of a correct answer are an intercept, an image's difficulty, that for one architecture and that
for one candidate, and a run's skill. Intercepts give every candidate its stated expected accuracy.
"""

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from benchmarks.coverage import as_grid
from study.analysis.choice_variance import CandidateTrials, estimate_choice_variances
from study.analysis.crossed import estimate_weighted_means
from study.rng import stream

LATENT = stats.norm.ppf((np.arange(500) + 0.5) / 500)
SPREADS = {0.985: (4.0, 2.0, 0.05), 0.7: (2.0, 1.0, 0.1)}
"""By accuracy, standard deviations in log-odds: of images' difficulty, of that for one architecture, of runs' skill."""

CANDIDATE_SPREAD = 0.5  # standard deviation, in log-odds, of an image's difficulty for one candidate


@dataclass(frozen=True)
class TunedStudy:
    """Two equal architectures; `deficits`: by how much each candidate is below the best, in percentage points."""

    deficits: Sequence[float] = (0.0, 0.3, 0.8)
    accuracy: float = 0.985  # of the best candidate
    val_images: int = 180
    test_images: int = 1000
    seeds: int = 10
    trial_seeds: int = 2
    per_seed: bool = False

    @cached_property
    def intercepts(self) -> npt.NDArray[np.float64]:
        """Log-odds with which each candidate's expected accuracy, over images and seeds, is as stated."""
        wanted = self.accuracy - np.array(self.deficits) / 100
        scale = np.sqrt(sum(np.square(SPREADS[self.accuracy])) + CANDIDATE_SPREAD**2)
        grid = np.linspace(-20, 30, 1001)
        means = special.expit(grid[:, None] + scale * LATENT).mean(axis=1)
        return np.interp(wanted, means, grid)

    def draw_images(self, rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
        """Log-odds of new images for each architecture and candidate, before a seed's skill: `2 candidates images`."""
        shared, own, _ = SPREADS[self.accuracy]
        candidates = len(self.deficits)
        logit = shared * rng.normal(size=count) + own * rng.normal(size=(2, 1, count))
        return self.intercepts[:, None] + logit + CANDIDATE_SPREAD * rng.normal(size=(2, candidates, count))

    def train(self, rng: np.random.Generator, logit: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Correctness of one training of each, `... images`."""
        skill = SPREADS[self.accuracy][2] * rng.normal(size=(*logit.shape[:-1], 1))
        return np.asarray(rng.random(logit.shape) < special.expit(logit + skill))

    def tune(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.bool_]]:
        """The candidate chosen for each architecture, and the trials that chose it: `2 candidates trial_seeds images`."""
        trials = np.stack([self.train(rng, self.draw_images(rng, self.val_images)) for _ in range(self.trial_seeds)], axis=2)
        scores = trials.mean(axis=(2, 3)) + 1e-9 * rng.random(trials.shape[:2])  # ties by chance, as by the loss
        return scores.argmax(axis=1), trials

    def compare(self, key: int) -> tuple[float, float]:
        """One study's two-sided p of the architectures' difference, without what the choice adds and with it."""
        rng = stream(key, "tuned study", repr(self))
        test = self.draw_images(rng, self.test_images)
        chosen, trials = self.tune(rng)
        runs = []
        for _ in range(self.seeds):
            own = self.tune(rng)[0] if self.per_seed else chosen
            runs.append(self.train(rng, test[[0, 1], own]))
        grid, contrast = as_grid(np.stack(runs, axis=1), {"backbone": ("one", "other")}), np.array([[1.0, -1.0]])
        added = np.zeros(2)
        if not self.per_seed:
            order = [np.argsort(np.arange(len(self.deficits)) != one, kind="stable") for one in chosen]
            ordered = [own[place] for own, place in zip(trials, order, strict=True)]
            cells = [CandidateTrials(f"{key} {n}", own.mean(axis=2), self.val_images, own) for n, own in enumerate(ordered)]
            added = estimate_choice_variances(cells)
        with_choice = replace(grid, choice_variance=added)
        return tuple(float(estimate_weighted_means(one, contrast).p[0]) for one in (grid, with_choice))  # type: ignore[return-value]

    def false_rates(self, studies: int) -> npt.NDArray[np.float64]:
        """How many studies call the architectures different, without what the choice adds and with it."""
        return np.asarray((np.array([self.compare(key) for key in range(studies)]) < 0.05).mean(axis=0))


def main(argv: Sequence[str] | None = None) -> int:
    """Print the rates of false differences, in percent, as rows of a table."""
    parser = argparse.ArgumentParser(prog="benchmarks.tuned_pairs", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="few studies")
    studies = 4 if parser.parse_args(argv).quick else 1000
    print(f"{studies:,} studies in each row; Monte Carlo standard error of a rate of 5 %: {np.sqrt(475 / studies):.1f} points")
    print(
        "| accuracy | candidates below the best | val images | test images | seeds | choice ignored | per: cell | per: seed |"
    )
    print("|---|---|---|---|---|---|---|---|")
    settings = itertools.product((180, 1000), (360, 1000), (3, 5, 10))
    cases = [TunedStudy(val_images=val, test_images=test, seeds=seeds) for val, test, seeds in settings]
    for study in (*cases, TunedStudy((0.0, 0.0, 0.3, 0.8)), TunedStudy((0.0, 1.0, 2.5), 0.7)):
        rates = (*study.false_rates(studies), replace(study, per_seed=True).false_rates(studies)[0])
        below = "/".join(f"{value:g}" for value in study.deficits)
        shown = " | ".join(f"{100 * rate:.1f}" for rate in rates)
        sizes = f"{study.val_images:,} | {study.test_images:,} | {study.seeds}"
        print(f"| {100 * study.accuracy:g} % | {below} | {sizes} | {shown} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
