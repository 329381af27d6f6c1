"""A sweep's own references and contrasts, and which contrasts are primary."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from simulated_study import metaformer, run_table

from study.analysis.answer import answer_question
from study.analysis.declared_contrasts import DeclaredContrasts, find_contrast
from study.analysis.planned_contrasts import plan_contrasts
from study.analysis.study_results import StudyResults
from study.errors import UserError

LEVELS = {"patch_size": [1, 2, 4], "token_mixer": ["attention", "depthwise_conv", "pooling"]}
CELLS = list(itertools.product(*LEVELS.values()))
CURVATURE = [{"weight": 1, "patch_size": 1}, {"weight": -2, "patch_size": 2}, {"weight": 1, "patch_size": 4}]
AT_4 = [
    {"weight": 1, "token_mixer": "attention", "patch_size": 4},
    {"weight": -1, "token_mixer": "depthwise_conv", "patch_size": 4},
]


def test_weights_are_spread_over_the_cells_of_a_term() -> None:
    """A term without a level of some factor is the mean over that factor; the curvature of p^2 over 1, 2, 4 is 9."""
    own = DeclaredContrasts(own={"curvature": CURVATURE}).plan(LEVELS, cells=CELLS)[-1]
    assert own.name == "curvature" and own.primary and len(own.weights) == 9
    noise = dict(zip(LEVELS["token_mixer"], (0.3, -0.1, 7.0), strict=True))
    assert sum(weight * (cell[0] ** 2 + noise[cell[1]]) for cell, weight in own.weights) == pytest.approx(1 - 8 + 16)


def test_a_stated_difference_is_the_planned_one() -> None:
    """An own contrast of two cells has the weights of the contrast that the axes give for them."""
    found = DeclaredContrasts(own={"at four": AT_4}).plan(LEVELS, cells=CELLS)
    planned = found[find_contrast("attention − depthwise conv, at patch size 4", found, key="")]
    assert dict(found[-1].weights) == dict(planned.weights)


def test_references_replace_the_usual_ones_also_of_numbers() -> None:
    """Every other level is compared with the reference; without one, numbers go step by step."""
    declared = DeclaredContrasts(references={"token_mixer": "pooling", "patch_size": 1})
    pairs = {(c.subject, c.upper, c.lower) for c in declared.plan(LEVELS, cells=CELLS) if c.primary and " x " not in c.subject}
    assert pairs == {
        ("token_mixer", "attention", "pooling"),
        ("token_mixer", "depthwise conv", "pooling"),
        ("patch_size", "patch size 2", "patch size 1"),
        ("patch_size", "patch size 4", "patch size 1"),
    }


@pytest.mark.parametrize(
    "spelling",
    [
        "attention − depthwise conv, at patch size 4",
        "attention - depthwise conv at patch size 4",
        "Attention - depthwise conv at 4",
    ],
)
def test_primary_contrasts_are_the_named_ones_alone(spelling: str) -> None:
    """A name may have a plain minus, no comma and no factor's name; all others are exploratory."""
    found = DeclaredContrasts(primary=[spelling]).plan(LEVELS, cells=CELLS)
    assert [c.name for c in found if c.primary] == ["attention − depthwise conv, at patch size 4"]
    assert len(found) == len(plan_contrasts(LEVELS))


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (DeclaredContrasts(primary=["attention - depthwise conf at 4"]), "did you mean 'attention - depthwise conv at 4'"),
        (DeclaredContrasts(own={"a": [{**AT_4[0], "patch_size": 8}, AT_4[1]]}), "no planned cell has these levels"),
        (DeclaredContrasts(own={"a": [{**AT_4[0], "lr": 0.1}, AT_4[1]]}), "contrasts.own.a.lr: is not compared"),
        (DeclaredContrasts(own={"a": [AT_4[0], {**AT_4[0], "weight": -1}]}), "the terms cancel"),
    ],
)
def test_what_is_no_contrast_is_a_mistake(declared: DeclaredContrasts, expected: str) -> None:
    """A name or a cell that there isn't is an error of the user, with the nearest name."""
    with pytest.raises(UserError, match=expected.replace("(", r"\(")):
        declared.plan(LEVELS, cells=CELLS)


def test_own_contrasts_are_estimated_and_said() -> None:
    """SciPy's t interval of the weighted sums, seed by seed; with one primary contrast there is nothing to adjust."""
    truth = metaformer()
    table = run_table(truth)
    declared = DeclaredContrasts(own={"curvature": CURVATURE}, primary=["curvature"])
    study = StudyResults(table, truth.axes, declared=declared)
    contrasts = study.contrasts
    assert isinstance(contrasts, pd.DataFrame)
    (row,) = contrasts[contrasts["primary"]].to_dict("records")
    means = table.pivot_table(index="seed", columns="patch_size", values="test_accuracy")
    sums = means[1] - 2 * means[2] + means[4]
    half = stats.t.isf(0.025, 4) * sums.std(ddof=1) / np.sqrt(5)
    assert [row["difference"], row["low"], row["high"]] == pytest.approx([sums.mean(), sums.mean() - half, sums.mean() + half])
    sentences = answer_question(study).sentences
    assert "curvature is" in sentences[0] and "the primary contrast is significant" in sentences[0]
    assert any(text.startswith("Own contrasts: curvature: −") for text in sentences)
    assert not any(text.endswith(": .") for text in sentences)
