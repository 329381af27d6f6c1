"""The Pareto front: no cell of equal or lower cost is better, and the probability of that."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from simulated_study import Truth, correctness_grid, draw_correctness, run_table

from study.analysis.cell_grid import read_grid
from study.analysis.crossed import estimate_weighted_means
from study.analysis.pareto_front import compute_cell_costs, find_pareto_front
from study.rng import stream

SIZES = {"backbone": ["convmixer", "vit"], "dim": [32, 64, 128]}


def study(
    means: list[list[float]], *, seeds: int = 5, rest_sd: float = 0.002, costs: dict[str, float] | None = None
) -> pd.DataFrame:
    """Two backbones at three widths, whose MACs are width squared times a factor of the backbone."""
    table = run_table(Truth(SIZES, np.array(means), 0.004, rest_sd), seeds=seeds)
    return table.assign(macs=table["dim"] ** 2 * table["backbone"].map(costs or {"convmixer": 1.0, "vit": 2.0}))


def front(table: pd.DataFrame) -> pd.DataFrame:
    grid = read_grid(table, list(SIZES))
    return find_pareto_front(grid, compute_cell_costs(table, grid, cost="macs"))


def test_the_front_is_what_brute_force_finds() -> None:
    """Law: a cell is on the front exactly if no cell that costs no more has a higher mean."""
    table = study([[0.7, 0.8, 0.9], [0.75, 0.79, 0.95]])
    means = table.groupby(["backbone", "dim"]).agg(cost=("macs", "median"), mean=("test_accuracy", "mean"))
    found = front(table).set_index(["backbone", "dim"])
    for key, row in means.iterrows():
        beaten = ((means["cost"] <= row["cost"]) & (means["mean"] > row["mean"])).any()
        assert found.loc[key, "on_front"] == (not beaten)
    assert found["cost"].is_monotonic_increasing


def test_membership_is_certain_for_a_clear_front_and_uncertain_for_a_close_one() -> None:
    """Law: cells far apart are on the front with probability 0 or 1; two alike at one cost share it about evenly."""
    clear = front(study([[0.7, 0.8, 0.9], [0.6, 0.7, 0.8]])).set_index(["backbone", "dim"])
    assert clear.loc["convmixer", "front_probability"].min() > 0.999
    assert clear.loc["vit", "front_probability"].max() < 0.001
    alike = front(study([[0.7, 0.8, 0.9]] * 2, rest_sd=0.01, costs={"convmixer": 1.0, "vit": 1.0}))
    assert alike["front_probability"].between(0.001, 0.999).all()
    np.testing.assert_allclose(alike.groupby("dim")["front_probability"].sum(), 1.0)


def test_budgets_within_the_matching_tolerance_count_as_equal() -> None:
    """Law: one percent more cost does not change membership; ten percent do."""
    means = [[0.70, 0.80, 0.90], [0.71, 0.81, 0.91]]
    near = front(study(means, costs={"convmixer": 1.0, "vit": 1.01}))
    far = front(study(means, costs={"convmixer": 1.0, "vit": 1.1}))
    assert near.loc[near["on_front"], "backbone"].unique().tolist() == ["vit"]
    assert far["on_front"].all()


def test_probabilities_are_those_of_the_estimates_joint_distribution() -> None:
    """Law: of two cells of equal cost, one is better with the probability of Student's t by their crossed difference."""
    study = draw_correctness(stream(0, "front"), studies=1, seeds=6, images=300, accuracy=0.7)[0]
    grid = correctness_grid(study)
    found = find_pareto_front(grid, np.ones(2)).set_index("lr")
    gap = estimate_weighted_means(grid, np.array([[1.0, -1.0]]))
    df = estimate_weighted_means(grid, np.eye(2)).df.min()
    expected = stats.t.cdf(gap.mean[0] / gap.standard_error[0], df)
    assert 0.05 < expected < 0.95
    assert found.loc[0, "front_probability"] == pytest.approx(expected, abs=0.03)


def test_with_four_seeds_there_is_a_front_without_probabilities() -> None:
    """Law: under five seeds there is a front by the means, without probabilities."""
    found = front(study([[0.7, 0.8, 0.9], [0.6, 0.7, 0.8]], seeds=4))
    assert found["on_front"].sum() == 3
    assert found["front_probability"].isna().all()


def test_cells_without_a_cost_or_an_accuracy_are_not_placed() -> None:
    """Law: cells that were not measured are excluded."""
    table = study([[0.7, 0.8, 0.9], [0.6, 0.7, 0.8]]).astype({"macs": float})
    table.loc[(table["backbone"] == "vit") & (table["dim"] == 32), "macs"] = np.nan
    table.loc[(table["backbone"] == "vit") & (table["dim"] == 64), "status"] = "failed"
    found = front(table)
    assert found[found["backbone"] == "vit"]["dim"].tolist() == [128]
    assert found.loc[found["dim"] == 128, "cost"].tolist() == pytest.approx([128**2, 2 * 128**2])
