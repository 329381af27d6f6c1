"""Answers in studies in which nothing is to be found: the reduced form of benchmarks/headlines.py, with all of its laws."""

import numpy as np

from benchmarks.coverage import LEVELS, draw_grids
from benchmarks.headlines import judge_answer, list_null_studies

STUDIES = 7  # of each of 13 populations, with three and with ten seeds


def test_answers_in_null_studies_are_wrong_in_five_percent_at_most() -> None:
    """Without effects, with equal ones, with seed x backbone effects, heavy tails, collapsed runs, one noisy backbone.

    Pooled over the populations, within two Monte Carlo standard errors; no answer ranks factors without a significant contrast.
    """
    judged = [
        judge_answer(grid, population, draws=2000)
        for population in list_null_studies().values()
        for seeds in (3, 10)
        for grid in draw_grids(population, LEVELS, seeds=seeds, images=360, studies=STUDIES)
    ]
    allowed = 0.05 + 2 * np.sqrt(0.05 * 0.95 / len(judged))
    assert np.mean([found["wrong"] for found in judged]) <= allowed
    assert np.mean([found["ranked"] for found in judged]) <= allowed
    assert not any(found["unfounded"] for found in judged)
