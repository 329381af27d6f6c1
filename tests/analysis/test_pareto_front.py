"""The Pareto front: no cell of equal or lower cost is better, and the probability of that."""

import numpy as np
import pandas as pd
import pytest
from simulated_study import Truth, run_table

from study.analysis.intervals import estimate_mean
from study.analysis.pareto_front import draw_means, estimate_front_band, find_pareto_front

SIZES = {"backbone": ["convmixer", "vit"], "dim": [32, 64, 128]}


def study(
    means: list[list[float]], *, seeds: int = 5, rest_sd: float = 0.002, costs: dict[str, float] | None = None
) -> pd.DataFrame:
    """Two backbones at three widths, whose MACs are width squared times a factor of the backbone."""
    table = run_table(Truth(SIZES, np.array(means), 0.004, rest_sd), seeds=seeds)
    return table.assign(macs=table["dim"] ** 2 * table["backbone"].map(costs or {"convmixer": 1.0, "vit": 2.0}))


def test_the_front_is_what_brute_force_finds() -> None:
    """Law: a cell is on the front exactly if no cell that costs no more has a higher mean."""
    table = study([[0.7, 0.8, 0.9], [0.75, 0.79, 0.95]])
    means = table.groupby(["backbone", "dim"]).agg(cost=("macs", "median"), mean=("test_accuracy", "mean"))
    found = find_pareto_front(table, ["backbone", "dim"], cost="macs").set_index(["backbone", "dim"])
    for key, row in means.iterrows():
        beaten = ((means["cost"] <= row["cost"]) & (means["mean"] > row["mean"])).any()
        assert found.loc[key, "on_front"] == (not beaten)
    assert found["cost"].is_monotonic_increasing


def test_membership_is_certain_for_a_clear_front_and_uncertain_for_a_close_one() -> None:
    """Law: cells far apart are on the front with probability 0 or 1; two alike at one cost share it about evenly."""
    clear = find_pareto_front(study([[0.7, 0.8, 0.9], [0.6, 0.7, 0.8]]), ["backbone", "dim"], cost="macs").set_index(
        ["backbone", "dim"]
    )
    assert clear.loc["convmixer", "front_probability"].min() > 0.999
    assert clear.loc["vit", "front_probability"].max() < 0.001
    alike = find_pareto_front(
        study([[0.7, 0.8, 0.9]] * 2, rest_sd=0.01, costs={"convmixer": 1.0, "vit": 1.0}), ["backbone", "dim"], cost="macs"
    )
    assert alike["front_probability"].between(0.001, 0.999).all()
    np.testing.assert_allclose(alike.groupby("dim")["front_probability"].sum(), 1.0)


def test_budgets_within_the_matching_tolerance_count_as_equal() -> None:
    """Law: one percent more cost does not change membership; ten percent do."""
    means = [[0.70, 0.80, 0.90], [0.71, 0.81, 0.91]]
    near = find_pareto_front(study(means, costs={"convmixer": 1.0, "vit": 1.01}), ["backbone", "dim"], cost="macs")
    far = find_pareto_front(study(means, costs={"convmixer": 1.0, "vit": 1.1}), ["backbone", "dim"], cost="macs")
    assert near.loc[near["on_front"], "backbone"].unique().tolist() == ["vit"]
    assert far["on_front"].all()


def test_plausible_means_spread_as_the_t_intervals_do() -> None:
    """Law: the quantiles of the drawn means are the t limits, and cells that correlate over seeds are drawn correlated."""
    values = Truth(SIZES, np.full((2, 3), 0.8), 0.02, 0.002).values(1, seeds=5)[0]
    drawn = draw_means(values, draws=20000)
    estimate = estimate_mean(values)
    width = estimate.high - estimate.low
    assert np.abs(np.quantile(drawn, 0.025, axis=0) - estimate.low).max() < 0.05 * width.max()
    assert np.abs(np.quantile(drawn, 0.975, axis=0) - estimate.high).max() < 0.05 * width.max()
    ranks = drawn.argsort(axis=0).argsort(axis=0)
    assert np.corrcoef(ranks.T).min() > 0.9


def test_with_two_seeds_there_is_a_front_without_probabilities() -> None:
    """Law: under three seeds there is a front by the means, without probabilities."""
    found = find_pareto_front(study([[0.7, 0.8, 0.9], [0.6, 0.7, 0.8]], seeds=2), ["backbone", "dim"], cost="macs")
    assert found["on_front"].sum() == 3
    assert found["front_probability"].isna().all()


def test_cells_without_a_cost_or_an_accuracy_are_not_placed() -> None:
    """Law: cells that were not measured are excluded."""
    table = study([[0.7, 0.8, 0.9], [0.6, 0.7, 0.8]]).astype({"macs": float})
    table.loc[(table["backbone"] == "vit") & (table["dim"] == 32), "macs"] = np.nan
    table.loc[(table["backbone"] == "vit") & (table["dim"] == 64), "status"] = "failed"
    found = find_pareto_front(table, ["backbone", "dim"], cost="macs")
    assert found[found["backbone"] == "vit"]["dim"].tolist() == [128]
    assert found.loc[found["dim"] == 128, "cost"].tolist() == pytest.approx([128**2, 2 * 128**2])


def test_the_front_as_a_step_function_is_the_best_affordable_mean() -> None:
    """Law: at each cost the step is the best mean among cells that cost no more; the band contains it, from three seeds."""
    table = study([[0.7, 0.8, 0.9], [0.75, 0.79, 0.95]])
    by = ["backbone", "dim"]
    found = estimate_front_band(table, by, cost="macs")
    means = table.groupby(by).agg(cost=("macs", "median"), mean=("test_accuracy", "mean"))
    best = [means.loc[means["cost"] <= 1.02 * cost, "mean"].max() for cost in found["cost"]]
    np.testing.assert_allclose(found["best"], best)
    assert (found["low"] < found["high"]).all()
    assert (found["high"] >= found["best"]).all()
    few = estimate_front_band(table[table["seed"] < 2], by, cost="macs")
    np.testing.assert_allclose(few["cost"], found["cost"])
    assert few[["low", "high"]].isna().all(axis=None)
