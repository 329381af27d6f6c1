"""Attention distance and entropy of known weights, and that the weights are those of the forward pass."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from study.backbones import build_backbone, specify
from study.probing.attention_distance import (
    average_maps,
    compute_attention,
    compute_distances,
    find_attention,
    measure_attention,
    summarize_attention,
)

SIZES = {"image_size": 12, "in_channels": 1, "num_classes": 3, "patch_size": 3, "dim": 16, "depth": 2}
EXTRA = {"pooling": "class_token", "registers": 1}


def random_images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def test_uniform_and_identity_attention_have_closed_forms():
    """Uniform: the mean distance of two patches, and ln n. Identity: no distance, no entropy. Also with tokens off the grid."""
    distances = compute_distances(specify("vit", SIZES))
    places = list(itertools.product(range(4), repeat=2))
    expected = 3 * sum(math.dist(one, other) for one in places for other in places) / 16**2
    for extra in (0, 2):
        n = 16 + extra
        distance, entropy = summarize_attention(torch.full((1, 2, n, n), 1 / n), distances)
        torch.testing.assert_close(distance, torch.full((1, 2), expected))
        torch.testing.assert_close(entropy, torch.full((1, 2), math.log(n)))
        distance, entropy = summarize_attention(torch.eye(n).expand(1, 2, n, n), distances)
        assert not distance.any() and not entropy.any()


MIXERS = [
    ("vit", {"heads": 2, **EXTRA}),
    ("vit", {"heads": 2, "position_embedding": "rope", "qk_norm": True, **EXTRA}),
    ("vit", {"heads": 2, "position_embedding": "relative", **EXTRA}),
    ("metaformer", {"heads": 2, "token_mixer": "local_attention", "kernel_size": 3}),
]


@pytest.mark.parametrize(("backbone", "options"), MIXERS)
def test_the_weights_are_those_of_the_forward_pass(backbone, options):
    """The values of all tokens, summed with the weights, are what the layer returns; rows sum to 1."""
    model = build_backbone(specify(backbone, {**SIZES, **options})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("relative_bias", "qkv.weight")):
                parameter.normal_(std=0.5)
        for layer, module in find_attention(model).items():
            tokens = torch.randn(2, model.spec.sequence, 16, generator=torch.Generator().manual_seed(layer))
            weights, values = module.attention_weights(tokens), module.split_heads(tokens)[2]
            summed = (weights @ values).transpose(1, 2).reshape(tokens.shape)
            torch.testing.assert_close(module.out(summed), module(tokens))
            torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 2, model.spec.sequence))
    assert set(compute_attention(model, random_images())) == {1, 2}


def test_local_attention_stays_in_its_window():
    """No weight beyond the window, so the mean distance is below that of its corner."""
    model = build_backbone(specify(*MIXERS[3][:1], {**SIZES, **MIXERS[3][1]})).eval()
    distances = compute_distances(model.spec)
    for weights in compute_attention(model, random_images()).values():
        assert not weights[..., distances > 3 * 2**0.5 + 1e-6].any()
    assert all(
        (own.distance > 0).all() and (own.distance < 3 * 2**0.5).all() for own in measure_attention(model, random_images())
    )


def test_networks_without_attention_have_none():
    model = build_backbone(specify("convmixer", {**SIZES, "kernel_size": 3})).eval()
    assert measure_attention(model, random_images()) == [] and average_maps(model, random_images()) == {}


def test_maps_are_rows_of_the_weights():
    """The class token's row without its weights on tokens off the grid, averaged over heads."""
    model = build_backbone(specify("vit", {**SIZES, **MIXERS[0][1]})).eval()
    images = random_images()
    maps = average_maps(model, images)
    for layer, weights in compute_attention(model, images).items():
        torch.testing.assert_close(torch.from_numpy(maps[layer]).float().flatten(1), weights[:, :, 0, 2:].mean(dim=1))
