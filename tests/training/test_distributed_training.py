"""Several ranks train as one process does: within rounding of it, and bit for bit as the same ranks uninterrupted."""

from __future__ import annotations

import dataclasses
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from several_ranks import together
from toy_runs import CPU, EveryNthStep, Fate, Killed, assert_same_bits, finished, splits, toy_run

from study.training import batches, engine
from study.training.distributed import PIECE, PeerLost, Several, pieces
from study.training.outcome import Interrupted, Outcome

AUGMENT = {"flip": True, "crop": 2, "randaugment_n": 2, "erasing": 0.5, "mixup": 0.3, "cutmix": 0.5}
BACKBONES = {"convmixer": {"augment": {"flip": True, "crop": 1}}, "vit": {"augment": AUGMENT, "stochastic_depth": 0.3}}


def attempt_of_rank(ranks, run, folder, *, every=1000, restart=0, stop=lambda: False):
    return engine.train(
        run,
        splits(),
        device=CPU,
        checkpoints=EveryNthStep(folder, run, every=every, restart=restart),
        stop=stop,
        report=lambda progress: None,
        ranks=ranks,
    )


def trained(ranks, run, folder) -> Outcome:
    batches.EVALUATION_PIXELS = 8 * 64  # batches of 8 images: three in the validation set, of which one is incomplete
    return attempt_of_rank(ranks, run, folder)


@pytest.mark.parametrize(
    ("backbone", "options"),
    [("convmixer", {"label_smoothing": 0.1}), ("vit", {}), ("vit", {"grad_clip": 0.05, "accumulate": 2, "evaluate": "ema"})],
    ids=str,
)
def test_two_ranks_train_as_one_process(tmp_path, monkeypatch, backbone, options):
    """Curves, weights and figures are those of one process at the same batch, within rounding: mixed images, dropped
    branches and batch statistics are of the whole batch. All ranks come to the same."""
    run = toy_run(backbone, eps=1e-3, **BACKBONES[backbone], **options)
    monkeypatch.setattr(batches, "EVALUATION_PIXELS", 8 * 64)
    alone = finished(run, tmp_path / "alone")
    first, second = together(trained, tmp_path / "ranks", run, tmp_path / "ranks")
    assert_same_bits(first, second)
    torch.testing.assert_close(dict(first.weights), dict(alone.weights), rtol=1e-3, atol=1e-4)
    for name in ("train_loss", "val_loss"):
        assert first.curves[name] == pytest.approx(alone.curves[name], rel=1e-4)
    assert first.curves["train_accuracy"] == alone.curves["train_accuracy"]
    assert first.test_accuracy == alone.test_accuracy
    assert list(first.predictions.label) == list(alone.predictions.label)
    assert (first.fingerprint["ranks"], alone.fingerprint["ranks"]) == (2, 1)
    assert run.run_id == dataclasses.replace(run, train=run.train.model_copy(update={"distributed": "ddp"})).run_id


def killed_once(ranks, run, folder):
    """Stopped after the wish of one rank, which isn't the one that saves; then continued."""
    stop = Fate(interrupt_after=4) if ranks.rank == 1 else Fate()
    interrupted = attempt_of_rank(ranks, run, folder, stop=stop)
    again = Several(ranks.rank, ranks.size, ranks.device, side=ranks.side)
    return interrupted, attempt_of_rank(again, run, folder, restart=1)


@pytest.mark.parametrize(("backbone", "ranks"), [("convmixer", 2), ("vit", 3)])
def test_an_interruption_changes_no_bit(tmp_path, backbone, ranks):
    """One rank's wish to stop stops all of them after the same step, a step later; what they resume ends with the bits
    of the same ranks uninterrupted, also where the order of three addends matters."""
    run = toy_run(backbone, batch_size=15 if ranks == 3 else 16, **BACKBONES[backbone])
    stopped = together(killed_once, tmp_path / "stopped", run, tmp_path / "stopped", ranks=ranks)
    whole = together(trained, tmp_path / "whole", run, tmp_path / "whole", ranks=ranks)
    assert [interrupted for interrupted, _ in stopped] == [Interrupted(5)] * ranks
    for _, outcome in stopped:
        assert_same_bits(outcome, whole[0])
        assert outcome.exact and outcome.resumes[0].step == 5


def dies_at_its_third_step(ranks, run, folder):
    """The second rank ends without a word; the first tells what it then raised."""
    stop = Fate(kill_after=3) if ranks.rank == 1 else Fate()
    try:
        attempt_of_rank(ranks, run, folder, stop=stop)
    except Killed:
        os._exit(1)
    except PeerLost as error:
        return str(error)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_rank_that_dies_is_missed(tmp_path, backbone):
    """The others don't wait for ever: they raise PeerLost, wherever they are, in the backward pass of a norm too."""
    told, nothing = together(dies_at_its_third_step, tmp_path, toy_run(backbone), tmp_path)
    assert told and nothing is None


def agree_on(ranks, mine):
    """What the ranks agree on at each step, given each rank's wishes."""
    return [ranks.agreed(*wishes) for wishes in mine[ranks.rank]]


def test_wishes_are_agreed_a_step_late_and_once(tmp_path):
    """Whoever wishes, all hear of it at the same step; a wish that is repeated while it is under way counts once."""
    saves = [(False, True), (False, True), (False, False), (False, False)]
    stops = [(False, False), (False, False), (True, False), (False, False)]
    first, second = together(agree_on, tmp_path, [saves, stops])
    assert first == second == [(False, False), (False, True), (False, False), (True, False)]


@given(sizes=st.lists(st.integers(1, 2 * PIECE), min_size=1, max_size=8))
@settings(deadline=None)
def test_pieces_hold_everything_once_in_order(sizes):
    """However many entries there are; none holds more than PIECE entries and one tensor."""
    tensors = [torch.empty(size, device="meta") for size in sizes]
    cut = list(pieces(tensors))
    assert [id(each) for piece in cut for each in piece] == [id(each) for each in tensors]
    assert all(sum(each.numel() for each in piece[1:]) <= PIECE for piece in cut)
