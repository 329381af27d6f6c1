"""Losses and contrasts on further tests against plain arithmetic on the images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from probed_example import IMAGES, probed

from study.analysis.findings import Findings, StudyPart
from study.analysis.further_tests import compare_losses, estimate_losses, list_tests, read_test_grid, split_name
from study.analysis.layer_measures import list_level_contrasts
from study.records.correctness import unpack_correctness


@pytest.fixture(scope="module")
def part() -> StudyPart:
    (part,) = Findings(probed()).parts
    return part


def read_images(part: StudyPart, test: str, **levels: object) -> np.ndarray:
    """Correctness `seeds images` of the cell with these levels."""
    rows = part.table
    for name, level in levels.items():
        rows = rows[rows[name] == level]
    own = part.correctness[part.correctness["split"] == test].set_index("run_id").loc[list(rows["run_id"])]
    return np.stack([unpack_correctness(*pair) for pair in zip(own["correct"], own["images"], strict=True)]).astype(float)


def crossed_error(differences: np.ndarray) -> float:
    """The standard error of the mean of `seeds images`, from the mean squares as textbooks write them."""
    n, m = differences.shape
    rows, columns, mean = differences.mean(axis=1), differences.mean(axis=0), differences.mean()
    seed, image = m * rows.var(ddof=1), n * columns.var(ddof=1)
    residual = ((differences - rows[:, None] - columns + mean) ** 2).sum() / ((n - 1) * (m - 1))
    return float(np.sqrt(max(seed + image - residual, seed, image) / (n * m)))


def test_names_say_kind_and_strength(part):
    assert list_tests(part.table) == ["patch_shuffle_2", "patch_shuffle_4", "sketches"]
    assert split_name("patch_shuffle_4") == ("patch_shuffle", 4) and split_name("occlusion_0.5") == ("occlusion", 0.5)
    assert split_name("sketches") == ("sketches", None) and split_name("my_sketches") == ("my_sketches", None)


def test_losses_are_differences_on_the_same_images(part):
    """Mean, and the half width of the interval by the crossed standard error, of every cell."""
    for test in ("patch_shuffle_2", "patch_shuffle_4"):
        for row in estimate_losses(part, test).to_dict("records"):
            cell = {name: row[name] for name in part.levels}
            differences = read_images(part, test, **cell) - read_images(part, "clean", **cell)
            assert row["loss"] == pytest.approx(differences.mean()) and row["n"] == 4
            assert row["accuracy"] == pytest.approx(read_images(part, test, **cell).mean())
            half = (row["high"] - row["low"]) / 2
            assert 1.9 < half / crossed_error(differences) < 3.3  # Student's t between its normal limit and 3 seeds


def test_losses_are_compared_within_seeds_and_images(part):
    plan = list_level_contrasts(part)
    assert [one.where for one in plan] == ["at patch size 2", "at patch size 4"]
    found = compare_losses(part, "patch_shuffle_2", plan)
    for size, row in zip((2, 4), found.to_dict("records"), strict=True):
        losses = {
            name: read_images(part, "patch_shuffle_2", patch_size=size, backbone=name)
            - read_images(part, "clean", patch_size=size, backbone=name)
            for name in ("vit", "convmixer")
        }
        assert row["difference"] == pytest.approx((losses["vit"] - losses["convmixer"]).mean())
        assert 0 < row["low"] < row["difference"] < row["high"]


def test_contrasts_of_a_test_are_those_of_its_images(part):
    """The primary contrasts, on the folder with its own number of images too."""
    found = part.on_further_tests
    assert isinstance(found, pd.DataFrame) and set(found["test"]) == {*list_tests(part.table)}
    for test, images in (("patch_shuffle_4", IMAGES), ("sketches", IMAGES // 2)):
        row = found[(found["test"] == test) & found["contrast"].str.startswith("ViT − ConvMixer, averaged")].iloc[0]
        both = [read_images(part, test, backbone=name).mean() for name in ("vit", "convmixer")]
        assert row["difference"] == pytest.approx(both[0] - both[1]) and row["images"] == images and row["primary"]
    assert estimate_losses(part, "sketches").empty and compare_losses(part, "sketches", list_level_contrasts(part)).empty


def test_runs_that_were_not_tested_are_missing(part):
    """A run without the test has no accuracy on it, and no zero; the others keep theirs."""
    lost = part.table["run_id"].iloc[0]
    kept = part.correctness[(part.correctness["run_id"] != lost) | (part.correctness["split"] == "test")]
    partial = replace(part, correctness=kept)
    grid = read_test_grid(partial, "patch_shuffle_2")
    assert np.isnan(grid.values).sum() == 1 and (grid.status == "missing").sum() == 1
    assert estimate_losses(partial, "patch_shuffle_2")["n"].tolist().count(3) == 1
