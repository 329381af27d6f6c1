"""Several data sets are blocks of a study: each answers by itself, and what they have in common is a meta-analysis."""

from __future__ import annotations

from dataclasses import replace

import example_sweeps
import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from study.analysis.findings import Findings
from study.analysis.random_effects import combine_data_sets
from study.reporting.figures.catalog import list_figures
from study.reporting.sections import list_sections


def test_each_data_set_answers_as_if_it_were_alone() -> None:
    """Law: a block's contrasts, baseline and first sentence are those of the sweep of this data set alone."""
    example = example_sweeps.data_sets(3)
    findings = Findings(example.tables)
    assert [part.title for part in findings.parts] == ["on set0", "on set1", "on set2"]
    for n, part in enumerate(findings.parts):
        own = example.table[example.table["data_set"] == f"set{n}"].reset_index(drop=True)
        (alone,) = Findings(replace(example, table=own).tables).parts
        pd.testing.assert_frame_equal(part.contrasts, alone.contrasts)
        assert part.baseline == alone.baseline == pytest.approx(0.5 - 0.1 * n)
        assert part.sentences[0] == alone.sentences[0] and f"On set{n} at equal parameters" in part.sentences[0]
    assert any("with the data set" in text for text in findings.across)
    names = [section.name for section in list_sections(findings)]
    assert names[0] == "side-by-side" and "data-sets" not in names
    figure = next(figure for figure in list_figures(findings) if figure.name == "side-by-side")
    assert "one panel for each data set" in figure.caption


def test_five_data_sets_are_summarized_with_their_heterogeneity() -> None:
    """Independent of statsmodels: Paule and Mandel's equation solved by SciPy, then Hartung and Knapp's interval."""
    findings = Findings(example_sweeps.data_sets(5).tables)
    found = findings.over_data_sets.set_index("contrast")
    assert "data-sets" in [section.name for section in list_sections(findings)]
    joined = findings.compared
    assert joined is not None
    assert set(found.index) == set(joined[joined["primary"]]["contrast"])
    for name, row in found.iterrows():
        own = joined[joined["contrast"] == name]
        effect, variance = own["difference"].to_numpy(), own["se"].to_numpy() ** 2

        def excess(tau2: float, effect=effect, variance=variance) -> float:
            weights = 1 / (variance + tau2)
            return float(weights @ (effect - np.average(effect, weights=weights)) ** 2) - 4

        tau2 = optimize.brentq(excess, 0, 1, xtol=1e-15) if excess(0) > 0 else 0.0
        weights = 1 / (variance + tau2)
        mean = np.average(effect, weights=weights)
        half = stats.t.isf(0.025, 4) * np.sqrt(weights @ (effect - mean) ** 2 / 4 / weights.sum())
        expected = [mean, mean - half, mean + half]
        assert [row["difference"], row["low"], row["high"]] == pytest.approx(expected, abs=1e-6)
        assert row["between_sd"] == pytest.approx(np.sqrt(tau2), abs=1e-4)
    means = [text for text in findings.across if text.startswith("Over data sets like these 5, ")]
    assert len(means) == len(found) and "between data sets" in means[0]
    assert combine_data_sets(joined[joined["study"] != "on set0"]).empty
