"""Laws of the stacking benchmark: what it compares is the same training, and a gain is what runs in turn would take longer."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest

from benchmarks import stacking
from benchmarks.turns import Lap, Timing
from study.training.device import DeviceChoice
from study.training.placement import equipped

CPU = DeviceChoice("cpu")
CELLS_CHECKED = ("digits-convmixer-p4", "digits-vit-p4", "digits-mlp_mixer-p4", "cifar-convmixer-p8", "cifar-vit-p8")


@pytest.fixture(scope="module", params=["plain", "equipped"])
def choice(request):
    """torch's own kernels, and the compiled ones where they can be had."""
    return CPU if request.param == "plain" else equipped(CPU, os.environ)


@pytest.mark.parametrize("cell", CELLS_CHECKED)
def test_a_stack_trains_as_its_runs_do_alone(cell, choice):
    """Losses of three steps agree, with the engine's own step as the oracle."""
    stacking.assert_same(*stacking.cell_of(*stacking.CELLS[cell]), choice)


def test_a_stack_that_trains_otherwise_is_told(monkeypatch):
    """Another seed is another training, from the first step on."""
    run, splits = stacking.cell_of("digits", "vit", 4)
    stack = stacking.together(dataclasses.replace(run, seed=7), splits, CPU, size=2)
    monkeypatch.setattr(stacking, "together", lambda *_, size: stack)
    with pytest.raises(AssertionError, match="step 0"):
        stacking.assert_same(run, splits, CPU)


def test_a_gain_is_the_time_of_runs_in_turn_over_that_of_the_stack():
    """Four runs of 10 ms in turn against one stacked step of 20 ms: twice as fast."""
    one, stack = (Timing("", "", (Lap(seconds, seconds / 2),) * 3) for seconds in (0.01, 0.02))
    assert stacking.gain(one, stack, 4) == pytest.approx((2.0, 2.0, 2.0, 2.0))


def test_the_command_writes_its_figures(tmp_path, monkeypatch):
    """One cell, one round, by hand in every size; vmap is left to people with time."""
    monkeypatch.setattr(stacking, "LAP_SECONDS", 0.0)
    monkeypatch.setattr(stacking, "vmapped", lambda model, stack: stacking.by_hand(model, stack, None))
    assert stacking.main(["digits-mlp_mixer-p4", "--rounds", "1", "--out", str(tmp_path / "out.json")]) == 0
    (found,) = json.loads((tmp_path / "out.json").read_text())["measured"]
    assert set(found["gains"]) == {"2 by hand", "4 by hand", "8 by hand", "4 by vmap"}
