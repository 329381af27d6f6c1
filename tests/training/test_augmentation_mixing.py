"""Laws of mixup and CutMix: each image is what its own and its partner's pixels make, in the weight its label gets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from study.config.options import AugmentOptions
from study.training.augmentation.draws import Draws
from study.training.augmentation.mixing import Mixing, Target, draw_mixing

IMAGES, SIZE = 2000, 16


def mixing(epoch: int = 0, **alphas: float) -> Mixing:
    drawn = draw_mixing(Draws(seed=1, epoch=epoch, images=IMAGES, size=SIZE), AugmentOptions(**alphas))
    assert drawn is not None
    return drawn


def mixed(drawn: Mixing, images: torch.Tensor) -> torch.Tensor:
    at = torch.arange(len(images))
    return drawn(images, images[drawn.partner], at)


def test_partners_are_a_permutation_of_the_training_set_new_in_each_epoch() -> None:
    """Every image is a partner exactly once per epoch, and of another image in the next."""
    first, second = mixing(0, mixup=1.0).partner, mixing(1, mixup=1.0).partner
    assert torch.equal(first.sort().values, torch.arange(IMAGES))
    assert (first == second).float().mean() < 0.01


def test_mixup_is_the_convex_combination_of_the_paper() -> None:
    """x = w x_i + (1 - w) x_j by numpy, with w from Beta(alpha, alpha) by Kolmogorov and Smirnov's test."""
    drawn, images = mixing(mixup=0.4), torch.randn(IMAGES, 2, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    w = drawn.weight.numpy()[:, None, None, None].astype(np.float64)
    own = images.numpy().astype(np.float64)
    np.testing.assert_allclose(mixed(drawn, images).numpy(), w * own + (1 - w) * own[drawn.partner.numpy()], atol=1e-6)
    assert stats.kstest(drawn.weight.numpy(), stats.beta(0.4, 0.4).cdf).pvalue > 1e-3


def test_a_cutmix_image_is_its_own_outside_a_rectangle_and_its_partners_inside() -> None:
    """The weight of a label is the share of pixels that are the image's own; areas follow 1 - Beta where not cut."""
    drawn = mixing(cutmix=1.0)
    numbers = torch.arange(IMAGES, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 1, SIZE, SIZE)
    result = mixed(drawn, numbers)
    own = (result == numbers).float().mean(dim=(1, 2, 3))
    partners = (result == numbers[drawn.partner]).float().mean(dim=(1, 2, 3))
    different = drawn.partner != torch.arange(IMAGES)
    torch.testing.assert_close(own[different], drawn.weight[different])
    torch.testing.assert_close((own + partners)[different], torch.ones(int(different.sum())))
    rows, columns = (result != numbers).any(dim=3)[:, 0], (result != numbers).any(dim=2)[:, 0]
    torch.testing.assert_close(rows.sum(1) * columns.sum(1), (result != numbers).sum(dim=(1, 2, 3)))  # a rectangle
    assert 0.5 < drawn.weight.mean() < 0.75  # half before cutting at the borders


def test_with_both_each_image_draws_one_evenly() -> None:
    """Half of the images are blended and half are pasted, and either kind is what it is alone."""
    both, mixup, cutmix = mixing(mixup=0.8, cutmix=1.0), mixing(mixup=0.8), mixing(cutmix=1.0)
    assert abs(both.blends.float().mean() - 0.5) < 3 * np.sqrt(0.25 / IMAGES)
    assert torch.equal(both.weight[both.blends], mixup.weight[both.blends])
    assert torch.equal(both.weight[~both.blends], cutmix.weight[~both.blends])
    assert torch.equal(both.box[~both.blends], cutmix.box[~both.blends])


def test_images_that_are_not_mixed_stay_as_they_are() -> None:
    """With `mixup_prob` 0.3 this share of the images is mixed, as it is with 1; the others keep pixels and label alone."""
    all_mixed, some, images = (
        mixing(mixup=0.8, cutmix=1.0),
        mixing(mixup=0.8, cutmix=1.0, mixup_prob=0.3),
        torch.randn(IMAGES, 1, 8, 8),
    )
    same = (some.weight == all_mixed.weight) & (some.box == all_mixed.box).all(1) & (some.blends == all_mixed.blends)
    assert abs(same.float().mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / IMAGES)
    assert (some.weight[~same] == 1).all() and torch.equal(mixed(some, images)[~same], images[~same])


def test_mixing_ends_after_its_last_epoch() -> None:
    """`mixup_off_epoch: 2` mixes in the first two epochs, as without it, and in no later one."""
    options = AugmentOptions(mixup=0.8, mixup_off_epoch=2)
    drawn = [draw_mixing(Draws(seed=1, epoch=epoch, images=IMAGES, size=SIZE), options) for epoch in range(4)]
    assert [each is not None for each in drawn] == [True, True, False, False]
    assert drawn[1] is not None and torch.equal(drawn[1].weight, mixing(1, mixup=0.8).weight)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_parts_of_a_target_are_its_rows(weighted: bool) -> None:
    """`chunk` parts labels, partners and weights as it parts images."""
    labels = torch.arange(12)
    target = Target(labels, labels + 1, labels / 12) if weighted else Target(labels)
    parts = target.chunk(3)
    assert torch.equal(torch.cat([part.labels for part in parts]), labels)
    assert [len(part.labels) for part in parts] == [4, 4, 4]
    assert all((part.weight is not None) == weighted for part in parts)
