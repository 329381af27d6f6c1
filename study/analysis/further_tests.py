"""Accuracy on further tests of `study.probe --tests`: changed test images, and other folders.

Population of every interval: new training seeds and new test images of this kind, as for the test set itself. The contrasts of
each test are a family of their own. Losses are differences to the accuracy on the same images as they are, image by image.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from study.analysis.cell_grid import Grid, read_grid
from study.analysis.contrast_results import build_weights, estimate_contrasts
from study.analysis.crossed import estimate_weighted_means
from study.analysis.intervals import CONFIDENCE
from study.analysis.planned_contrasts import Contrast
from study.analysis.simultaneous import simultaneous_intervals
from study.analysis.study_results import StudyResults
from study.records.correctness import unpack_correctness
from study.records.probe_file import CLEAN

PREFIX = "accuracy_"
"""The column of the run table with the accuracy on a further test: `accuracy_patch_shuffle_4`."""


def add_further_accuracies(table: pd.DataFrame, correctness: pd.DataFrame) -> pd.DataFrame:
    """The run table with a column for each further test; NA for runs that were not tested."""
    accuracies = [unpack_correctness(*pair).mean() for pair in zip(correctness["correct"], correctness["images"], strict=True)]
    found = correctness.assign(accuracy=accuracies, column=PREFIX + correctness["split"])
    wide = found.pivot(index="run_id", columns="column", values="accuracy")[list(dict.fromkeys(found["column"]))]
    return table.join(wide.astype("Float64"), on="run_id")


def list_tests(table: pd.DataFrame) -> list[str]:
    """The further tests that some run was evaluated on, in the table's order, without the clean one."""
    columns = [str(name) for name in table.columns if str(name).startswith(PREFIX) and table[name].notna().any()]
    return [name.removeprefix(PREFIX) for name in columns if name != PREFIX + CLEAN]


def split_name(test: str) -> tuple[str, float | None]:
    """The kind of a generated test and its strength: `patch_shuffle_4` -> patch_shuffle, 4; a folder has no strength."""
    kind, _, strength = test.rpartition("_")
    try:
        return (kind, float(strength)) if kind else (test, None)
    except ValueError:
        return test, None


def read_test_grid(study: StudyResults, test: str) -> Grid:
    """The accuracies on a test as a grid, with correctness per image; runs that were not tested are missing."""
    own = study.correctness[study.correctness["split"] == test].assign(split="test")
    tested = study.table["run_id"].isin(own["run_id"])
    images = int(own["images"].iloc[0]) if len(own) else 0
    table = study.table.assign(status=study.table["status"].where(tested, "missing"), test_images=images)
    grid = read_grid(table, list(study.levels), measure=PREFIX + test, correctness=own)
    return replace(grid, choice_variance=study.grid.choice_variance)


def estimate_further_contrasts(study: StudyResults) -> pd.DataFrame:
    """The primary contrasts on every further test, as from `estimate_contrasts`, with the column `test` in front."""
    plan = [contrast for contrast in study.planned if contrast.primary]
    frames = []
    for test in list_tests(study.table) if plan else []:
        found = estimate_contrasts(read_test_grid(study, test), plan, margin=study.margin, draws=study.draws)
        found.insert(0, "test", test)
        frames.append(found)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def estimate_losses(study: StudyResults, test: str) -> pd.DataFrame:
    """One row per cell: its levels, `accuracy` on the test, `loss` to the same images as they are, its `low`, `high` and `n`.

    Losses are negative where accuracy is lost; intervals are each by itself. Empty where the images are others.
    """
    grid = _stack_grids(study, test)
    if grid is None:
        return pd.DataFrame()
    cells = len(grid.cells) // 2
    found = estimate_weighted_means(grid, np.hstack([-np.eye(cells), np.eye(cells)]))
    accuracy = estimate_weighted_means(grid, np.hstack([np.zeros((cells, cells)), np.eye(cells)])).mean
    levels = pd.DataFrame([cell[:-1] for cell in grid.cells[:cells]], columns=list(study.levels))
    low, high = found.interval()
    return levels.assign(accuracy=accuracy, loss=found.mean, low=low, high=high, n=found.n.astype(int))


def compare_losses(study: StudyResults, test: str, plan: list[Contrast]) -> pd.DataFrame:
    """Contrasts of the losses: `contrast`, `upper`, `lower`, `where`, `difference`, simultaneous `low`, `high`, and `n`."""
    grid = _stack_grids(study, test)
    if grid is None or not plan:
        return pd.DataFrame()
    weights = build_weights(read_test_grid(study, test), plan)
    found = estimate_weighted_means(grid, np.hstack([-weights, weights]))
    together = simultaneous_intervals(found, confidence=CONFIDENCE, draws=study.draws)
    names = ("upper", "lower", "where")
    frame = pd.DataFrame({name: [getattr(contrast, name) for contrast in plan] for name in names})
    return frame.assign(
        contrast=[contrast.name for contrast in plan],
        difference=found.mean,
        low=together.low,
        high=together.high,
        n=found.n.astype(int),
    )


def _stack_grids(study: StudyResults, test: str) -> Grid | None:
    """The cells on the clean images, then the same cells on the test; None where the images are not the same."""
    if PREFIX + CLEAN not in study.table:
        return None
    clean, changed = read_test_grid(study, CLEAN), read_test_grid(study, test)
    if clean.test_images != changed.test_images or (clean.correct is None) != (changed.correct is None):
        return None
    cells = tuple((*cell, name) for grid, name in ((clean, CLEAN), (changed, test)) for cell in grid.cells)
    correct = None
    if clean.correct is not None and changed.correct is not None:
        correct = np.concatenate([clean.correct, changed.correct])
    return replace(
        clean,
        factors=(*clean.factors, "test"),
        cells=cells,
        values=np.concatenate([clean.values, changed.values]),
        status=np.concatenate([clean.status, changed.status]),
        correct=correct,
        choice_variance=None,
    )
