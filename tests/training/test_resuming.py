"""A run that was killed, anywhere and however often, ends with the bits of its uninterrupted twin."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_runs import EveryNthStep, Fate, Killed, assert_same_bits, attempt, finished, toy_run

from study.training.outcome import Outcome

STEPS = 9
CHECKPOINT_ENTRIES = (
    *("model", "optimizer", "scaler", "average", "losses", "hits", "curves", "step"),
    *("train_seconds", "peak_memory_mib", "resumes", "fingerprint"),
)
"""The keys of a saved state: with others, the checkpoints of an earlier version would be refused."""
AUGMENT = {"flip": True, "crop": 1, "erasing": 0.5, "mixup": 0.4}


def newest(checkpoints: EveryNthStep):
    """The newest state of one run."""
    found = checkpoints.newest(like=dict.fromkeys(CHECKPOINT_ENTRIES))
    assert found is not None
    return found


def survive(run, folder: Path, kills: list[tuple[int, bool]], *, every: int) -> Outcome:
    """Restart `run` until it ends; each attempt is cut short after the given number of steps, politely or by a kill."""
    for restart, (after, politely) in enumerate(kills):
        fate = Fate(interrupt_after=after) if politely else Fate(kill_after=after)
        try:
            result = attempt(run, folder, fate=fate, every=every, restart=restart)
        except Killed:
            continue
        if isinstance(result, Outcome):
            return result
    result = attempt(run, folder, every=every, restart=len(kills))
    assert isinstance(result, Outcome)
    return result


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_no_kill_changes_a_bit_of_other_optimizers(optimizer, tmp_path):
    """The momentum of every weight is saved, of matrices that Muon moves through views too."""
    run = toy_run("convmixer", optimizer=optimizer)
    survivor = survive(run, tmp_path / "killed", [(4, False), (3, True)], every=2)
    assert_same_bits(survivor, finished(run, tmp_path / "whole"))


@pytest.mark.parametrize("backbone", ["convmixer", "vit", "mlp_mixer"])
@settings(deadline=None, max_examples=8)
@given(kills=st.lists(st.tuples(st.integers(1, STEPS), st.booleans()), min_size=1, max_size=3), every=st.integers(1, 5))
def test_no_kill_changes_a_bit(backbone, kills, every):
    """Kills and interruptions at any steps, in the middle of epochs and at their ends, at any cadence of checkpoints."""
    run = toy_run(backbone, augment=AUGMENT, label_smoothing=0.1, schedule="cosine", warmup_epochs=0.5)
    with tempfile.TemporaryDirectory() as left, tempfile.TemporaryDirectory() as right:
        survivor = survive(run, Path(right), kills, every=every)
        assert_same_bits(survivor, finished(run, Path(left)))
        assert survivor.exact and not survivor.notes


@pytest.mark.parametrize(
    "options",
    [
        {"evaluate": "ema", "ema_decay": 0.9},
        {"grad_clip": 0.1, "accumulate": 4},
        {"precision": "bf16"},
        {"stochastic_depth": 0.5, "accumulate": 2},
        {"precision": "fp16", "grad_clip": 1.0},
        {"schedule": "one_cycle", "decay": "all", "weight_decay": 0.5},
        {"attention_dropout": 0.3, "mlp_dropout": 0.3, "head_dropout": 0.3, "min_lr": 1e-4, "cooldown_epochs": 1},
        {"layer_decay": 0.5, "loss": "bce", "bce_threshold": 0.2, "augment": {"repeats": 2, "crop": 2, "mixup_prob": 0.5}},
        {"optimizer": "muon", "layer_decay": 0.5, "augment": {"auto_augment": "rand-m9-mstd0.5-inc1", "mixup_off_epoch": 1}},
        {"epochs": 5 / 3},
    ],
    ids=str,
)
def test_every_option_resumes_exactly(tmp_path, options):
    """EMA weights, the loss scale and the rest are part of the state: killed at step 4 of 9, saved after step 3."""
    augment = {**AUGMENT, "erasing_mode": "pixel", **options.get("augment", {})}
    run = toy_run(**{**options, "augment": augment})
    survivor = survive(run, tmp_path / "killed", [(4, False)], every=3)
    assert survivor.resumes[0].step == 3 and not survivor.notes
    assert_same_bits(survivor, finished(run, tmp_path / "twin"))


def test_the_whole_state_is_that_of_the_twin(tmp_path):
    """Not only the weights: moments, step counts, losses of the epoch and curves agree at the last step."""
    run = toy_run(epochs=2, evaluate="ema")
    last = []
    for name, kills in (("twin", []), ("killed", [2, 4])):
        for restart, steps in enumerate(kills):
            with pytest.raises(Killed):
                attempt(run, tmp_path / name, fate=Fate(kill_after=steps), every=1, restart=restart)
        assert attempt(run, tmp_path / name, fate=Fate(interrupt_after=6 - 4 * bool(kills)), restart=9) is None
        last.append(newest(EveryNthStep(tmp_path / name, run, every=1, restart=10)))
    twin, killed = last
    assert twin["step"] == killed["step"] == 6
    for entry in ("model", "average", "optimizer", "scaler", "losses", "hits", "curves"):
        torch.testing.assert_close(killed[entry], twin[entry], rtol=0, atol=0)


def test_a_kill_during_a_write_falls_back_to_the_state_before(tmp_path):
    """The newest checkpoint is incomplete: the outcome's notes report it, and the bits are the twin's."""
    run = toy_run()
    with pytest.raises(Killed):
        attempt(run, tmp_path, fate=Fate(kill_after=6), every=2)
    newest = max(tmp_path.glob("*.checkpoint"))
    newest.write_bytes(newest.read_bytes()[:1000])
    survivor = attempt(run, tmp_path, restart=1)
    assert survivor.resumes[0].step == 2 and "damaged" in survivor.notes[0]
    assert_same_bits(survivor, finished(run, tmp_path / "twin"))


def test_a_kill_between_outcome_and_record_repeats_the_outcome(tmp_path):
    """The outcome is lost with its process and comes again from the last checkpoint, equal in every bit."""
    run = toy_run(evaluate="ema")
    lost = attempt(run, tmp_path, every=4)
    again = attempt(run, tmp_path, every=4, restart=1)
    assert again.resumes[0].step == 8
    assert_same_bits(lost, again)


def test_a_kill_between_the_last_step_of_an_epoch_and_its_validation(tmp_path):
    """A state saved at the very end of an epoch has it trained but not validated; the validation is made up for."""
    run = toy_run()
    assert attempt(run, tmp_path, fate=Fate(interrupt_after=3)) is None
    survivor = attempt(run, tmp_path, restart=1)
    assert survivor.resumes[0].step == 3 and survivor.curves["epoch"] == [1, 2, 3]
    assert_same_bits(survivor, finished(run, tmp_path / "twin"))


def test_a_resume_elsewhere_is_told_as_inexact(tmp_path, monkeypatch):
    """With another number of threads the run ends, and the outcome says what changed and at which step."""
    run = toy_run()
    attempt(run, tmp_path, fate=Fate(interrupt_after=2))
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    survivor = attempt(run, tmp_path, restart=1)
    assert not survivor.exact
    assert survivor.resumes[0].step == 2 and survivor.resumes[0].changes == (f"threads: {threads} -> 7",)


def test_seconds_add_up_over_attempts(tmp_path):
    """The training time of an interrupted attempt is in the outcome's."""
    run = toy_run()
    attempt(run, tmp_path, fate=Fate(interrupt_after=8))
    before = newest(EveryNthStep(tmp_path, run, every=1))["train_seconds"]
    assert attempt(run, tmp_path, restart=1).train_seconds > before > 0


def test_a_real_sigkill(tmp_path):
    """A process that is killed by the system while it writes a checkpoint after every step, then a successor."""
    run = toy_run(epochs=60)
    script = f"from toy_runs import *; attempt(toy_run(epochs=60), Path({str(tmp_path)!r}), every=1)"
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])])}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("*.checkpoint"))) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    survivor = attempt(run, tmp_path, restart=1)
    assert 0 < survivor.resumes[0].step < 180
    assert_same_bits(survivor, finished(run, tmp_path / "twin"))
