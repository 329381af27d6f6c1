"""What a plan states is what the report does; critical values are the published ones; a pilot's figures those of its runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from example_sweeps import example
from scipy import stats
from simulated_study import Truth, run_table

from study.analysis.budget_balance import describe_balance
from study.analysis.cell_grid import FloatArray
from study.analysis.findings import Findings
from study.analysis.planned_study import (
    describe_pilot_seeds,
    describe_planned_contrasts,
    find_critical_value,
    find_family_level,
    read_planned_study,
)
from study.analysis.report_files import read_report_folder
from study.analysis.report_tables import StudyTables
from study.config.sweep_file import read_sweep
from study.planning.sweep_plan import make_plan

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["digits_token_mixer", "digits_patch_size"])
def test_planned_contrasts_are_those_of_the_report(name: str) -> None:
    """The committed report of the sweep has exactly these primary contrasts, as many exploratory ones, and the same budget."""
    planned = read_planned_study(make_plan(read_sweep(ROOT / f"sweeps/{name}.yaml")).file)
    effect, header, *others = describe_planned_contrasts(planned, shown=100)
    lines = [line for line in others if line.startswith("    ")]
    [part] = Findings(read_report_folder(ROOT / f"reports/{name}")).parts
    reported = part.contrasts
    assert isinstance(reported, pd.DataFrame)
    assert [line.strip() for line in lines] == list(reported["contrast"][reported["primary"]])
    assert header == f"primary contrasts ({len(lines)}, adjusted together; {len(reported) - len(lines)} more are exploratory):"
    assert effect == "effect of interest: an error ratio of 1.5"
    assert others[len(lines) + 1 :] == describe_balance(part.table, list(part.levels)) != []


def family(treatments: int) -> FloatArray:
    """So many treatments, each against one control."""
    return np.hstack([-np.ones((treatments, 1)), np.eye(treatments)])


@pytest.mark.parametrize(
    ("treatments", "df", "expected"),
    [(1, 5, 2.57), (2, 5, 3.03), (4, 5, 3.48), (1, 10, 2.23), (3, 10, 2.76), (4, 10, 2.89), (4, 1e6, 2.44)],
)
def test_critical_values_are_dunnetts(treatments: int, df: float, expected: float) -> None:
    """Two-sided 5 % values for treatments against a control: Dunnett, New tables for multiple comparisons, 1964."""
    assert find_critical_value(family(treatments), df) == pytest.approx(expected, abs=0.02)


def test_the_level_of_a_contrast_is_between_bonferronis_and_five_percent() -> None:
    assert find_family_level(family(1)) == pytest.approx(0.05, rel=0.03)
    assert 0.05 / 4 < find_family_level(family(4)) < 0.05


def pilot(*, seeds: int, images: int, sd: float, kept: bool) -> tuple[StudyTables, np.ndarray]:
    """Two learning rates whose accuracy varies by `sd` over seeds, and the differences of correctness `seeds images`."""
    rng = np.random.default_rng(3)
    skill = 0.8 + sd * rng.normal(size=(2, seeds, 1))
    correct = rng.random((2, 1, images)) < skill  # one difficulty per image and rate, so the images matter
    table = run_table(Truth({"lr": [0.001, 0.003]}, np.zeros(2)), seeds=seeds)
    table = table.assign(test_accuracy=correct.mean(axis=2).ravel(), test_images=images)
    study = example(table, axes={"train.lr": [0.001, 0.003]}, epochs=1)
    packed = [np.packbits(row).tobytes() for row in correct.reshape(-1, images)]
    frame = pd.DataFrame({"run_id": table["run_id"], "split": "test", "images": images, "correct": packed})
    differences = correct[1].astype(float) - correct[0]
    return StudyTables(table, study.curves, study.facts, correctness=frame if kept else pd.DataFrame()), differences


def describe(monkeypatch: pytest.MonkeyPatch, study: StudyTables, difference: float) -> list[str]:
    monkeypatch.setattr("study.analysis.planned_study.read_run_folder", lambda _: study)
    return describe_pilot_seeds(Path("runs/pilot"), difference)


def test_a_pilots_spread_is_shown_and_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard deviation and test-set error by textbook mean squares; a difference within the images' error is refused."""
    study, differences = pilot(seeds=8, images=2000, sd=0.02, kept=True)
    n, m = differences.shape
    sd = differences.mean(axis=1).std(ddof=1)
    image = n * differences.mean(axis=0).var(ddof=1)
    residual = differences - differences.mean(axis=1, keepdims=True) - differences.mean(axis=0) + differences.mean()
    error = np.sqrt((image - (residual**2).sum() / (n - 1) / (m - 1)) / n / m)
    parts = f"(sd {100 * sd:.2f} points over seeds, standard error {100 * error:.2f} points from the images)"
    header, line = describe(monkeypatch, study, 0.06)
    assert "find 6.00 points in four of five studies, by the pilot of 8 seeds on 2,000 test images" in header
    assert "(each contrast at a level of 5 %, so" in header
    assert line.startswith("    learning rate 0.003 − learning rate 0.001: ") and parts in line and "seeds [" in line
    least = 100 * (stats.norm.isf(0.025) + stats.norm.isf(0.2)) * error
    _, line = describe(monkeypatch, study, 0.02)
    assert f"out of reach with these test images, where any number of seeds finds {least:.1f}" in line


def test_a_pilot_without_correctness_speaks_of_its_images_and_a_small_one_of_its_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    study, _ = pilot(seeds=5, images=2000, sd=0.02, kept=False)
    header, line = describe(monkeypatch, study, 0.06)
    assert "of 5 seeds on these test images" in header and "from the images" not in line
    study, _ = pilot(seeds=2, images=2000, sd=0.02, kept=True)
    assert "an interval needs at least 3" in describe(monkeypatch, study, 0.06)[-1]
