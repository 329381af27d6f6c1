"""The choice among a cell's candidates, compared with an independent sort."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.records.selection import Candidate, Trial, choose, is_at_boundary

outcomes = st.one_of(st.none(), st.tuples(st.sampled_from([0.1, 0.5, 0.9]), st.sampled_from([0.2, 0.7, 2.0])))


def a_trial(pair: tuple[float, float] | None) -> Trial:
    """With an accuracy and a loss, or diverged."""
    accuracy, loss = pair or (None, None)
    status = "done" if pair else "diverged"
    return Trial(run_id="r", seed=100, status=status, val_accuracy=accuracy, val_loss=loss)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.lists(outcomes, min_size=2, max_size=2), min_size=1, max_size=6))
def test_the_choice_is_the_best_candidate(found):
    """Fewest diverged, then highest mean accuracy, then lowest mean loss, then first in order: pandas sorts likewise."""
    candidates = [
        Candidate(levels={"train.lr": float(at)}, trials=tuple(map(a_trial, pairs))) for at, pairs in enumerate(found)
    ]
    table = pd.DataFrame(
        {
            "diverged": [sum(pair is None for pair in pairs) for pairs in found],
            "accuracy": [-np.mean([pair[0] for pair in pairs if pair] or [-np.inf]) for pairs in found],
            "loss": [np.mean([pair[1] for pair in pairs if pair] or [np.inf]) for pairs in found],
            "at": range(len(found)),
        }
    )
    best = table.sort_values(["diverged", "accuracy", "loss", "at"]).iloc[0]
    choice = choose(candidates, {})
    assert choice.chosen == {"train.lr": float(best["at"])}
    alike = (table["diverged"] == best["diverged"]) & (table["accuracy"] == best["accuracy"])
    assert choice.tied == alike.sum() - 1
    assert choice.at_edge == (("train.lr",) if len(found) > 1 and best["at"] in (0, len(found) - 1) else ())
    assert (choice.val_accuracy is None) == (best["diverged"] == 2)


@pytest.mark.parametrize(
    ("chosen", "tried", "edge"),
    [
        (1e-3, [1e-3, 1e-2], True),
        (1e-2, [1e-1, 1e-2, 1e-3], False),
        (0.0, [0.0], False),
        (True, [True, False], False),
        ("all", ["all", "matrices"], False),
    ],
)
def test_boundary_of_a_search_range(chosen, tried, edge):
    """The minimum or maximum of several numbers, in any order; words have no boundary."""
    assert is_at_boundary(chosen, tried) is edge
