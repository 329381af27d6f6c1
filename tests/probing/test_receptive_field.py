"""Receptive fields against closed forms: linear stacks of convolutions, and mixing that mixes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from study.backbones import build_backbone, specify
from study.backbones.base import Backbone, GridHead
from study.backbones.stem import build_grid_stem
from study.backbones.token_mixers import DepthwiseConv2d
from study.probing.receptive_field import find_radii, measure_receptive_fields
from study.rng import stream

SIZES = {"image_size": 16, "in_channels": 2, "num_classes": 3, "patch_size": 2, "dim": 8, "depth": 2}


def random_images(count: int = 3) -> torch.Tensor:
    return torch.from_numpy(stream("test", "images").normal(size=(count, 2, 16, 16)).astype("float32"))


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_the_field_of_a_linear_stack_is_the_power_of_its_kernel(kernel_size):
    """l convolutions with kernels of ones weigh each token by the number of paths to it: the l-th power of a band matrix."""
    spec = specify("convmixer", {**SIZES, "depth": 3, "kernel_size": kernel_size})
    blocks = [DepthwiseConv2d(8, kernel_size, bias=False) for _ in range(3)]
    for block in blocks:
        nn.init.ones_(block.weight)
    model = Backbone(spec, stem=build_grid_stem(spec, normed=False), blocks=blocks, head=GridHead(spec, normed=False))
    nn.init.ones_(model.stem.patch_embedding.projection.weight)
    fields = measure_receptive_fields(model, random_images())
    steps = (np.abs(np.subtract.outer(np.arange(8), np.arange(8))) <= kernel_size // 2).astype(int)  # from token to token
    for layer, field in enumerate(fields):
        paths = np.linalg.matrix_power(steps, layer)[4]
        expected = np.kron(np.outer(paths, paths), np.ones((2, 2)))
        np.testing.assert_allclose(field, expected / expected.sum(), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_identity_mixing_sees_exactly_one_patch(patch_size):
    """No gradient at all outside the central token's patch, in every layer; its radius is that of the patch's corners."""
    spec = specify("metaformer", {**SIZES, "patch_size": patch_size, "token_mixer": "identity"})
    fields = measure_receptive_fields(build_backbone(spec), random_images())
    inside = np.zeros((16, 16), dtype=bool)
    start = spec.grid // 2 * patch_size
    inside[start : start + patch_size, start : start + patch_size] = True
    for field in fields:
        assert (field[inside] > 0).all() and (field[~inside] == 0).all()
        assert find_radii(field, spec)[0.95] == pytest.approx((patch_size - 1) / 2 * 2**0.5)


def test_extra_tokens_are_not_taken_for_patches():
    """With a class token and registers in front, the stem's field is still that of the central patch."""
    spec = specify("vit", {**SIZES, "heads": 2, "pooling": "class_token", "registers": 3})
    stem, *_ = measure_receptive_fields(build_backbone(spec), random_images())
    assert stem[8:10, 8:10].sum() == pytest.approx(1) and np.count_nonzero(stem) == 4


def test_layer_norms_do_not_hide_the_field():
    """After a layer norm the sum over features has no gradient; the field of the stem and the blocks is there nevertheless."""
    spec = specify("convmixer", {**SIZES, "kernel_size": 3, "norm": "layer"})
    for layer, field in enumerate(measure_receptive_fields(build_backbone(spec), random_images())):
        assert np.count_nonzero(field > 1e-4) == (2 * (2 * layer + 1)) ** 2


def test_radii_hold_their_share():
    """The smallest disc around the central patch with the share, by brute force, for random fields."""
    spec = specify("convmixer", {**SIZES, "kernel_size": 3})
    center = (spec.grid // 2 + 0.5) * 2 - 0.5
    distance = np.hypot(*(np.mgrid[:16, :16] - center))
    for trial in range(5):
        field = stream("test", "field", trial).exponential(size=(16, 16)) ** 4
        field /= field.sum()
        for share, radius in find_radii(field, spec).items():
            assert field[distance <= radius + 1e-9].sum() >= share > field[distance < radius - 1e-9].sum()
    assert all(np.isnan(radius) for radius in find_radii(np.zeros((16, 16)), spec).values())
