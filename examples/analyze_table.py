"""Analyze the table of a finished study with pandas alone: cell means, and a paired comparison of two patch sizes.

    python examples/analyze_table.py [reports/digits_patch_size/runs.csv]

The table is committed with its report, so neither torch nor the runs themselves are needed.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pandas as pd
from scipy import stats

TABLE = Path(__file__).resolve().parents[1] / "reports" / "digits_patch_size" / "runs.csv"


def cell_means(runs: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy in percent for each combination of backbone and patch size: mean, standard deviation, seeds."""
    cells = runs.groupby(["backbone", "patch_size"])["test_accuracy"]
    return cells.agg(mean=lambda values: 100 * values.mean(), sd=lambda values: 100 * values.std(), n="count").reset_index()


def paired_difference(runs: pd.DataFrame, backbone: str, sizes: tuple[int, int]) -> tuple[float, float, int]:
    """Mean accuracy difference between two patch sizes in percentage points, half its 95 % interval, number of seeds.

    Runs with the same seed see the same images in the same order, so the difference is taken seed by seed. The interval
    is Student's t over seeds: it speaks of new seeds on these same test images.
    """
    by_seed = runs[runs["backbone"] == backbone].pivot(index="seed", columns="patch_size", values="test_accuracy")
    differences = 100 * (by_seed[sizes[0]] - by_seed[sizes[1]]).dropna()
    n = len(differences)
    half_width = stats.t.ppf(0.975, n - 1) * differences.std() / math.sqrt(n)
    return differences.mean(), half_width, n


def main(path: Path) -> None:
    """Print the cell means and, for each backbone, the effect of patch size 1 against 2."""
    runs = pd.read_csv(path)
    # A run that is missing, failed or diverged has no accuracy. Count such runs before you leave them out.
    print(runs["status"].value_counts().to_string(), "\n")
    runs = runs[runs["status"] == "done"]

    print(cell_means(runs).to_string(index=False, float_format="{:.2f}".format), "\n")
    for backbone in runs["backbone"].unique():
        mean, half_width, n = paired_difference(runs, backbone, (1, 2))
        print(f"{backbone}: patch size 1 minus 2 = {mean:+.2f} ± {half_width:.2f} points (n = {n} seeds)")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else TABLE)
