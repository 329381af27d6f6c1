"""Comparisons of layers against the truth that the example was made with."""

from __future__ import annotations

from dataclasses import replace

import example_sweeps
import numpy as np
import pytest
from probed_example import LAYERS, RATIO, probed

from study.analysis.findings import Findings
from study.analysis.layer_measures import (
    compare_fields,
    compare_similarities,
    list_level_contrasts,
    list_shown_layers,
    select_measure,
)


def test_ratios_of_fields_are_geometric_means_within_seeds():
    """Twice the radius in layer 1, equal at the stem, each with an interval that has the truth."""
    tables = probed()
    (part,) = Findings(tables).parts
    radii = select_measure(tables.probes, "field_radius", at=0.5)
    joined = radii[radii["layer"] == 1].merge(part.table, on="run_id")
    for layer, truth in ((1, RATIO), (0, 1.0)):
        for row in compare_fields(part, tables.probes, layer=layer, share=0.5).to_dict("records"):
            assert (row["upper"], row["lower"], row["n"]) == ("ViT", "ConvMixer", 4)
            assert row["low"] < truth < row["high"]
            if layer == 1:
                own = joined[joined["patch_size"] == int(row["where"][-1])].pivot(
                    index="seed", columns="backbone", values="value"
                )
                expected = np.exp(np.log((own["vit"] / own["convmixer"]).astype(float)).mean())
                assert row["ratio"] == pytest.approx(expected)


def test_a_radius_of_nothing_but_a_pixel_has_no_ratio():
    tables = probed()
    (part,) = Findings(tables).parts
    flat = tables.probes.assign(value=tables.probes["value"] * 0)
    assert compare_fields(part, flat, layer=1, share=0.5).empty
    assert compare_fields(part, tables.probes, layer=LAYERS + 1, share=0.5).empty


def test_similarities_are_averaged_over_pairs_of_equal_cells():
    """Between backbones at the same patch size, and between seeds of one cell: as the example has them."""
    tables = probed()
    (part,) = Findings(tables).parts
    found = compare_similarities(part, tables.probes)
    assert len(found) == LAYERS + 1
    for row in found.to_dict("records"):
        expected = 0.9 - 0.1 * row["layer"]
        assert row["between"] == pytest.approx(expected - 0.2)
        assert row["within_upper"] == pytest.approx(expected) == pytest.approx(row["within_lower"])


def test_shown_layers_are_the_first_the_middle_and_the_last_block():
    assert list_shown_layers(range(9)) == [1, 5, 8]
    assert list_shown_layers([0, 1, 2]) == [1, 2] and list_shown_layers([0]) == []


def test_controls_are_not_compared():
    """Of three mixers at one patch size, the contrast with the control is left out."""
    tables = example_sweeps.token_mixer(seeds=3)
    kept = tables.table[tables.table["token_mixer"].isin(["attention", "depthwise_conv", "identity"])]
    (part,) = Findings(replace(tables, table=kept).tables).parts
    assert {(one.upper, one.lower) for one in list_level_contrasts(part)} == {("attention", "depthwise conv")}
