"""A measured variant changes how a run is executed, not what it is: equal results within rounding, told in the fingerprint."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from toy_runs import Fate, assert_same_bits, attempt, toy_run

from study.config.options import Variant

CONTIGUOUS = Variant(memory_layout="contiguous")
COMPILED = Variant(memory_layout="channels_last", compiled="default")


def assert_same_within_rounding(ours, plain):
    """Losses agree to a part in ten thousand. Weights may not: a key's bias has no gradient but rounding's."""
    for name in ("train_loss", "val_loss"):
        assert ours.curves[name] == pytest.approx(plain.curves[name], rel=1e-4), name
    assert ours.test_loss == pytest.approx(plain.test_loss, rel=1e-4)


def test_the_other_layout(tmp_path):
    """ConvMixer trains in channels_last by rule; where contiguous was faster it trains in that."""
    run = toy_run("convmixer", epochs=1, lr=1e-3)
    ours, plain = attempt(run, tmp_path / "ours", variant=CONTIGUOUS), attempt(run, tmp_path / "plain")
    assert_same_within_rounding(ours, plain)
    changed = {key for key in plain.fingerprint if plain.fingerprint[key] != ours.fingerprint[key]}
    assert changed == {"memory_layout"} and ours.fingerprint["memory_layout"] == "contiguous"


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["convmixer", "vit"])
def test_a_compiled_run_is_the_plain_run_within_rounding(backbone, tmp_path):
    """Averaged weights and validation included, and a killed one ends with its twin's bits."""
    run = toy_run(backbone, epochs=2, lr=1e-3, evaluate="ema", ema_decay=0.9)
    ours, plain = attempt(run, tmp_path / "ours", variant=COMPILED), attempt(run, tmp_path / "plain")
    assert_same_within_rounding(ours, plain)
    assert ours.fingerprint["compiled"] == "default" and plain.fingerprint["compiled"] is False
    stopped = attempt(run, tmp_path / "killed", fate=Fate(interrupt_after=3), variant=COMPILED)
    assert stopped is None
    survivor = attempt(run, tmp_path / "killed", restart=1, variant=COMPILED)
    assert_same_bits(survivor, ours)
    assert survivor.exact


@pytest.mark.slow
def test_one_compilation_serves_all_runs_of_an_architecture(tmp_path):
    """The second run of the same shapes compiles nothing, whatever its seed, and validation never does."""
    torch.compiler.reset()
    run = toy_run("vit", epochs=1)
    attempt(run, tmp_path / "first", variant=COMPILED)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs > 0
    attempt(dataclasses.replace(run, seed=1), tmp_path / "second", variant=COMPILED)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs
