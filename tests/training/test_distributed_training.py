"""Several ranks train as one process does: within rounding of it, and bit for bit as the same ranks uninterrupted."""

from __future__ import annotations

import dataclasses
import os

import pytest
import torch
from several_ranks import run_on_ranks
from torch.nn.parallel import DistributedDataParallel
from toy_runs import CPU, EveryNthStep, Fate, Killed, assert_same_bits, finished, splits, toy_run

from study.training import batches, distributed, engine
from study.training.distributed import MultipleRanks, PeerLost, require_peers
from study.training.outcome import Outcome

AUGMENT = {"flip": True, "crop": 2, "randaugment_n": 2, "erasing": 0.5, "mixup": 0.3, "cutmix": 0.5}
BACKBONES = {"convmixer": {"augment": {"flip": True, "crop": 1}}, "vit": {"augment": AUGMENT, "stochastic_depth": 0.3}}


def attempt_of_rank(ranks, run, folder, *, every=1000, restart=0, stop=lambda: False):
    return engine.train(
        run,
        splits(),
        device=CPU,
        checkpoints=EveryNthStep(folder, run, every=every, restart=restart),
        stop=stop,
        report=lambda *_: None,
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
    first, second = run_on_ranks(trained, tmp_path / "ranks", run, tmp_path / "ranks")
    assert_same_bits(first, second)
    torch.testing.assert_close(dict(first.weights), dict(alone.weights), rtol=1e-3, atol=1e-4)
    for name in ("train_loss", "val_loss"):
        assert first.curves[name] == pytest.approx(alone.curves[name], rel=1e-4)
    assert first.curves["train_accuracy"] == alone.curves["train_accuracy"]
    assert first.test_accuracy == alone.test_accuracy
    assert list(first.predictions.label) == list(alone.predictions.label)
    assert {split: list(bits) for split, bits in first.correct.items()} == {k: list(bits) for k, bits in alone.correct.items()}
    assert (first.fingerprint["ranks"], alone.fingerprint["ranks"]) == (2, 1)
    assert run.run_id == dataclasses.replace(run, train=run.train.model_copy(update={"distributed": "ddp"})).run_id


class SmallBuckets(DistributedDataParallel):
    """DistributedDataParallel with a dozen buckets in a toy model, so that their composition matters."""

    def __init__(self, model, **options):
        super().__init__(model, bucket_cap_mb=0.001, **options)


def train_with_and_without_interruptions(ranks, run, folder):
    """The outcomes of an uninterrupted training and of trainings that rank 1 interrupts after its first, second, ... step."""
    distributed.DistributedDataParallel = SmallBuckets
    outcomes = []
    for after in (None, 1, 2, 5):
        place = folder / str(after)
        place.mkdir(exist_ok=True)
        stop = Fate(interrupt_after=after) if ranks.rank == 1 else Fate()
        for restart in range(2 if after else 1):
            fresh = MultipleRanks(ranks.rank, ranks.size, device=ranks.device, host_group=ranks.host_group)
            outcomes.append(attempt_of_rank(fresh, run, place, restart=restart, stop=Fate() if restart else stop))
    return outcomes


@pytest.mark.parametrize(
    ("backbone", "options"), [("convmixer", {}), ("vit", {}), ("vit", {"accumulate": 5, "grad_clip": 0.05})]
)
def test_an_interruption_changes_no_bit(tmp_path, backbone, options):
    """One rank's request stops all three of them after the same step, a step later; resumed, they end with the bits of the
    same ranks uninterrupted, whichever step they resume from, though the order of three addends matters."""
    extra = BACKBONES[backbone] | ({"stochastic_depth": 0.0} if options else {})
    run = toy_run(backbone, batch_size=15, **extra, **options)
    for whole, *attempts in run_on_ranks(train_with_and_without_interruptions, tmp_path, run, tmp_path, ranks=3):
        assert attempts[::2] == [None, None, None]
        for outcome, step in zip(attempts[1::2], (2, 3, 6), strict=True):
            assert_same_bits(outcome, whole)
            assert outcome.exact and outcome.resumes[0].step == step


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
    told, nothing = run_on_ranks(dies_at_its_third_step, tmp_path, toy_run(backbone), tmp_path)
    assert told and nothing is None


def agree_on(ranks, mine):
    """What the ranks agree on at each step, given each rank's wishes."""
    return [ranks.any_rank(*wishes) for wishes in mine[ranks.rank]]


def test_wishes_are_agreed_a_step_late_and_once(tmp_path):
    """Whoever wishes, all hear of it at the same step; a wish that is repeated while it is under way counts once."""
    saves = [(False, True), (False, True), (False, False), (False, False)]
    stops = [(False, False), (False, False), (True, False), (False, False)]
    first, second = run_on_ranks(agree_on, tmp_path, [saves, stops])
    assert first == second == [(False, False), (False, True), (False, False), (True, False)]


def test_only_failed_exchanges_count_as_a_lost_peer():
    """In a pure exchange every fault but memory is the peers'; where a rank also computes, its own errors stay its own."""
    with pytest.raises(PeerLost), require_peers():
        raise RuntimeError("unknown words of another torch")
    with pytest.raises(PeerLost), require_peers(computes=True):
        raise RuntimeError("[gloo] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shape"), require_peers(computes=True):
        raise RuntimeError("shape mismatch")
    with pytest.raises(torch.OutOfMemoryError), require_peers():
        raise torch.OutOfMemoryError("CUDA out of memory")
