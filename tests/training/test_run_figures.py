"""The loss and the figures of an evaluation, against torch's own cross-entropy on dense targets and plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from study.config.options import TrainOptions
from study.data.torchvision_schema import declare_missing_operators
from study.training.augmentation import Target
from study.training.device import autocast
from study.training.evaluation import compute_metrics, evaluate
from study.training.step import compute_loss, cross_entropy

declare_missing_operators()

from timm.data.mixup import mixup_target  # noqa: E402  the schemas come first
from timm.loss import BinaryCrossEntropy  # noqa: E402

FP32 = autocast("fp32", torch.device("cpu"))


def dense(target: Target, classes: int) -> torch.Tensor:
    """The target as one distribution per image."""
    one_hot = F.one_hot(target.labels, classes).double()
    if target.partners is None or target.weight is None:
        return one_hot
    share = target.weight.double()[:, None]
    return share * one_hot + (1 - share) * F.one_hot(target.partners, classes)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), classes=st.integers(2, 9), smoothing=st.sampled_from([0.0, 0.1, 0.5]), mixed=st.booleans())
def test_the_loss_is_torchs_on_dense_targets(seed, classes, smoothing, mixed):
    """Mixed and smoothed labels cost what torch's cross-entropy says of the same labels written as distributions."""
    random = np.random.default_rng(seed)
    logits = torch.from_numpy(random.normal(size=(7, classes))).requires_grad_()
    labels, partners = (torch.from_numpy(random.integers(0, classes, 7)) for _ in range(2))
    target = Target(labels, partners, torch.from_numpy(random.random(7))) if mixed else Target(labels)
    found = cross_entropy(logits, target, label_smoothing=smoothing)
    expected = F.cross_entropy(logits, dense(target, classes), label_smoothing=smoothing)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (found, expected)))


@pytest.mark.parametrize("threshold", [None, 0.0, 0.2])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_binary_cross_entropy_is_timms(smoothing, mixed, threshold):
    """timm's loss of the labels, or of what its mixup makes of two labels and a weight, with the same threshold."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 6, generator=random)
    labels = torch.randint(6, (8,), generator=random)
    target, given = Target(labels), labels
    if mixed:
        target = Target(labels, labels.flip(0), torch.full((8,), 0.7))
        given = mixup_target(labels, 6, lam=0.7, smoothing=smoothing)
    options = TrainOptions(epochs=1, loss="bce", bce_threshold=threshold, label_smoothing=smoothing)
    expected = BinaryCrossEntropy(smoothing=smoothing, target_threshold=threshold)(logits, given)
    torch.testing.assert_close(compute_loss(logits, target, options), expected)


def test_figures_are_means_over_images(monkeypatch):
    """Accuracy, top-5, loss and predictions, recomputed with numpy; batches of unequal size weigh by their images."""
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(50, 8)).astype(np.float32), random.integers(0, 8, 50)
    found = compute_metrics(torch.from_numpy(logits), torch.from_numpy(labels))
    rank = (logits > logits[np.arange(50), labels][:, None]).sum(axis=1)
    log_p = logits - np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True))
    assert found.accuracy == pytest.approx((rank == 0).mean())
    assert found.top5 == pytest.approx((rank < 5).mean())
    assert found.loss == pytest.approx(-log_p[np.arange(50), labels].mean(), rel=1e-6)
    np.testing.assert_array_equal(found.predictions.predicted, logits.argmax(axis=1))
    np.testing.assert_allclose(found.predictions.probability, np.exp(log_p.max(axis=1)), rtol=1e-5)


def test_top5_of_five_classes_is_missing():
    """With five classes or fewer it would always be 1; a figure that says nothing isn't given."""
    assert compute_metrics(torch.randn(4, 5), torch.tensor([0, 1, 2, 3])).top5 is None


def test_evaluation_uses_running_statistics_and_returns_the_mode():
    """BatchNorm evaluates with its running statistics, which evaluation leaves as they are."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(6)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.randn(4, 6, 1, 1) + 3
    found = evaluate(model, [(images[:3], torch.zeros(3).long()), (images[3:], torch.zeros(1).long())], autocast=FP32)
    expected = F.cross_entropy(images.flatten(1) / (1 + 1e-5) ** 0.5, torch.zeros(4).long())
    assert found.loss == pytest.approx(expected.item(), rel=1e-5)
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
