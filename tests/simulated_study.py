"""Run tables of simulated studies, for tests: accuracy = cell + seed + residual, with known parameters."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.coverage import as_grid, list_pairs
from study.analysis.cell_grid import Grid
from study.analysis.crossed import Estimates, estimate_weighted_means
from study.rng import stream

Level = str | int | float | bool | None


@dataclass(frozen=True)
class Truth:
    """The parameters of a simulated study: expected accuracies in the axes' shape, and two standard deviations."""

    axes: Mapping[str, Sequence[Level]]
    means: npt.NDArray[np.float64]
    seed_sd: float = 0.004
    rest_sd: float = 0.004

    def cells(self) -> list[tuple[Level, ...]]:
        return list(itertools.product(*self.axes.values()))

    def values(self, studies: int, *, seeds: int, key: str = "") -> npt.NDArray[np.float64]:
        """Accuracies of many studies at once, `studies cells seeds`."""
        rng = stream(0, "simulated study", key)
        common = rng.normal(0, self.seed_sd, (studies, 1, seeds))
        rest = rng.normal(0, self.rest_sd, (studies, self.means.size, seeds))
        return self.means.reshape(1, -1, 1) + common + rest

    def shares(self) -> dict[str, float]:
        """The true shares of variation of a two-factor study, by definition: mean squared effects and variances."""
        grand = self.means.mean()
        first = self.means.mean(axis=1) - grand
        second = self.means.mean(axis=0) - grand
        both = self.means - grand - first[:, None] - second[None, :]
        a, b = list(self.axes)
        parts = {a: (first**2).mean(), b: (second**2).mean(), f"{a} x {b}": (both**2).mean()}
        parts |= {"seed": self.seed_sd**2, "residual": self.rest_sd**2}
        total = sum(parts.values())
        return {name: float(part / total) for name, part in parts.items()}


def metaformer(*, seed_sd: float = 0.004, rest_sd: float = 0.004) -> Truth:
    """Patch sizes by token mixers: both have effects, and attention is less inferior at large patches."""
    means = np.array([[0.90, 0.92, 0.86], [0.88, 0.89, 0.84], [0.83, 0.82, 0.80]])
    axes = {"patch_size": [1, 2, 4], "token_mixer": ["attention", "depthwise_conv", "identity"]}
    return Truth(axes, means, seed_sd, rest_sd)


def run_table(truth: Truth, *, seeds: int = 5, key: str = "", backbone: str = "metaformer") -> pd.DataFrame:
    """One simulated study as the run table that `load_table` gives, every run done."""
    values = truth.values(1, seeds=seeds, key=key)[0]
    rows = []
    for (place, cell), seed in itertools.product(enumerate(truth.cells()), range(seeds)):
        levels = dict(zip(truth.axes, cell, strict=True))
        rows.append(
            {
                "run_id": f"{backbone}-{place}-s{seed}-{place * 1000 + seed:06d}",
                "sweep": "simulated",
                "status": "done",
                "reason": pd.NA,
                "backbone": backbone,
                **levels,
                "seed": seed,
                "data_name": "digits",
                "image_size": 8,
                "test_images": 360,
                "num_classes": 10,
                "params": 50_000 + place,
                "macs": 1_000_000 * (1 + place),
                "match_by": "params",
                "match_target": 50_000,
                "match_residual": 0.001 * place,
                "val_accuracy": values[place, seed] + 0.001,
                "test_accuracy": values[place, seed],
                "train_seconds": 10.0 + place,
                "images_per_second": 5000.0,
                "device": "cpu",
                "device_name": "a cpu",
                "commit": "0" * 40,
                "dirty": False,
                "attempts": 1,
                "restart": 0,
            }
        )
    return pd.DataFrame(rows)


def draw_correctness(
    rng: np.random.Generator, *, studies: int, seeds: int, images: int, accuracy: float, cells: int = 2
) -> list[npt.NDArray[np.bool_]]:
    """Correctness `cells seeds images` of cells of equal expected accuracy (0.7 or 0.985), new images in every study."""
    (pair,) = (found for found in list_pairs().values() if found.accuracy[0] == accuracy)
    population = replace(pair, accuracy=(accuracy,) * cells)
    return [population.draw(rng, seeds=seeds, images=images) for _ in range(studies)]


def correctness_grid(correct: npt.NDArray[np.bool_]) -> Grid:
    """One study's correctness `cells seeds images` as a grid of one factor, all runs done."""
    return as_grid(correct, {"lr": range(len(correct))})


def estimate_values(values: npt.NDArray[np.float64]) -> Estimates:
    """Estimates of `k` tables of numbers, `k seeds images`, which needn't be 0 and 1."""
    return estimate_weighted_means(correctness_grid(values), np.eye(len(values)))


def keep_correctness(table: pd.DataFrame, *, images: int = 2000, key: str = "") -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table with accuracies counted on so many test images, and which images each run classified correctly.

    Half of the images are as hard for every run, the others for each run anew.
    """
    rng = stream(0, "test images", key)
    shared = rng.random(images)
    rows = []
    for run, accuracy in zip(table["run_id"], table["test_accuracy"], strict=True):
        correct = np.where(np.arange(images) % 2, shared, rng.random(images)) < accuracy
        rows.append({"run_id": run, "split": "test", "images": images, "correct": np.packbits(correct).tobytes()})
    found = pd.DataFrame(rows)
    counted = [np.unpackbits(np.frombuffer(row, np.uint8)).sum() / images for row in found["correct"]]
    return table.assign(test_accuracy=counted, test_images=images), found
