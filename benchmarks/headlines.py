"""How often the answer of a report is wrong where there is nothing to find: simulated studies, for docs/statistics.md.

    python -m benchmarks.headlines                  # 400 studies of each kind, in about half an hour on one core
    python -m benchmarks.headlines --studies 3      # checks the logic, measures nothing

Nine cells, three patch sizes by three backbones, either alike or with effects of the same size for both factors. An answer is
wrong if it calls a difference significant that is none or has the other sign, or says that one factor matters more.
"""

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from benchmarks.coverage import LEVELS, MAX_T_DRAWS, SEEDS, Population, draw_grids, list_families, percent
from study.analysis.answer import answer_question
from study.analysis.cell_grid import Grid
from study.analysis.contrast_results import SIGNIFICANT, build_weights
from study.analysis.planned_contrasts import plan_contrasts
from study.analysis.study_results import StudyResults

TABLE = pd.DataFrame(itertools.product(*LEVELS.values()), columns=list(LEVELS)).assign(data_name="simulated", match_by="params")
EQUAL = tuple(0.7 + 0.03 * patch + 0.03 * backbone for patch in range(3) for backbone in range(3))


def list_null_studies() -> dict[str, Population]:
    """Every population of `list_families` without effects, and the same with equal effects of both factors."""
    families = {name: found for name, found in list_families().items() if len(set(found.accuracy)) == 1}
    equal = {
        f"{name}, both factors move it by 6 points": replace(found, accuracy=EQUAL)
        for name, found in families.items()
        if found.accuracy[0] == 0.7
    }
    return families | equal


def judge_answer(grid: Grid, population: Population, *, draws: int = MAX_T_DRAWS) -> Mapping[str, bool]:
    """Whether the answer claims what isn't so, ranks the factors, and whether it ranks them without a significant contrast."""
    study = StudyResults(TABLE, LEVELS, draws=draws)
    vars(study)["grid"] = grid  # in place of the one that would be read from the table
    answer, found = answer_question(study), study.contrasts
    assert isinstance(found, pd.DataFrame)
    truth = build_weights(grid, plan_contrasts(LEVELS)) @ np.array(population.accuracy)
    significant = found["primary"] & found["verdict"].isin(SIGNIFICANT)
    false = significant & (np.sign(found["difference"]) != np.sign(truth.round(9)))
    ranked = answer.larger is not None
    return {"wrong": bool(false.any()) or ranked, "ranked": ranked, "unfounded": ranked and not significant.any()}


def measure_headlines(*, studies: int, images: int, seeds: Sequence[int] = SEEDS) -> list[dict[str, str]]:
    """One row for each population, with a column for each number of seeds."""
    rows = []
    for name, population in list_null_studies().items():
        row = {"study": name}
        for n in seeds:
            judged = [
                judge_answer(g, population) for g in draw_grids(population, LEVELS, seeds=n, images=images, studies=studies)
            ]
            row[f"wrong, {n} seeds"] = percent([one["wrong"] for one in judged])
            row[f"ranked, {n} seeds"] = percent([one["ranked"] for one in judged])
        rows.append(row)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table as Markdown."""
    parser = argparse.ArgumentParser(prog="benchmarks.headlines", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--studies", type=int, default=400, metavar="N", help="of each population and number of seeds (default: 400)"
    )
    rows = measure_headlines(studies=parser.parse_args(argv).studies, images=360)
    print(f"Percent of studies ± Monte Carlo standard error, 360 images\n\n{pd.DataFrame(rows).to_markdown(index=False)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
