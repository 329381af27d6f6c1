"""What stored predictions say beyond accuracy: accuracy by class, confusions, calibration; a description of each cell's runs.

Everything follows from counts: of every run, how many test images have this label, this predicted class and a confidence in
this bin, as from `count_predictions`.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from study.analysis.cell_grid import CellLevels, read_cells, sort_key
from study.analysis.error_consistency import COMPARED
from study.analysis.intervals import CONFIDENCE, MIN_SEEDS


def tabulate_classes(runs: pd.DataFrame, counts: pd.DataFrame, factors: Sequence[str]) -> pd.DataFrame:
    """One row per cell and class, in the columns `class`, `images`, `n`, `accuracy`, `sd`, `low`, `high` after the factors.

    `accuracy` is the mean over seeds of the share of the class's test images that are classified correctly (its recall), with
    Student's 95 % interval; class -1 is the macro accuracy, the mean of all classes. Population: new training seeds, on these
    test images; NaN below three seeds.
    """
    right = counts.assign(right=counts["images"].where(counts["label"] == counts["predicted"], 0))
    found = right.groupby(["run_id", "label"], as_index=False)[["images", "right"]].sum()
    found["share"] = found["right"] / found["images"]
    macro = found.groupby("run_id", as_index=False).agg(images=("images", "sum"), share=("share", "mean")).assign(label=-1)
    by_run = pd.concat([macro, found[["run_id", "label", "images", "share"]]], ignore_index=True)
    rows = []
    for cell, own in _group_by_cell(runs, by_run, factors):
        for label, values in own.groupby("label"):
            rows.append((*cell, label, int(values["images"].iloc[0]), len(values), *_summarize(values["share"].to_numpy())))
    return pd.DataFrame(rows, columns=[*factors, "class", "images", "n", "accuracy", "sd", "low", "high"])


def tabulate_calibration(runs: pd.DataFrame, counts: pd.DataFrame, factors: Sequence[str]) -> pd.DataFrame:
    """One row per cell: `n`, `calibration_error`, the mean over seeds of the expected calibration error, `sd`, `low`, `high`.

    That is the mean distance of accuracy and confidence over the bins of confidence, weighted by their images (Guo et al. 2017,
    "On calibration of modern neural networks", equation 5). Population as of `tabulate_classes`.
    """
    bins = counts.assign(right=counts["images"].where(counts["label"] == counts["predicted"], 0))
    bins = bins.groupby(["run_id", "bin"], as_index=False)[["images", "right", "confidence"]].sum()
    bins["gap"] = (bins["right"] - bins["confidence"]).abs()
    by_run = bins.groupby("run_id", as_index=False)[["gap", "images"]].sum()
    by_run["error"] = by_run["gap"] / by_run["images"]
    rows = [(*cell, len(own), *_summarize(own["error"].to_numpy())) for cell, own in _group_by_cell(runs, by_run, factors)]
    return pd.DataFrame(rows, columns=[*factors, "n", "calibration_error", "sd", "low", "high"])


def tabulate_confusions(runs: pd.DataFrame, counts: pd.DataFrame, factors: Sequence[str]) -> pd.DataFrame:
    """One row per cell, label and wrongly predicted class: `share` of the label's test images, the mean over the runs.

    Pairs that no run of a cell confuses have no row. Population: none; a description of these runs on these test images.
    """
    wrong = counts.groupby(["run_id", "label", "predicted"], as_index=False)["images"].sum()
    wrong["share"] = wrong["images"] / wrong.groupby(["run_id", "label"])["images"].transform("sum")
    wrong = wrong[wrong["label"] != wrong["predicted"]]
    known = counts[["run_id"]].drop_duplicates()
    sizes = {cell: len(own) for cell, own in _group_by_cell(runs, known, factors)}
    rows = []
    for cell, own in _group_by_cell(runs, wrong, factors):
        for (label, predicted), values in own.groupby(["label", "predicted"]):
            rows.append((*cell, label, predicted, float(values["share"].sum() / sizes[cell])))
    return pd.DataFrame(rows, columns=[*factors, "label", "predicted", "share"])


def compare_confusions(confusions: pd.DataFrame, measured: pd.DataFrame, *, most: int = 5) -> pd.DataFrame:
    """For every two levels of the first of `COMPARED` that varies, the `most` confusions that differ most between them.

    `measured` has a row per cell whose predictions are known, as from `tabulate_calibration`. Columns: `upper`, `lower`,
    `label`, `predicted`, `share_upper`, `share_lower`, averaged over the cells of each level, equally weighted. Empty without
    such a factor. Population: none; a description of these runs on these test images.
    """
    factor = next((name for name in COMPARED if name in measured and measured[name].nunique() > 1), None)
    found = []
    if factor is not None and len(confusions):
        cells = measured[factor].value_counts(sort=False)
        sums = confusions.groupby([factor, "label", "predicted"])["share"].sum()
        shares = sums.unstack(factor, fill_value=0).reindex(columns=cells.index, fill_value=0) / cells
        for lower, upper in itertools.combinations(cells.index, 2):
            own = shares[[upper, lower]]
            order = (own[upper] - own[lower]).abs().sort_values(ascending=False, kind="stable").index[:most]
            found += [(upper, lower, *pair, *own.loc[pair]) for pair in order if own.loc[pair].nunique() > 1]
    return pd.DataFrame(found, columns=["upper", "lower", "label", "predicted", "share_upper", "share_lower"])


def _group_by_cell(runs: pd.DataFrame, by_run: pd.DataFrame, factors: Sequence[str]) -> list[tuple[CellLevels, pd.DataFrame]]:
    """The rows of each cell's runs; cells are sorted, as those of the grid are."""
    cells = dict(zip(runs["run_id"], read_cells(runs, factors), strict=True))
    own = by_run[by_run["run_id"].isin(list(cells))]
    groups: dict[CellLevels, list[int]] = {}
    for index, run_id in zip(own.index, own["run_id"], strict=True):
        groups.setdefault(cells[run_id], []).append(index)
    ordered = sorted(groups, key=lambda cell: tuple(map(sort_key, cell)))
    return [(cell, own.loc[groups[cell]]) for cell in ordered]


def _summarize(values: np.ndarray) -> tuple[float, float, float, float]:
    """Mean, standard deviation over seeds, and Student's interval; NaN where there are too few."""
    n, mean = len(values), float(values.mean())
    sd = float(values.std(ddof=1)) if n > 1 else float("nan")
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * sd / np.sqrt(n) if n >= MIN_SEEDS else float("nan")
    return mean, sd, mean - half, mean + half
