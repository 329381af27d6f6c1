"""The learning rate of every step, against closed forms written down independently of the code."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.config.options import TrainOptions
from study.errors import UserError
from study.training.optimizer import count_epoch_steps, learning_rate


def rates(train: TrainOptions, epoch_steps: int) -> list[float]:
    return [learning_rate(step, train, epoch_steps=epoch_steps) for step in range(train.count_steps(epoch_steps))]


def test_cosine_is_half_a_cosine_wave_after_the_warmup():
    """lr(s) = peak (1 + cos(pi (s - w) / (S - w))) / 2 from the first step after the warm-up of w steps."""
    found = rates(TrainOptions(epochs=4, lr=0.2, schedule="cosine", warmup_epochs=1), epoch_steps=10)
    expected = [0.2 * (s + 1) / 10 for s in range(10)] + [0.1 * (1 + math.cos(math.pi * s / 30)) for s in range(30)]
    assert found == pytest.approx(expected)


def test_a_floor_and_a_cooldown_end_the_schedule():
    """The wave ends at min_lr, at the beginning of the last epochs, which stay there; where lr is lower, nothing moves."""
    train = TrainOptions(epochs=5, lr=0.2, schedule="cosine", warmup_epochs=1, min_lr=0.02, cooldown_epochs=2)
    expected = [0.2 * (s + 1) / 10 for s in range(10)]
    expected += [0.02 + 0.09 * (1 + math.cos(math.pi * s / 20)) for s in range(20)] + 20 * [0.02]
    assert rates(train, epoch_steps=10) == pytest.approx(expected)
    linear = rates(TrainOptions(epochs=1, lr=1.0, schedule="linear", min_lr=0.5), epoch_steps=5)
    assert linear == pytest.approx([1 - s / 10 for s in range(5)])
    assert set(rates(TrainOptions(epochs=1, lr=0.1, schedule="cosine", min_lr=0.5), epoch_steps=5)) == {0.1}


def test_linear_falls_by_equal_amounts_and_never_to_zero():
    """All steps differ by peak / S, and the last one still moves the weights by peak / S."""
    found = rates(TrainOptions(epochs=2, lr=1.0, schedule="linear"), epoch_steps=5)
    assert found == pytest.approx([1 - s / 10 for s in range(10)])


def test_constant_is_the_peak_after_the_warmup():
    """A warm-up of half an epoch of ten steps has five steps and ends at the peak."""
    found = rates(TrainOptions(epochs=1, lr=0.5, schedule="constant", warmup_epochs=0.5), epoch_steps=10)
    assert found == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5] + 5 * [0.5])


def test_one_cycle_is_the_published_recipe():
    """The rates of locuslab/convmixer-cifar10's script (25 epochs, lr_max 0.05, 98 steps an epoch), recomputed as it does."""
    epochs, epoch_steps, lr_max = 25, 98, 0.05
    found = rates(TrainOptions(epochs=epochs, lr=lr_max, schedule="one_cycle"), epoch_steps=epoch_steps)
    knots, levels = [0, epochs * 2 // 5, epochs * 4 // 5, epochs], [0, lr_max, lr_max / 20.0, 0]
    times = [epoch + (i + 1) / epoch_steps for epoch in range(epochs) for i in range(epoch_steps)]
    np.testing.assert_allclose(found, np.interp(times, knots, levels), rtol=1e-9, atol=1e-15)


@settings(deadline=None, max_examples=50)
@given(
    schedule=st.sampled_from(["cosine", "linear", "one_cycle", "constant"]),
    epochs=st.floats(0.2, 6),
    epoch_steps=st.integers(1, 20),
    warmup=st.floats(0, 0.9),
)
def test_every_rate_lies_between_zero_and_the_peak(schedule, epochs, epoch_steps, warmup):
    """No schedule exceeds its peak or turns negative at any length, and each but a too short one_cycle reaches its peak."""
    train = TrainOptions(epochs=epochs, lr=3.0, schedule=schedule, warmup_epochs=warmup * epochs)
    found = rates(train, epoch_steps)
    assert min(found) >= 0 and max(found) <= 3.0
    assert schedule == "one_cycle" or max(found) == pytest.approx(3.0)


def test_half_an_epoch_more_is_half_as_many_steps_more():
    """2.5 epochs of four steps are ten steps, on which the rate falls evenly; less than one step is one."""
    found = rates(TrainOptions(epochs=2.5, lr=1.0, schedule="linear"), epoch_steps=4)
    assert found == pytest.approx([1 - s / 10 for s in range(10)])
    assert len(rates(TrainOptions(epochs=0.01), epoch_steps=4)) == 1


def test_an_epoch_has_full_batches_only():
    """The rest of 1,018 images after seven batches of 128 waits for another epoch's shuffle."""
    assert count_epoch_steps(1018, 128) == 7


def test_a_batch_larger_than_the_data_is_refused():
    """The user learns the key, the value and how many images there are."""
    with pytest.raises(UserError, match=r"train.batch_size.*has 100 images.*\(got 128\)"):
        count_epoch_steps(100, 128)
