"""Laws of policies: given an image's draws, torchvision's or timm's own policy makes the same picture in Pillow, bit by bit."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pillow_pictures import ROUNDING, picture, pictures, pixels
from scipy import stats
from torch import Tensor

from study.config.options import AugmentOptions
from study.data import DatasetInfo
from study.data.torchvision_schema import declare_missing_operators
from study.training.augmentation import timm_randaugment
from study.training.augmentation.draws import Draws
from study.training.augmentation.operations import OPERATIONS, SIGNS
from study.training.augmentation.policies import BINS, RandAugment, TrivialAugment, make_policy
from study.training.augmentation.timm_randaugment import LAYERS, TimmRandAugment

declare_missing_operators()

from timm.data import auto_augment  # noqa: E402  the schemas come first
from torchvision.transforms import InterpolationMode, autoaugment  # noqa: E402

TORCHVISION_NAMES = [name.title().replace("_", "").replace("Autocontrast", "AutoContrast") for name in OPERATIONS]
POLICIES = ["imagenet", "cifar10", "svhn", "ta_wide", "rand-m9-mstd0.5-inc1"]


def facts(size: int, channels: int = 3) -> DatasetInfo:
    means = (0.485, 0.456, 0.406)[:channels]
    return DatasetInfo("set", "0", size, channels, tuple("abcd"), 60, 5, means, means, val_images=5)


def draws(images: int, size: int, *, epoch: int = 0) -> Draws:
    return Draws(seed=3, epoch=epoch, images=images, size=size)


def augmented(name: str, images: Tensor) -> Tensor:
    size = images.shape[-1]
    policy = make_policy(AugmentOptions(auto_augment=name), facts(size, images.shape[1]))
    assert policy is not None
    return policy.draw(draws(len(images), size))(images, torch.arange(len(images)))


@pytest.mark.parametrize("name", OPERATIONS[:14])
@pytest.mark.parametrize(("size", "channels"), [(32, 3), (28, 1), (9, 3)])
def test_an_operation_of_randaugment_gives_the_pixels_of_torchvision_on_pillow(name: str, size: int, channels: int) -> None:
    """Every operation, sign and magnitude equals torchvision's RandAugment on the same Pillow picture exactly."""
    images, number = pictures(10, channels=channels, size=size), OPERATIONS.index(name)
    for magnitude, (k, sign) in itertools.product((0, 1, 9, 12, 23, 30), enumerate(SIGNS)):
        ours = RandAugment(layers=1, magnitude=magnitude, image_size=size).variants(
            images, torch.full((len(images),), number * len(SIGNS) + k)
        )
        policy = autoaugment.RandAugment(num_ops=1, magnitude=magnitude, num_magnitude_bins=BINS)
        magnitudes, signed = policy._augmentation_space(BINS, (size, size))[TORCHVISION_NAMES[number]]
        strength = (float(magnitudes[magnitude]) if magnitudes.ndim else 0.0) * (sign if signed else 1)
        theirs = [
            autoaugment._apply_op(picture(image), TORCHVISION_NAMES[number], strength, InterpolationMode.NEAREST, None)
            for image in images
        ]
        torch.testing.assert_close(ours, torch.stack([pixels(each) for each in theirs]), rtol=0, atol=ROUNDING)


def test_a_drawn_magnitude_of_zero_changes_nothing_but_posterize_and_tables() -> None:
    """At magnitude 0 the moves, blends and posterize are the identity: what the paper calls no distortion."""
    images = pictures(10, channels=3, size=16)
    for number, name in enumerate(OPERATIONS[:14]):
        if name in ("solarize", "autocontrast", "equalize"):
            continue  # these have no magnitude of their own, or invert the brightest value
        variant = torch.full((len(images),), number * len(SIGNS))
        assert torch.equal(RandAugment(layers=1, magnitude=0, image_size=16).variants(images, variant), images), name


@pytest.mark.parametrize(("found_for", "channels"), [("imagenet", 3), ("cifar10", 3), ("svhn", 1)])
def test_autoaugment_is_torchvisions_for_the_same_draws(found_for: str, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's policy, given each image's pair, chances and signs, makes the same picture; all 25 pairs are drawn."""
    images = pictures(300, channels=channels, size=16)
    drawn, same = draws(len(images), 16), autoaugment.AutoAugment(autoaugment.AutoAugmentPolicy(found_for))
    chosen, chances = drawn.below("autoaugment", 25, 2, 2), torch.from_numpy(drawn.uniform("autoaugment chance", 2))
    assert len(np.unique(chosen[:, 0])) == 25
    parameters = iter(
        [(int(row[0]), chance, 1 - torch.from_numpy(row[1:])) for row, chance in zip(chosen, chances, strict=True)]
    )
    monkeypatch.setattr(same, "get_params", lambda _pairs: next(parameters))
    theirs = torch.stack([pixels(same(picture(image))) for image in images])
    ours = augmented(found_for, images)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=ROUNDING)
    assert (ours != images).flatten(1).any(dim=1).float().mean() > 0.5


def test_trivialaugment_is_torchvisions_for_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's TrivialAugmentWide, given each image's operation, magnitude and sign, makes the same picture."""
    images = pictures(900, channels=3, size=16)
    rows = draws(len(images), 16).below("trivialaugment", 14, BINS, 2)
    ours, same = augmented("ta_wide", images), autoaugment.TrivialAugmentWide()
    for image, row, mine in zip(images, rows, ours, strict=True):
        drawn = dict(zip((14, BINS, 2), row, strict=True))  # by their upper ends
        monkeypatch.setattr(torch, "randint", lambda high, _size, dtype=None, drawn=drawn: torch.tensor([drawn[high]]))
        torch.testing.assert_close(mine, pixels(same(picture(image))), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("channels", [1, 3])
def test_timms_randaugment_is_timms_for_the_same_draws(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's own transform, given each layer's operation, chance, magnitude, sign and filter, makes the same picture."""
    size, images = 20, pictures(600, channels=channels, size=20)
    ours, drawn = augmented("rand-m9-mstd0.5-inc1", images), draws(len(images), size)
    policy = auto_augment.rand_augment_transform(
        "rand-m9-mstd0.5-inc1", {"img_mean": tuple(TimmRandAugment(facts(size, channels)).fill.tolist())}
    )
    if channels == 1:
        for operation in policy.ops:
            operation.kwargs["fillcolor"] = operation.kwargs["fillcolor"][0]
    by_name = {operation.name.removesuffix("Increasing").removesuffix("Rel"): operation for operation in policy.ops}
    assert len(by_name) == len(timm_randaugment.CHOICES) == 15
    layers = [(drawn.uniform(f"rand-m9 {k}", 4), drawn.normal(f"rand-m9 magnitude {k}")) for k in range(LAYERS)]
    compared = 0
    for k, (image, mine) in enumerate(zip(images, ours, strict=True)):
        chosen, uniform, levels, filters = [], [], [], []
        for numbers, normal in layers:
            applied, choice, sign, bicubic = numbers[k]
            operation = by_name[TORCHVISION_NAMES[1 + int(15 * choice)]]
            chosen.append(operation)
            is_signed = operation.name not in ("AutoContrast", "Equalize", "Invert", "SolarizeAdd") and (
                "Posterize" not in operation.name and operation.name != "SolarizeIncreasing"
            )
            uniform += [applied, 1 - sign] if applied < 0.5 and is_signed else [applied]
            if applied < 0.5:
                levels.append(9 + 0.5 * normal[k])
                filters += [int(bicubic < 0.5)] if "fillcolor" in operation.kwargs and is_move(operation.name) else []
        if any("Posterize" in operation.name for operation in chosen) and max(levels, default=0) >= 10:
            continue  # at 10 no bit is kept, which today's Pillow refuses
        numbers, magnitudes, bicubics = iter(uniform), iter(levels), iter(filters)
        monkeypatch.setattr(
            auto_augment,
            "random",
            SimpleNamespace(
                random=lambda numbers=numbers: next(numbers),
                gauss=lambda _mean, _deviation, magnitudes=magnitudes: next(magnitudes),
                choice=lambda given, bicubics=bicubics: given[next(bicubics)],
            ),
        )
        monkeypatch.setattr(np.random, "choice", lambda _operations, _count, replace, p, chosen=chosen: chosen)
        torch.testing.assert_close(mine, pixels(policy(picture(image))), rtol=0, atol=ROUNDING)
        compared += 1
    assert compared > 550


def is_move(name: str) -> bool:
    return name.startswith(("Shear", "Translate", "Rotate"))


def test_timms_magnitudes_and_operations_are_drawn_as_timm_draws_them() -> None:
    """Fifteen operations equally often, half of them applied, magnitudes normal around 9 and cut at 10."""
    count = 20_000
    drawn = TimmRandAugment(facts(16)).draw(draws(count, 16))
    for layer in range(LAYERS):
        counts = np.bincount(drawn.operation[:, layer], minlength=16)
        assert abs(counts[0] / count - 0.5) < 4 * 0.5 / count**0.5
        assert stats.chisquare(counts[1:]).pvalue > 1e-3
        rotations = drawn.factor[drawn.operation[:, layer] == OPERATIONS.index("rotate"), layer].abs() / 3
        assert rotations.max() == 10 and abs((rotations == 10).float().mean() - stats.norm.sf(2)) < 0.02
        uncut = rotations[rotations < 10].numpy()
        assert stats.kstest(uncut, stats.truncnorm(-18, 2, loc=9, scale=0.5).cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", POLICIES)
def test_policies_are_keyed_by_image_epoch_and_seed(name: str) -> None:
    """An image is the same alone, in a batch and in a larger set; another epoch gives others."""
    images, size = pictures(60, channels=3, size=12), 12
    policy = make_policy(AugmentOptions(auto_augment=name), facts(size))
    assert policy is not None
    many, few, next_epoch = (policy.draw(draws(*each, epoch=k)) for *each, k in ((60, 12, 0), (20, 12, 0), (60, 12, 1)))
    whole = many(images, torch.arange(60))
    assert torch.equal(few(images[:20], torch.arange(20)), whole[:20])
    for k in (0, 7, 59):
        assert torch.equal(many(images[k : k + 1], torch.tensor([k])), whole[k : k + 1])
    assert not torch.equal(next_epoch(images, torch.arange(60)), whole)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["randaugment", "ta_wide", "rand-m9-mstd0.5-inc1"])
def test_what_a_gpu_computes_for_all_rows_is_what_a_cpu_computes_for_those_needed(
    name: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work without knowledge of the drawn operations gives the same pixels as work on the rows that drew each."""
    images = pictures(280, channels=channels, size=16)
    options = AugmentOptions(randaugment_n=2) if name == "randaugment" else AugmentOptions(auto_augment=name)
    policy = make_policy(options, facts(16, channels))
    assert policy is not None
    drawn, rows = policy.draw(draws(280, 16)), torch.arange(280)
    expected = drawn(images, rows)
    monkeypatch.setattr("study.training.augmentation.pixels.SYNCHRONOUS_DEVICES", ())
    assert torch.equal(drawn(images, rows), expected)


def test_trivialaugment_draws_all_variants_evenly() -> None:
    """Each of 14 operations x 31 magnitudes x 2 signs comes up equally often (chi-squared)."""
    drawn = TrivialAugment(image_size=8).draw(draws(86_800, 8))
    assert stats.chisquare(np.bincount(drawn.chosen[:, 0], minlength=868)).pvalue > 1e-3
