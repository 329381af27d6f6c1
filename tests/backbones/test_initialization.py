"""Laws of initialization: one patch embedding for all backbones, and draws that depend on their key alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from study.backbones import build, names

SMALL = {"image_size": 16, "in_channels": 3, "num_classes": 5, "patch_size": 4, "depth": 1}
PATCHES = "stem.patch_embedding.projection.weight"


@pytest.mark.parametrize("name", names())
def test_backbones_of_equal_width_share_the_patch_embedding(name: str) -> None:
    """With the same seed the patch embedding is bit for bit that of every other backbone; another seed's is not."""
    ours = build(name, **SMALL, dim=64, seed=3).state_dict()[PATCHES]
    for other in names():
        assert torch.equal(ours, build(other, **SMALL, dim=64, seed=3).state_dict()[PATCHES])
    assert not torch.equal(ours, build(name, **SMALL, dim=64, seed=4).state_dict()[PATCHES])


@pytest.mark.parametrize("name", names())
def test_a_narrower_patch_embedding_is_a_prefix(name: str) -> None:
    """A narrower backbone begins with the first filters of a wider one."""
    narrow, wide = (build(name, **SMALL, dim=dim).state_dict()[PATCHES] for dim in (32, 96))
    assert torch.equal(narrow, wide[:32])


@pytest.mark.parametrize("name", names())
def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    """Weights depend on the seed and their own names: not on torch's generator, nor on the depth."""
    torch.manual_seed(0)
    first = build(name, **SMALL, dim=32).state_dict()
    torch.manual_seed(1)
    deeper = build(name, **(SMALL | {"depth": 3}), dim=32).state_dict()
    assert all(torch.equal(value, deeper[key]) for key, value in first.items())


@pytest.mark.parametrize("name", names())
def test_building_does_not_change_torchs_generator(name: str) -> None:
    """Building a model draws nothing from the global generator."""
    state = torch.random.get_rng_state()
    build(name, **SMALL, dim=32)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("name", names())
def test_weights_have_variance_one_over_fan_in(name: str) -> None:
    """Weights of two and more axes are normal with variance 1 / fan-in; biases zero, norm scales one."""
    for key, value in build(name, **SMALL, dim=128).state_dict().items():
        if key.endswith("weight") and value.ndim > 1 and value.numel() > 2000:
            deviation = value.std().item() * math.sqrt(math.prod(value.shape[1:]))
            assert deviation == pytest.approx(1, abs=5 / math.sqrt(value.numel()))
        elif key.endswith("bias"):
            assert not value.any()


def test_the_patch_embedding_is_the_documented_stream() -> None:
    """The draw is numpy's Philox keyed by (seed, "patch embedding"), filter by filter, over the root of its fan-in."""
    from study.rng import stream

    weight = build("vit", **SMALL, dim=32, seed=7).state_dict()[PATCHES].numpy()
    drawn = stream(7, "patch embedding").standard_normal((32, 3 * 4 * 4)) / math.sqrt(48)
    np.testing.assert_array_equal(weight.reshape(32, 48), drawn.astype(np.float32))
