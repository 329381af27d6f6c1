"""Energy and distance of known kernels, and what is read off real networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from study.backbones import build_backbone, specify
from study.probing.learned_filters import KernelsOfLayer, compare_positions, read_kernels, read_stem_filters

SIZES = {"image_size": 12, "in_channels": 3, "num_classes": 3, "patch_size": 3, "dim": 16, "depth": 2}


def test_kernel_energy_of_known_kernels():
    """A single weight in the center, in a corner, and equal weights, whose energy grows with the area."""
    kernels = np.zeros((2, 5, 5))
    kernels[0, 2, 2] = 3
    assert KernelsOfLayer(1, kernels).energy_within() == {0: 1, 1: 1, 2: 1}  # a kernel of zeros has no share
    kernels[1, 0, 4] = 1
    own = KernelsOfLayer(1, kernels)
    assert own.energy_within() == {0: 0.5, 1: 0.5, 2: 1}
    assert own.mean_distance() == pytest.approx(8**0.5 / 4)
    uniform = KernelsOfLayer(1, np.ones((4, 5, 5)))
    assert uniform.energy_within() == pytest.approx({0: 1 / 25, 1: 9 / 25, 2: 1})


@pytest.mark.parametrize(
    ("backbone", "options", "count"),
    [
        ("convmixer", {"kernel_size": 5}, 2),
        ("convnext", {"kernel_size": 5}, 2),
        ("metaformer", {"token_mixer": "depthwise_conv", "kernel_size": 5}, 2),
        ("metaformer", {"token_mixer": "conv", "kernel_size": 5}, 0),
        ("vit", {"heads": 1}, 0),
    ],
)
def test_depthwise_kernels_are_found_in_every_body(backbone, options, count):
    found = read_kernels(build_backbone(specify(backbone, {**SIZES, **options})))
    assert [own.layer for own in found] == list(range(1, count + 1))
    assert all(own.kernels.shape == (16, 5, 5) for own in found)


def test_stem_filters_are_the_largest():
    model = build_backbone(specify("vit", {**SIZES, "heads": 1}))
    norms = model.stem.patch_embedding.projection.weight.flatten(1).norm(dim=1).sort(descending=True).values
    found = read_stem_filters(model, most=5)
    assert found is not None and found.shape == (5, 3, 3, 3)
    np.testing.assert_allclose(np.sqrt((found**2).sum(axis=(1, 2, 3))), norms[:5].detach().numpy(), rtol=1e-5)
    assert read_stem_filters(build_backbone(specify("vit", {**SIZES, "heads": 1, "stem": "spt"}))) is None


@pytest.mark.parametrize("backbone", ["vit", "convmixer"])
def test_positions_are_compared_by_their_cosine(backbone):
    """As many as patches, each alike to itself; a class token's position is none."""
    options = (
        {"heads": 1, "pooling": "class_token"} if backbone == "vit" else {"kernel_size": 3, "position_embedding": "learned"}
    )
    model = build_backbone(specify(backbone, {**SIZES, **options}))
    table = next(module.table for module in model.stem.modules() if hasattr(module, "table"))
    with torch.no_grad():
        table.normal_(generator=torch.Generator().manual_seed(1))
        table[0, -1] = 2 * table[0, -16]  # the last patch is as the first
    found = compare_positions(model)
    assert found is not None and found.shape == (4, 4, 4, 4)
    assert found[0, 0, 3, 3] == pytest.approx(1) and found[1, 2, 1, 2] == pytest.approx(1) and found[0, 0, 1, 1] < 0.9
    assert compare_positions(build_backbone(specify("convmixer", {**SIZES, "kernel_size": 3}))) is None
