"""Dropout zeroes at its rate, per image and site, scales what stays, does nothing in evaluation, and is keyed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from study.backbones import build
from study.backbones.base import Backbone
from study.config.options import TrainOptions
from study.rng import stream
from study.training.dropout import Dropout
from study.training.keyed_bits import draw_keys, draw_normal, hash_keys

IMAGES = 300
BACKBONES = {
    "vit": {"heads": 2},
    "metaformer": {"token_mixer": ("attention", "local_attention"), "kernel_size": 3, "heads": 2},
    "mlp_mixer": {},
    "convnext": {},
}


def backbone(name: str, **settings: object) -> Backbone:
    common = {"image_size": 8, "in_channels": 1, "num_classes": 4, "patch_size": 2, "dim": 8, "depth": 2}
    return build(name, **common, **BACKBONES.get(name, {}), **settings)


def dropping(model: Backbone, *, seed: int = 0, **rates: float) -> Dropout:
    train = TrainOptions(epochs=1, **rates)
    return Dropout(model, train, seed=seed, images=IMAGES, device=torch.device("cpu"))


def select_all(dropout: Dropout, epoch: int = 0) -> None:
    dropout.select(epoch=epoch, first=0, count=IMAGES)


def test_bits_are_uniform_and_unrelated_between_numbers_and_images() -> None:
    """Chi-squared over all values of a byte, of both ends; no correlation along images, numbers, or shifted keys."""
    keys = draw_keys(stream(0, "keys"), 400)
    drawn = hash_keys(keys, 1001)
    assert drawn.shape == (400, 1001) and drawn.dtype == torch.int16
    for byte in ((drawn.int() >> 8) & 255, drawn & 255):
        assert stats.chisquare(np.bincount(byte.flatten().numpy(), minlength=256)).pvalue > 1e-3
    values = drawn.double()
    for one, other in ((values[:, 1:], values[:, :-1]), (values[1:], values[:-1]), (values[:, 2:], values[:, :-2])):
        assert abs(np.corrcoef(one.flatten(), other.flatten())[0, 1]) < 4 / one.numel() ** 0.5
    assert len(hash_keys(keys, 2).unique(dim=0)) == 400
    assert torch.equal(hash_keys(keys[5:6], 1001), drawn[5:6])
    assert stats.kstest(draw_normal(keys[:50], 1000).flatten().numpy(), stats.norm.cdf).pvalue > 1e-3


def test_a_hash_is_that_of_unsigned_integers() -> None:
    """Wrapping and shifting of int32 is that of unsigned 32-bit integers, by numpy."""
    keys = draw_keys(stream(1, "keys"), 20)
    first, second = (keys.numpy().view(np.uint32)[:, k : k + 1] for k in range(2))
    words = np.arange(8, dtype=np.uint32) * np.uint32(0x9E3779B9) + first
    words = (words ^ (words >> 16)) * np.uint32(0x7FEB352D)
    words = (words ^ (words >> 15)) * np.uint32(0x846CA68B)
    words = (words ^ (words >> 16)) + second
    words = (words ^ (words >> 16)) * np.uint32(0x7FEB352D)
    np.testing.assert_array_equal(hash_keys(keys, 16).numpy(), (words ^ (words >> 15)).view(np.int16))


@pytest.mark.parametrize(
    ("site", "option", "at"),
    [("reduce", "mlp_dropout", 0), ("channel_mixing.mixer", "mlp_dropout", 1), ("classifier", "head_dropout", 0)],
)
def test_linear_layers_drop_at_their_rate(site: str, option: str, at: int) -> None:
    """MLPs drop what enters and what leaves their last layer, heads what enters the classifier; the rest is scaled."""
    seen: list[Tensor] = []
    images = torch.randn(IMAGES, 1, 8, 8)
    for drops in (False, True):
        model = backbone("vit").train()
        for name, module in model.named_modules():
            if name.endswith(site):
                module.register_forward_hook(lambda _m, inputs, output: seen.append((inputs[0], output)[at]))
        if drops:
            select_all(dropping(model, **{option: 0.25}))
        model(images)
    without, with_dropout = seen[0], seen[len(seen) // 2]
    dropped = with_dropout == 0
    assert abs(dropped.float().mean() - 0.25) < 4 * (0.25 * 0.75 / dropped.numel()) ** 0.5
    assert dropped.flatten(1).unique(dim=0).shape[0] > IMAGES / 4  # images have masks of their own
    if at == 0:  # what enters; what leaves is of dropped inputs
        torch.testing.assert_close(with_dropout[~dropped], without[~dropped] / 0.75)


@pytest.mark.parametrize("name", ["vit", "metaformer"])
def test_attention_weights_are_dropped_by_the_formula(name: str) -> None:
    """Without dropping, the path with explicit weights is torch's attention; weights are dropped after their softmax."""
    model, plain = backbone(name).train(), backbone(name).train()
    dropout = dropping(model, attention_dropout=0.5)
    images = torch.randn(IMAGES, 1, 8, 8)
    weights: list[Tensor] = []
    sites = [module for module in model.modules() if hasattr(module, "drop_weights")]
    own = [site.drop_weights for site in sites]
    for site in sites:
        site.drop_weights = lambda each: weights.append(each) or each  # type: ignore[func-returns-value]
    torch.testing.assert_close(model(images), plain(images), rtol=1e-4, atol=1e-5)
    assert len(weights) == 2
    select_all(dropout)
    for drop, each in zip(own, weights, strict=True):
        torch.testing.assert_close(each.sum(dim=-1), torch.ones(each.shape[:-1]))
        kept = drop(each)
        torch.testing.assert_close(kept[kept != 0], 2 * each[kept != 0])
        assert abs((kept[each != 0] == 0).float().mean() - 0.5) < 0.02
    assert not torch.equal(own[0](weights[0]) == 0, own[1](weights[0]) == 0)  # sites of their own


@pytest.mark.parametrize("name", BACKBONES)
def test_masks_are_those_of_the_images_in_any_part_of_a_batch(name: str) -> None:
    """Images have the same logits in parts as in the whole batch; another epoch or seed drops others; evaluation nothing."""
    model, other = backbone(name).train(), backbone(name).train()
    rates = {"attention_dropout": 0.2, "mlp_dropout": 0.2, "head_dropout": 0.2}
    dropout, further = dropping(model, **rates), dropping(other, seed=1, **rates)
    images = torch.randn(40, 1, 8, 8)

    def logits(network: Backbone, own: Dropout, epoch: int, first: int, last: int) -> Tensor:
        own.select(epoch=epoch, first=first, count=last - first)
        return network(images[first:last])

    whole = logits(model, dropout, 3, 0, 40)
    parts = torch.cat([logits(model, dropout, 3, 0, 15), logits(model, dropout, 3, 15, 40)])
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits(model, dropout, 4, 0, 40), whole)
    assert not torch.allclose(logits(other, further, 3, 0, 40), whole)
    torch.testing.assert_close(model.eval()(images), backbone(name).eval()(images))
