"""What the intervals and verdicts of a report are worth: simulated studies with known truth, as tables for docs/statistics.md.

    python -m benchmarks.coverage            # all tables as Markdown, in about five minutes on one core
    python -m benchmarks.coverage --quick    # the same tables from few studies: checks the logic, measures nothing

Correctness is drawn with new seeds and new test images in every study: the log-odds of a correct answer are an intercept, an
image's difficulty, that for one cell, and a run's skill. Intercepts give every cell its stated expected accuracy.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import special, stats

from study.analysis.cell_grid import BoolArray, FloatArray, Grid, Level
from study.analysis.cell_means import compute_cell_intervals
from study.analysis.contrast_results import build_weights
from study.analysis.crossed import estimate_weighted_means
from study.analysis.planned_contrasts import plan_contrasts
from study.analysis.simultaneous import simultaneous_intervals
from study.rng import stream

SEEDS, IMAGES = (3, 5, 10), (360, 1000, 10_000)
LEVELS: Mapping[str, Sequence[Level]] = {"patch_size": (1, 2, 4), "backbone": ("convmixer", "mlp_mixer", "vit")}
MAX_T_DRAWS = 10_000  # in each study; a report draws more
COLLAPSE_RATE, COLLAPSE_DROP = 0.08, 4.0  # share of runs, log-odds

_POINTS = (np.arange(400) + 0.5) / 400


@dataclass(frozen=True)
class Population:
    """What correctness is drawn from. Standard deviations are in log-odds."""

    accuracy: tuple[float, ...]  # expected, of every cell
    seed_sd: tuple[float, ...] | float  # of runs' skill; of every cell, or of all
    shared_sd: float = 2.0  # of images' difficulty
    own_sd: float = 1.0  # of images' difficulty for one cell
    groups: tuple[int, ...] = ()  # cells with the same number have the same skill at a seed; (): all have their own
    tails: str = "normal"  # of the skill: "normal", "t3" or "collapse"

    def draw(self, rng: np.random.Generator, *, seeds: int, images: int) -> BoolArray:
        """One study's correctness, `cells seeds images`."""
        cells = len(self.accuracy)
        groups = self.groups or tuple(range(cells))
        shape = (max(groups) + 1, seeds)
        skill = rng.standard_t(3, shape) if self.tails == "t3" else rng.standard_normal(shape)
        logits = self._intercepts[:, None] + self._seed_sds[:, None] * skill[list(groups)]
        if self.tails == "collapse":
            logits = logits - COLLAPSE_DROP * (rng.random(logits.shape) < COLLAPSE_RATE)
        difficulty = np.float32(self.shared_sd) * rng.standard_normal((1, 1, images), dtype=np.float32)
        difficulty = difficulty + np.float32(self.own_sd) * rng.standard_normal((cells, 1, images), dtype=np.float32)
        chance = special.expit(logits.astype(np.float32)[:, :, None] + difficulty)
        return np.asarray(rng.random(chance.shape, dtype=np.float32) < chance)

    @cached_property
    def _seed_sds(self) -> FloatArray:
        return np.array(np.broadcast_to(self.seed_sd, (len(self.accuracy),)), dtype=float)

    @cached_property
    def _intercepts(self) -> FloatArray:
        pairs = list(zip(self.accuracy, self._seed_sds, strict=True))
        found = {pair: self._solve_intercept(*pair) for pair in dict.fromkeys(pairs)}
        return np.array([found[pair] for pair in pairs])

    def _solve_intercept(self, accuracy: float, seed_sd: float) -> float:
        """By bisection, over quantiles of difficulty and skill."""
        skill = seed_sd * (stats.t.ppf(_POINTS, 3) if self.tails == "t3" else stats.norm.ppf(_POINTS))
        latent = np.hypot(self.shared_sd, self.own_sd) * stats.norm.ppf(_POINTS)[:, None] + skill
        rate = COLLAPSE_RATE if self.tails == "collapse" else 0.0
        low, high = -30.0, 30.0
        for _ in range(40):
            middle = (low + high) / 2
            found = (1 - rate) * special.expit(middle + latent).mean()
            found += rate * special.expit(middle - COLLAPSE_DROP + latent).mean() if rate else 0.0
            low, high = (middle, high) if found < accuracy else (low, middle)
        return low


def as_grid(correct: BoolArray, levels: Mapping[str, Sequence[Level]]) -> Grid:
    """A study's correctness `cells seeds images` as a report has it, all runs done; cells in the order of the levels."""
    cells, seeds, images = correct.shape
    return Grid(
        factors=tuple(levels),
        cells=tuple(itertools.product(*levels.values())),
        seeds=tuple(range(seeds)),
        values=correct.mean(axis=2),
        status=np.full((cells, seeds), "done"),
        test_images=images,
        chance=0.1,
        correct=correct,
    )


def draw_grids(
    population: Population, levels: Mapping[str, Sequence[Level]], *, seeds: int, images: int, studies: int
) -> Iterator[Grid]:
    """Independent studies of one population."""
    rng = stream(0, "coverage", repr(population), seeds, images)
    for _ in range(studies):
        yield as_grid(population.draw(rng, seeds=seeds, images=images), levels)


def percent(outcomes: Sequence[float]) -> str:
    """The mean of the studies' outcomes in percent with its Monte Carlo standard error."""
    spread = float(np.std(outcomes)) or len(outcomes) ** -0.5  # as if one of the studies were different
    return f"{100 * np.mean(outcomes):.1f} ± {100 * spread / np.sqrt(len(outcomes)):.1f}"


def compare_two(population: Population, *, seeds: int, images: int, studies: int) -> dict[str, list[float]]:
    """The first two cells have equal accuracy, the third has another: how often intervals cover, and claims are wrong."""
    truth = np.array(population.accuracy)
    weights = np.array([[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]])
    different, alone, contrast, cells = [], [], [], []
    for grid in draw_grids(population, {"lr": (1, 2, 3)}, seeds=seeds, images=images, studies=studies):
        found = estimate_weighted_means(grid, weights)
        low, high = found.interval()
        different.append(found.p[0] < 0.05)
        alone.append(estimate_weighted_means(replace(grid, correct=None), weights[:1]).p[0] < 0.05)
        contrast.append(low[1] <= truth[0] - truth[2] <= high[1])
        low, high = compute_cell_intervals(estimate_weighted_means(grid, np.eye(3)))
        cells.append(((low <= truth) & (truth <= high)).mean())
    return {
        "equal, called different": different,
        "the same by t tests over seeds": alone,
        "interval of a contrast covers": contrast,
        "interval of a cell covers": cells,
    }


def miss_family(population: Population, *, seeds: int, images: int, studies: int) -> dict[str, list[float]]:
    """How often a primary contrast of a 3 x 3 study is claimed wrongly at most: its interval misses the truth."""
    truth = np.array(population.accuracy)
    plan = [contrast for contrast in plan_contrasts(LEVELS) if contrast.primary]
    adjusted, single = [], []
    for grid in draw_grids(population, LEVELS, seeds=seeds, images=images, studies=studies):
        weights = build_weights(grid, plan)
        found = estimate_weighted_means(grid, weights)
        together = simultaneous_intervals(found, draws=MAX_T_DRAWS)
        low, high = found.interval()
        adjusted.append(bool(((together.low > weights @ truth) | (together.high < weights @ truth)).any()))
        single.append(bool(((low > weights @ truth) | (high < weights @ truth)).any()))
    return {"some interval misses": adjusted, "unadjusted": single}


def list_pairs() -> dict[str, Population]:
    """Three cells each, far from the ceiling and near it; the third errs a third more often."""
    return {
        "70 %": Population((0.7, 0.7, 0.6), seed_sd=0.1),
        "98.5 %": Population((0.985, 0.985, 0.98), seed_sd=0.05, shared_sd=4.0, own_sd=2.0),
    }


def list_families() -> dict[str, Population]:
    """Studies of nine cells, patch size by backbone."""
    null = Population((0.7,) * 9, seed_sd=0.3)
    backbone = (0, 1, 2) * 3
    effects = tuple(0.7 + 0.03 * patch + 0.02 * (number == 2) for patch in range(3) for number in range(3))
    return {
        "no effects": null,
        "no effects, seeds vary little": replace(null, seed_sd=0.05),
        "no effects, 98.5 %": replace(null, accuracy=(0.985,) * 9, shared_sd=4.0, own_sd=2.0),
        "both factors have effects": replace(null, accuracy=effects),
        "seed x backbone effects": replace(null, groups=backbone),
        "heavy tails (t, 3 df)": replace(null, tails="t3"),
        "8 % of the runs collapse": replace(null, tails="collapse"),
        "one noisy backbone (5 x)": replace(null, seed_sd=tuple(0.5 if number == 2 else 0.1 for number in backbone)),
    }


def measure_pairs(*, studies: int, images: Sequence[int]) -> list[dict[str, str]]:
    """One row for each accuracy, number of test images and of seeds."""
    return [
        {
            "accuracy": name,
            "images": f"{m:,}",
            "seeds": str(n),
            **{key: percent(own) for key, own in compare_two(population, seeds=n, images=m, studies=studies).items()},
        }
        for name, population in list_pairs().items()
        for m in images
        for n in SEEDS
    ]


def measure_families(*, studies: int) -> list[dict[str, str]]:
    """One row for each population, with a column for each number of seeds; 360 test images."""
    rows = []
    for name, population in list_families().items():
        found = {n: miss_family(population, seeds=n, images=IMAGES[0], studies=studies) for n in SEEDS}
        columns = {f"{kind}, {n} seeds": percent(found[n][kind]) for kind in found[SEEDS[0]] for n in SEEDS}
        rows.append({"study": name, **columns})
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Prints every table as Markdown."""
    parser = argparse.ArgumentParser(prog="benchmarks.coverage", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="few studies: checks the logic")
    quick = parser.parse_args(argv).quick
    tables = {
        "One comparison": measure_pairs(studies=3 if quick else 2000, images=IMAGES[:1] if quick else IMAGES),
        "A family": measure_families(studies=3 if quick else 1000),
    }
    for title, rows in tables.items():
        print(
            f"**{title}** (percent of studies ± Monte Carlo standard error)\n\n{pd.DataFrame(rows).to_markdown(index=False)}\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
