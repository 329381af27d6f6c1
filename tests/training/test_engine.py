"""What a training is, whatever the backbone: paired runs, equal micro-batches, one look at the test set, honest ends."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from toy_runs import FACTS, TEST, TRAIN, VAL, Fate, assert_same_bits, attempt, finished, split, splits, toy_run

from study.backbones import build_backbone
from study.config.recipes import RECIPES
from study.training import engine
from study.training.batches import EvaluationBatches, TrainingBatches, shuffle_images
from study.training.device import DeviceChoice, autocast
from study.training.dry_step import run_dry_step
from study.training.engine import has_diverged
from study.training.evaluation import evaluate
from study.training.outcome import CURVE_NAMES, Outcome

CPU = torch.device("cpu")
AUGMENT = {"flip": True, "crop": 2, "randaugment_n": 2, "erasing": 0.5, "mixup": 0.3, "cutmix": 0.5, "color_jitter": 0.2}


def batches(run) -> TrainingBatches:
    return TrainingBatches(run, splits(), device=CPU, layout=torch.contiguous_format)


@pytest.mark.parametrize("backbone", ["convmixer", "vit", "mlp_mixer"])
def test_every_backbone_learns(tmp_path, backbone):
    """The stripes are learned by each of them, and all figures are there and are fractions."""
    outcome = finished(toy_run(backbone, epochs=20, lr=0.02), tmp_path)
    assert outcome.status == "done" and outcome.test_accuracy > 0.9
    assert outcome.curves["train_loss"][-1] < outcome.curves["train_loss"][0]
    assert outcome.val_accuracy == outcome.curves["val_accuracy"][-1]
    assert [len(outcome.curves[name]) for name in CURVE_NAMES] == [20] * len(CURVE_NAMES)
    assert 0 <= outcome.test_accuracy <= outcome.test_top5 <= 1
    assert outcome.train_seconds > 0 and outcome.images_per_second > 0 and outcome.peak_memory_mib > 10


def test_runs_of_one_seed_are_paired():
    """Different backbones with the same seed see the same images, augmented in the same way, in the same order; another
    seed sees others."""
    convmixer, vit, other = (
        [image for epoch in range(2) for image, _ in batches(run).epoch(epoch)]
        for run in (
            toy_run("convmixer", augment=AUGMENT),
            toy_run("vit", augment=AUGMENT),
            toy_run("vit", seed=1, augment=AUGMENT),
        )
    )
    assert all(map(torch.equal, convmixer, vit))
    assert not any(map(torch.equal, vit, other))


def test_the_batch_size_changes_no_image():
    """With batches of 8 and of 24 the same images come in the same order with the same bits and targets."""
    small, large = (list(batches(toy_run(augment=AUGMENT, batch_size=size)).epoch(1)) for size in (8, 24))
    assert torch.equal(torch.cat([images for images, _ in small]), torch.cat([images for images, _ in large]))
    for name in ("labels", "partners", "weight"):
        assert torch.equal(*(torch.cat([getattr(target, name) for _, target in each]) for each in (small, large)))


def test_an_epoch_can_begin_anywhere():
    """Batches 2, 3, ... of an epoch that is resumed are those of the whole epoch."""
    run = toy_run(augment=AUGMENT, batch_size=4)
    whole, rest = (list(batches(run).epoch(0, first=first)) for first in (0, 2))
    assert len(rest) == 11
    assert all(torch.equal(one[0], other[0]) for one, other in zip(whole[2:], rest, strict=True))


def test_an_epoch_sees_each_image_once():
    """The order of an epoch is a permutation, another one in each epoch, and what's left over differs."""
    orders = [shuffle_images(7, epoch, images=TRAIN) for epoch in range(3)]
    assert all(order.sort().values.tolist() == list(range(TRAIN)) for order in orders)
    assert len({tuple(order[-4:].tolist()) for order in orders}) == 3


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"grad_clip": 0.05},
        {"stochastic_depth": 0.5},
        {"label_smoothing": 0.1, "augment": {"mixup": 1.0}},
        {"attention_dropout": 0.3, "mlp_dropout": 0.3, "head_dropout": 0.3},
    ],
    ids=str,
)
def test_micro_batches_equal_the_whole(tmp_path, options):
    """Four micro-batches of 4 train as one batch of 16 does, within rounding, losses and hits included."""
    whole = finished(toy_run("vit", epochs=2, eps=1e-3, **options), tmp_path / "whole")
    parts = finished(toy_run("vit", epochs=2, eps=1e-3, accumulate=4, **options), tmp_path / "parts")
    torch.testing.assert_close(dict(whole.weights), dict(parts.weights), rtol=1e-4, atol=1e-5)
    assert parts.curves["train_loss"] == pytest.approx(whole.curves["train_loss"], rel=1e-4)
    assert parts.curves["train_accuracy"] == whole.curves["train_accuracy"]


def test_micro_batches_are_refused_with_batch_norm(tmp_path):
    """The plan refuses them; that it did is asserted before the first step."""
    with pytest.raises(AssertionError, match="BatchNorm"):
        attempt(toy_run("convmixer", accumulate=2), tmp_path)


def test_the_same_run_twice_is_the_same(tmp_path):
    """Equal in every bit, whatever torch's global generator did in between."""
    one = finished(toy_run(augment=AUGMENT), tmp_path / "one")
    torch.manual_seed(123)
    assert_same_bits(one, finished(toy_run(augment=AUGMENT), tmp_path / "two"))


def test_torchs_generator_is_left_alone(tmp_path):
    """A training draws nothing from the global generator and sets no seed."""
    before = torch.get_rng_state()
    finished(toy_run("convmixer", augment=AUGMENT), tmp_path)
    assert torch.equal(before, torch.get_rng_state())


def test_the_test_set_is_read_once_at_the_end(tmp_path, monkeypatch):
    """Val is read after each epoch, test after the last."""
    sizes = []

    def counting(model, data, **rest):
        found = evaluate(model, data, **rest)
        sizes.append(len(found.predictions.label))
        return found

    monkeypatch.setattr(engine, "evaluate", counting)
    finished(toy_run(epochs=3), tmp_path)
    assert sizes == [18, 18, 18, TEST]


def test_figures_are_those_of_the_weights_handed_back(tmp_path):
    """Loading an outcome's weights into a fresh backbone gives its figures, and which images were correct, for the last
    weights and for the average."""
    for judged in ("last", "ema"):
        run = toy_run("convmixer", evaluate=judged, ema_decay=0.5)
        outcome = finished(run, tmp_path / judged)
        model = build_backbone(run.model, seed=5).to(memory_format=torch.channels_last)
        model.load_state_dict(outcome.weights)
        test = EvaluationBatches(split("test", TEST), facts=FACTS, device=CPU, layout=torch.channels_last)
        found = evaluate(model, test, autocast=autocast("fp32", CPU))
        assert (found.accuracy, found.top5, found.loss) == (outcome.test_accuracy, outcome.test_top5, outcome.test_loss)
        assert outcome.predictions.label.tolist() == split("test", TEST).labels.tolist()
        for name, images in (("val", VAL), ("test", TEST)):
            each = split(name, images)
            with torch.no_grad():
                hits = model.eval()((each.images / 255 - 0.3) / 0.2).argmax(dim=1) == each.labels
            assert outcome.correct[name].tolist() == hits.tolist()
            assert hits.double().mean().item() == getattr(outcome, f"{name}_accuracy")


def test_a_final_run_is_fitted_on_the_validation_images_too(tmp_path):
    """`fit_on: train+val` trains on both (four batches of 16 an epoch, not three) and gives no validation figures."""
    outcome = finished(toy_run(epochs=2, fit_on="train+val", batch_size=35), tmp_path)
    assert outcome.curves["val_accuracy"] == [None, None] and outcome.val_loss is None
    assert outcome.test_accuracy is not None
    seen = batches(toy_run(fit_on="train+val", batch_size=70)).epoch(0)
    labels = torch.cat([target.labels for _, target in seen])
    assert labels.sort().values.equal(splits().train_and_val.labels.sort().values)


def test_correctness_is_kept_of_the_splits_that_are_evaluated(tmp_path):
    """A trial never reads the test set, a run fitted on the validation images has none left, a diverged one no figures."""
    kept = {
        "both": toy_run(),
        "trial": toy_run(read_test=False),
        "final": toy_run(fit_on="train+val"),
        "diverged": toy_run(lr=1e30),
    }
    outcomes = {name: finished(run, tmp_path / name) for name, run in kept.items()}
    found = {name: {key: len(bits) for key, bits in outcome.correct.items()} for name, outcome in outcomes.items()}
    assert found == {"both": {"val": VAL, "test": TEST}, "trial": {"val": VAL}, "final": {"test": TEST}, "diverged": {}}


def test_a_run_without_correctness_is_the_same_run(tmp_path):
    """`data.correctness: false` is outside of a run's identity: the same bits, and nothing kept per image."""
    run = toy_run()
    without = dataclasses.replace(run, data=run.data.model_copy(update={"correctness": False}))
    one, other = finished(run, tmp_path / "one"), finished(without, tmp_path / "other")
    assert run.run_id == without.run_id and other.correct == {}
    assert_same_bits(one, dataclasses.replace(other, correct=one.correct))


def test_training_accuracy_is_missing_where_labels_are_mixed(tmp_path):
    """A mixed image has no one right label, so the curve says None and not 0."""
    outcome = finished(toy_run(epochs=2, augment={"mixup": 1.0}), tmp_path)
    assert outcome.curves["train_accuracy"] == [None, None]


@pytest.mark.parametrize("backbone", ["vit", "convmixer"])
def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, monkeypatch, backbone):
    """Weights that turn NaN in step 4 make step 5 diverge, however often the loss is looked at; finished epochs stay."""
    original = engine.optimizer_step

    def poisoned(state, *batch, **how):
        original(state, *batch, **how)
        if state.step == 4:
            next(state.model.parameters()).data.fill_(math.nan)

    monkeypatch.setattr(engine, "optimizer_step", poisoned)
    for interval in (0.0, 1e9):
        monkeypatch.setattr("study.training.engine.REPORT_INTERVAL_SECONDS", interval)
        outcome = attempt(toy_run(backbone), tmp_path / str(interval))
        assert (outcome.status, outcome.diverged_step) == ("diverged", 5)
        assert outcome.curves["epoch"] == [1] and outcome.test_accuracy is None and not outcome.weights


def test_a_learning_rate_out_of_this_world_diverges(tmp_path):
    """No poison needed: a run at a learning rate of 1e30 ends as diverged, at a step of the training."""
    outcome = attempt(toy_run(lr=1e30), tmp_path)
    assert outcome.status == "diverged" and 1 <= outcome.diverged_step <= 9


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains(name):
    """A dry step of a ViT with all that a recipe sets at once."""
    run = dataclasses.replace(toy_run(), train=RECIPES[name].train, augment=RECIPES[name].augment)
    assert run_dry_step(run, splits(), device=DeviceChoice("cpu")) is None


def test_two_hopeless_epochs_in_a_row():
    """A mean loss above 10 ln(classes), twice running; one such epoch, or one in between, is let pass."""
    limit = 10 * math.log(6)
    cases = {
        (30.0,): False,
        (30.0, 30.0): True,
        (30.0, 2.0, 30.0): False,
        (1.0, limit - 0.1, 30.0): False,
        (1.0, 18.0, 18.0): True,
    }
    for losses, expected in cases.items():
        assert has_diverged({"train_loss": list(losses)}, choices=6) is expected


def test_an_interruption_tells_where_and_saves(tmp_path):
    """stop() is asked after each step; the state after that step is on disk when train() returns."""
    run = toy_run()
    assert attempt(run, tmp_path, fate=Fate(interrupt_after=5)) is None
    assert [path.name for path in tmp_path.iterdir()] == [f"{run.run_id}.launch-0-0.000000005.checkpoint"]


def test_progress_is_told_at_most_once_a_second(tmp_path, monkeypatch):
    """One report within an interval; with no interval one per step, the last of which says that all is done."""
    told = []
    for interval, expected in ((1000.0, 1), (0.0, 9)):
        told.clear()
        monkeypatch.setattr("study.training.engine.REPORT_INTERVAL_SECONDS", interval)
        assert isinstance(attempt(toy_run(), tmp_path, report=lambda progress, _: told.append(progress)), Outcome)
        assert len(told) == expected
    last = told[-1]
    assert (last.epoch, last.epochs, last.step, last.steps, last.eta_seconds) == (3, 3, 9, 9, 0.0)
    assert math.isfinite(last.train_loss) and last.images_per_second > 0 and 0 <= last.val_accuracy <= 1


def test_a_fraction_of_an_epoch_ends_in_its_middle(tmp_path):
    """Five thirds of epochs of three steps are five steps of 16 images; the last two are those of a longer training."""
    short, whole = (
        finished(toy_run(epochs=epochs, schedule="constant"), tmp_path / str(n)) for n, epochs in enumerate((5 / 3, 2))
    )
    assert short.images_per_second * short.train_seconds == pytest.approx(5 * 16)
    assert whole.images_per_second * whole.train_seconds == pytest.approx(6 * 16)
    assert short.curves["epoch"] == whole.curves["epoch"] == [1, 2]
    assert short.curves["train_loss"][0] == whole.curves["train_loss"][0]
    assert short.curves["train_loss"][1] != whole.curves["train_loss"][1]
    assert (16 * 2 * short.curves["train_accuracy"][1]) % 1 == 0
