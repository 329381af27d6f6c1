"""What repeated intervals are worth: simulated studies that are looked at after every stage, as tables for docs/statistics.md.

    python -m benchmarks.looks            # all tables as Markdown, in about an hour on one core
    python -m benchmarks.looks --quick    # the same tables from few studies: checks the logic, measures nothing

Seeds and test images are new in every study, but all looks of a study have the same images. Truth is known, as in
`benchmarks.coverage`, from which correctness is drawn.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.coverage import IMAGES, LEVELS, Population, draw_grids, list_families, list_pairs, percent
from study.analysis.cell_grid import FloatArray, Grid
from study.analysis.contrast_results import build_weights
from study.analysis.crossed import Estimates, estimate_weighted_means
from study.analysis.group_sequential import Look, find_nominal_levels, repeated_intervals
from study.analysis.planned_contrasts import plan_contrasts
from study.analysis.simultaneous import SimultaneousIntervals
from study.rng import stream

SIZES = (5, 10, 15, 20, 25, 30)  # seeds at each look
_LEVEL = ("some look misses", "by plain t at the same levels", "by 95 % intervals")

MARGIN = 0.01  # of equivalence, in a study whose first two cells differ by just so much
FAMILIES = ("no effects", "no effects, seeds vary little", "no effects, 98.5 %", "both factors have effects")


def take_looks(grid: Grid, weights: FloatArray, sizes: Sequence[int]) -> Iterator[tuple[Estimates, SimultaneousIntervals]]:
    """The estimates of a study at each look, with their repeated intervals."""
    assert grid.correct is not None
    for number, size in enumerate(sizes, start=1):
        seen = replace(
            grid,
            seeds=grid.seeds[:size],
            values=grid.values[:, :size],
            status=grid.status[:, :size],
            correct=grid.correct[:, :size],
        )
        found = estimate_weighted_means(seen, weights)
        yield found, repeated_intervals(found, Look(number, tuple(sizes)))


def compare_pair(population: Population, *, images: int, studies: int, sizes: Sequence[int]) -> dict[str, list[float]]:
    """Of two cells with a known difference: what is wrongly said of it at any look, and what the study ends with.

    It ends at the first look that leaves out 0 or is within the margin.
    """
    difference = population.accuracy[0] - population.accuracy[1]
    found: dict[str, list[float]] = {name: [] for name in (*_LEVEL, "called different", "called equivalent", "seeds")}
    for grid in draw_grids(population, {"lr": (1, 2)}, seeds=sizes[-1], images=images, studies=studies):
        looks = list(take_looks(grid, np.array([[1.0, -1.0]]), sizes))
        low, high = (np.array([getattr(each, end)[0] for _, each in looks]) for end in ("low", "high"))
        mean, error, df = np.array([(each.mean[0], each.standard_error[0], each.df[0]) for each, _ in looks]).T
        away = np.abs(mean - difference) / error
        different, equivalent = (low > 0) | (high < 0), (low >= -MARGIN) & (high <= MARGIN)
        last = int(np.argmax(different | equivalent)) if (different | equivalent).any() else len(sizes) - 1
        outcomes = {
            _LEVEL[0]: ((low > difference) | (high < difference)).any(),
            _LEVEL[1]: (away > stats.t.isf(find_nominal_levels(tuple(sizes), sizes[-1]) / 2, df)).any(),
            _LEVEL[2]: (away > stats.t.isf(0.025, df)).any(),
            "called different": different[last],
            "called equivalent": equivalent[last],
            "seeds": sizes[last],
        }
        for name, outcome in outcomes.items():
            found[name].append(float(outcome))
    return found


def miss_family(population: Population, *, images: int, studies: int, sizes: Sequence[int]) -> list[float]:
    """How often a primary contrast of a 3 x 3 study is claimed wrongly at most: an interval misses the truth at some look."""
    truth = np.array(population.accuracy)
    plan = [contrast for contrast in plan_contrasts(LEVELS) if contrast.primary]
    outcomes = []
    for grid in draw_grids(population, LEVELS, seeds=sizes[-1], images=images, studies=studies):
        weights = build_weights(grid, plan)
        true = weights @ truth
        looks = [each for _, each in take_looks(grid, weights, sizes)]
        outcomes.append(any(bool(((each.low > true) | (each.high < true)).any()) for each in looks))
    return outcomes


def miss_by_seeds(sizes: tuple[int, ...], *, studies: int) -> dict[str, list[float]]:
    """How often one contrast that varies over seeds alone is called different at some look, and by plain t tests."""
    drawn = stream(0, "looks by seeds", *sizes).standard_normal((studies, sizes[-1]))
    found = {name: np.zeros(studies, dtype=bool) for name in ("repeated", "plain t at the same levels", "5 % at each look")}
    plain = find_nominal_levels(sizes, sizes[-1])
    for number, size in enumerate(sizes, start=1):
        seen = drawn[:, :size]
        t = np.abs(seen.mean(axis=1) / (seen.std(axis=1, ddof=1) / np.sqrt(size)))
        levels = (
            Look(number, sizes).critical_value(size - 1, contrasts=1),
            *stats.t.isf([plain[number - 1] / 2, 0.025], size - 1),
        )
        for wrong, critical in zip(found.values(), levels, strict=True):
            wrong |= t > critical
    return {name: [*map(float, wrong)] for name, wrong in found.items()}


def measure_seeds(*, studies: int) -> list[dict[str, str]]:
    """One row for each choice of looks."""
    return [
        {
            "looks": ", ".join(map(str, sizes)),
            **{key: percent(own) for key, own in miss_by_seeds(sizes, studies=studies).items()},
        }
        for sizes in (SIZES, (3, 6, 9, 12), tuple(range(3, 11)), (10, 20, 30))
    ]


def list_studies() -> dict[str, Population]:
    """Two cells each of equal accuracy: where images vary more than seeds, near the ceiling, and where seeds vary most."""
    pairs = {name: replace(own, accuracy=own.accuracy[:2]) for name, own in list_pairs().items()}
    return {**pairs, "70 %, seeds vary most": replace(pairs["70 %"], seed_sd=0.5)}


def measure_pairs_at_looks(*, studies: int, images: Sequence[int]) -> list[dict[str, str]]:
    """One row for each population of equal cells and number of test images."""
    rows = []
    for name, population in list_studies().items():
        for m in images:
            found = compare_pair(population, images=m, studies=studies, sizes=SIZES)
            rows.append({"accuracy": name, "images": f"{m:,}", **{key: percent(found[key]) for key in _LEVEL}})
    return rows


def measure_decisions(*, studies: int) -> list[dict[str, str]]:
    """How often and when a study of two cells ends that differ by so many points; at the margin, equivalence is wrong."""
    rows = []
    for points in (0, 1, 2, 4):
        population = Population((0.9, 0.9 - points / 100), seed_sd=0.1, shared_sd=3.0, own_sd=0.7)
        found = compare_pair(population, images=2000, studies=studies, sizes=SIZES)
        rows.append(
            {
                "difference (points)": str(points),
                "called different": percent(found["called different"]),
                "called equivalent": percent(found["called equivalent"]),
                "seeds": f"{np.mean(found['seeds']):.1f}",
            }
        )
    return rows


def measure_families_at_looks(*, studies: int) -> list[dict[str, str]]:
    """One row for each population of nine cells, with 360 test images."""
    families = list_families()
    return [
        {
            "study": name,
            "some interval misses at some look": percent(
                miss_family(families[name], images=IMAGES[0], studies=studies, sizes=SIZES)
            ),
        }
        for name in FAMILIES
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Prints every table as Markdown."""
    parser = argparse.ArgumentParser(prog="benchmarks.looks", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="few studies: checks the logic")
    quick = parser.parse_args(argv).quick
    tables = {
        "Seeds alone": measure_seeds(studies=100 if quick else 100_000),
        "Equal cells": measure_pairs_at_looks(studies=3 if quick else 2000, images=IMAGES[:1] if quick else IMAGES),
        "A family": measure_families_at_looks(studies=3 if quick else 1000),
        "Decisions": measure_decisions(studies=3 if quick else 1000),
    }
    for title, rows in tables.items():
        print(
            f"**{title}** (percent of studies ± Monte Carlo standard error)\n\n{pd.DataFrame(rows).to_markdown(index=False)}\n",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
