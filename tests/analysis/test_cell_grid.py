"""A run table as a grid: correctness per image goes with its cell and seed, or is said to be lacking."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from simulated_study import metaformer, run_table

from study.analysis.cell_grid import read_grid
from study.rng import stream

BY = ["patch_size", "token_mixer"]


def correctness_of(table: pd.DataFrame, *, images: int = 360) -> pd.DataFrame:
    """Correctness per image, drawn at random, of every run of a table."""
    bits = stream(0, "correctness").random((len(table), images)) < 0.9
    packed = [np.packbits(row).tobytes() for row in bits]
    return pd.DataFrame({"run_id": table["run_id"], "split": "test", "images": images, "correct": packed})


def test_correctness_is_that_of_the_cells_run() -> None:
    """Law: each entry is the correctness of the run of its cell and seed, whatever the order of rows; selecting cells and
    leaving runs out carries it, and rows of validation images are not taken for it."""
    table = run_table(metaformer(), seeds=3)
    table.loc[4, ["status", "test_accuracy"]] = ["diverged", np.nan]
    kept = correctness_of(table)
    shuffled = pd.concat([kept.sample(frac=1, random_state=0), kept.assign(split="val", images=8, correct=b"\0")])
    grid = read_grid(table, BY, correctness=shuffled)
    chosen = grid.select([3, 1])
    assert grid.correct is not None and grid.correct.shape == (9, 3, 360) and chosen.correct is not None
    for row, packed in zip(table.itertuples(), kept["correct"], strict=True):
        cell, seed = grid.cells.index((row.patch_size, row.token_mixer)), grid.seeds.index(row.seed)
        expected = np.unpackbits(np.frombuffer(packed, np.uint8)).astype(bool) & (row.status == "done")
        np.testing.assert_array_equal(grid.correct[cell, seed], expected)
    np.testing.assert_array_equal(chosen.correct, grid.correct[[3, 1]])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda kept: None, "no correctness per image was kept"),
        (lambda kept: kept.iloc[:0], "no correctness per image was kept"),
        (lambda kept: kept.iloc[2:], "no correctness per image was kept of 2 of 27 runs"),
        (lambda kept: kept.assign(images=[352, *kept["images"][1:]]), "the runs have different test images"),
    ],
)
def test_what_is_lacking_is_said(change, said: str) -> None:
    """Law: without the same test images of all completed runs there is no correctness, but a reason."""
    table = run_table(metaformer(), seeds=3)
    grid = read_grid(table, BY, correctness=change(correctness_of(table)))
    assert grid.correct is None and grid.lacks_correct == said


def test_data_sets_of_equal_size_have_different_test_images() -> None:
    """Law: two data sets with as many images each share none of them."""
    table = run_table(metaformer(), seeds=3)
    table["data_digest"] = np.where(table["seed"] == 0, "a", "b")
    assert read_grid(table, BY, correctness=correctness_of(table)).lacks_correct == "the runs have different test images"
