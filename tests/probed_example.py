"""A study whose networks were probed: known radii, distances and correctness; plausible, not measured."""

from __future__ import annotations

from dataclasses import replace

import example_sweeps
import numpy as np
import pandas as pd

from study.analysis.further_tests import add_further_accuracies
from study.analysis.report_tables import StudyTables
from study.records import StudyFacts
from study.rng import stream

IMAGES, LAYERS, RATIO = 200, 4, 2.0
LOSSES = {"convmixer": 0.3, "vit": 0.1}
"""Share of the images that a test with shuffled blocks costs a backbone."""


def probed(*, seeds: int = 4) -> StudyTables:
    """Two backbones at two patch sizes: ViT's fields are RATIO times ConvMixer's, and it loses less by shuffled blocks."""
    sweep = example_sweeps.patch_size(seeds=seeds)
    keep = sweep.table["backbone"].isin(list(LOSSES)) & sweep.table["patch_size"].isin([2, 4])
    table = sweep.table[keep].assign(test_images=IMAGES, kernel_size=np.where(sweep.table[keep]["backbone"] == "vit", pd.NA, 5))
    table = table.convert_dtypes().reset_index(drop=True)
    axes = {"model.patch_size": [2, 4], "backbone": list(LOSSES)}
    facts: StudyFacts = replace(sweep.facts, factors=axes, planned_runs=len(table))
    correctness = pd.concat([_draw_correctness(row) for row in table.to_dict("records")], ignore_index=True)
    further = correctness[correctness["split"] != "test"]
    table["test_accuracy"] = [
        np.unpackbits(np.frombuffer(own, np.uint8), count=IMAGES).mean()
        for own in correctness[correctness["split"] == "test"]["correct"]
    ]
    probes = pd.DataFrame([measure for row in table.to_dict("records") for measure in _list_measures(row, table)])
    types = {"run_id": "string", "measure": "string", "layer": "Int64", "head": "Int64", "at": "Float64", "other": "string"}
    probes = probes.astype({**types, "value": "Float64", "images": "Int64"})
    curves = sweep.curves[sweep.curves["run_id"].isin(table["run_id"])].reset_index(drop=True)
    return StudyTables(add_further_accuracies(table, further), curves, facts, pd.DataFrame(), correctness, probes)


def _draw_correctness(row: dict) -> pd.DataFrame:
    """Images are as difficult for all; blocks cost each backbone its share, more of them twice; a folder has other images."""
    difficulty = stream("probed", "difficulty").random(IMAGES)
    own = difficulty + stream("probed", row["run_id"]).normal(0, 0.1, IMAGES)
    clean = own < 0.9
    lost = stream("probed", "lost").random(IMAGES) + stream("probed", "lost", row["run_id"]).normal(0, 0.03, IMAGES)
    tests = {"test": clean, "clean": clean}
    for blocks in (2, 4):
        tests[f"patch_shuffle_{blocks}"] = clean & (lost > LOSSES[row["backbone"]] * blocks / 2)
    tests["sketches"] = own[: IMAGES // 2] < 0.5
    rows = [(row["run_id"], name, len(values), np.packbits(values).tobytes()) for name, values in tests.items()]
    return pd.DataFrame(rows, columns=["run_id", "split", "images", "correct"])


def _list_measures(row: dict, table: pd.DataFrame) -> list[dict]:
    rng, attends = stream("probed", "measures", row["run_id"]), row["backbone"] == "vit"
    found = []
    for layer in range(LAYERS + 1):
        radius = row["patch_size"] * (0.5 + layer) * (RATIO if attends and layer else 1) * np.exp(rng.normal(0, 0.03))
        found += [{"measure": "field_radius", "layer": layer, "at": at, "value": radius * 2 * at} for at in (0.5, 0.95)]
        if attends and layer:
            for head in range(2):
                found += [
                    {"measure": "attention_distance", "layer": layer, "head": head, "value": 4 + layer + head + rng.random()}
                ]
                found += [{"measure": "attention_entropy", "layer": layer, "head": head, "value": 2 + rng.random()}]
        elif layer:
            distance = row["patch_size"] * (1.5 + 0.1 * rng.random())
            found += [{"measure": "kernel_distance", "layer": layer, "value": distance}]
            found += [{"measure": "kernel_energy", "layer": layer, "at": at, "value": (at + 1) / 3} for at in range(3)]
        for other in table.to_dict("records"):
            if other["seed"] > row["seed"]:
                value = 0.9 - 0.1 * layer - 0.2 * (other["backbone"] != row["backbone"])
                found += [{"measure": "cka", "layer": layer, "other": other["run_id"], "value": value}]
    return [
        {"run_id": row["run_id"], "layer": None, "head": None, "at": None, "other": None, "images": 256, **one} for one in found
    ]
