"""Stochastic depth drops what residuals add, per image, at the rates of its recipe, and nothing in evaluation."""

from __future__ import annotations

import pytest
import torch

from study.backbones import build, names
from study.training.stochastic_depth import StochasticDepth, find_residual_branches

CPU = torch.device("cpu")
IMAGES, DEPTH = 4000, 3


def backbone(name: str, depth: int = DEPTH) -> torch.nn.Module:
    return build(name, image_size=8, in_channels=1, num_classes=4, patch_size=2, dim=8, depth=depth)


def dropping(model, rate: float, seed: int = 0) -> StochasticDepth:
    return StochasticDepth(model, rate=rate, seed=seed, images=IMAGES, device=CPU)


@pytest.mark.parametrize("name", names())
def test_every_backbone_has_branches_in_every_block(name):
    """No registered backbone is passed over: each of its blocks has at least one residual branch."""
    assert {number for number, _ in find_residual_branches(backbone(name))} == set(range(DEPTH))


@pytest.mark.parametrize("name", names())
def test_a_dropped_branch_adds_nothing(name):
    """What a residual branch puts out is zero for the images it's dropped for, and isn't for the others."""
    model = backbone(name).train()
    depth = dropping(model, 0.6)
    added = {}
    for column, (_, branch) in enumerate(find_residual_branches(model)):
        branch.register_forward_hook(lambda _m, _i, out, column=column: added.__setitem__(column, out.detach()))
    depth.select(epoch=0, first=0, count=50)
    model(torch.randn(50, 1, 8, 8))
    for column, out in added.items():
        dropped = depth._selected[:, column] == 0
        assert not out[dropped].any()
        assert out[~dropped].flatten(1).any(dim=1).all()


def test_rates_rise_linearly_with_the_block():
    """Of three blocks at rate 0.4: none of the first's branches, a fifth of the second's, two fifths of the last's; those
    kept are scaled so that the mean is one."""
    depth = dropping(backbone("vit"), 0.4)
    depth.select(epoch=3, first=0, count=IMAGES)
    scales = depth._selected
    assert scales.shape == (IMAGES, 6)
    torch.testing.assert_close((scales == 0).float().mean(0), torch.tensor([0, 0, 0.2, 0.2, 0.4, 0.4]), atol=0.03, rtol=0)
    torch.testing.assert_close(scales.mean(0), torch.ones(6), atol=0.05, rtol=0)
    assert scales[:, 4].unique().tolist() == pytest.approx([0.0, 1 / 0.6])


def test_draws_are_keyed():
    """Another epoch or seed drops others; a part of a batch is dropped as in the whole."""
    one, other = dropping(backbone("vit"), 0.5), dropping(backbone("vit"), 0.5, seed=1)
    drawn = {}
    for name, depth, epoch in (("a", one, 0), ("b", one, 1), ("c", other, 0), ("again", one, 0)):
        depth.select(epoch=epoch, first=0, count=100)
        drawn[name] = depth._selected.clone()
    assert torch.equal(drawn["a"], drawn["again"])
    assert not torch.equal(drawn["a"], drawn["b"]) and not torch.equal(drawn["a"], drawn["c"])
    one.select(epoch=0, first=40, count=20)
    assert torch.equal(one._selected, drawn["a"][40:60])


@pytest.mark.parametrize("name", names())
def test_evaluation_drops_nothing(name):
    """In evaluation a model with hooks computes what it computes without."""
    plain, hooked = backbone(name).eval(), backbone(name).eval()
    dropping(hooked, 0.9)
    images = torch.randn(5, 1, 8, 8)
    assert torch.equal(plain(images), hooked(images))
