"""Laws of augmented pixels: each operation gives what torchvision gives for the same picture in Pillow, bit by bit."""

from __future__ import annotations

import itertools
import platform

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter
from scipy import stats
from torch import Tensor

from study.data.torchvision_schema import declare_missing_operators
from study.training.augmentation.draws import Draws
from study.training.augmentation.jitter import ORDERS, draw_jitter
from study.training.augmentation.mixing import fill_boxes
from study.training.augmentation.pixels import enlarge_boxes, locate_framed_pixels, move_pixels, smooth
from study.training.augmentation.randaugment import BINS, OPERATIONS, SIGNS, make_randaugment

declare_missing_operators()

from torchvision.transforms import InterpolationMode, RandomErasing, RandomResizedCrop, autoaugment  # noqa: E402  the schemas come first
from torchvision.transforms.v2 import functional as F  # noqa: E402

ROUNDING = 0 if platform.machine() in ("x86_64", "AMD64") else 1  # elsewhere Pillow's blend may be one fused operation

TORCHVISION_NAMES = {
    "identity": "Identity",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
    "rotate": "Rotate",
    "brightness": "Brightness",
    "color": "Color",
    "contrast": "Contrast",
    "sharpness": "Sharpness",
    "posterize": "Posterize",
    "solarize": "Solarize",
    "autocontrast": "AutoContrast",
    "equalize": "Equalize",
}


def pictures(count: int, *, channels: int, size: int) -> Tensor:
    """Smooth, noisy, dark, bright and constant pictures, uint8 `count c size size`."""
    random = np.random.default_rng(5)
    noise = random.integers(0, 256, (count, channels, size, size))
    slope = np.linspace(0, 255, size)[None, None, None] * random.random((count, channels, 1, 1))
    span = random.integers(1, 256, (count, 1, 1, 1))
    kinds = [noise, slope + noise // 16, noise % span, 255 - noise % span, noise[:, :, :1, :1] + 0 * noise]
    mixed = np.stack([np.clip(kinds[k % len(kinds)][k], 0, 255) for k in range(count)])
    return torch.from_numpy(mixed.astype(np.uint8))


def picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy())


def pixels(one: Image.Image) -> Tensor:
    array = np.asarray(one)
    return torch.from_numpy(np.atleast_3d(array).transpose(2, 0, 1).copy())


def torchvision_operation(image: Tensor, name: str, *, magnitude: int, sign: int) -> Tensor:
    """What torchvision's own RandAugment does to a Pillow picture for this operation."""
    policy = autoaugment.RandAugment(num_ops=1, magnitude=magnitude, num_magnitude_bins=BINS)
    magnitudes, signed = policy._augmentation_space(BINS, tuple(image.shape[1:]))[TORCHVISION_NAMES[name]]
    strength = float(magnitudes[magnitude]) if magnitudes.ndim else 0.0
    return pixels(
        autoaugment._apply_op(
            picture(image),
            TORCHVISION_NAMES[name],
            sign * strength if signed else strength,
            interpolation=InterpolationMode.NEAREST,
            fill=None,
        )
    )


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(("size", "channels"), [(32, 3), (28, 1), (9, 3)])
def test_an_operation_of_randaugment_gives_the_pixels_of_torchvision_on_pillow(name: str, size: int, channels: int) -> None:
    """Every operation, sign and magnitude equals torchvision's RandAugment on the same Pillow picture exactly."""
    images = pictures(10, channels=channels, size=size)
    for magnitude, (k, sign) in itertools.product((0, 1, 9, 12, 23, 30), enumerate(SIGNS)):
        variant = torch.full((len(images),), OPERATIONS.index(name) * len(SIGNS) + k)
        ours = make_randaugment(magnitude, size)(images, variant)
        theirs = [torchvision_operation(image, name, magnitude=magnitude, sign=sign) for image in images]
        torch.testing.assert_close(ours, torch.stack(theirs), rtol=0, atol=ROUNDING)


def test_a_drawn_magnitude_of_zero_changes_nothing_but_posterize_and_tables() -> None:
    """At magnitude 0 the moves, blends and posterize are the identity: what the paper calls no distortion."""
    images = pictures(10, channels=3, size=16)
    for name in OPERATIONS:
        if name in ("solarize", "autocontrast", "equalize"):
            continue  # these have no magnitude of their own, or invert the brightest value
        variant = torch.full((len(images),), OPERATIONS.index(name) * len(SIGNS))
        assert torch.equal(make_randaugment(0, 16)(images, variant), images), name


def test_smoothing_is_pillows() -> None:
    """The integer filter equals Pillow's SMOOTH, which sharpness blends with."""
    for image in pictures(10, channels=3, size=17):
        assert torch.equal(smooth(image[None])[0], pixels(picture(image).filter(ImageFilter.SMOOTH)))


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_is_torchvisions_on_pillow_in_the_drawn_order(channels: int) -> None:
    """Every order of brightness, contrast and saturation with its drawn factors equals Pillow's, step by step."""
    images = pictures(30, channels=channels, size=12)
    jitter = draw_jitter(Draws(seed=1, epoch=2, images=len(images), size=12), 0.4)
    assert len(np.unique(jitter.order.numpy(), axis=0)) == len(ORDERS)
    assert 0.6 <= jitter.factors.min() < 0.7 and 1.3 < jitter.factors.max() <= 1.4
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for image, ours, order, factors in zip(
        images, jitter(images, torch.arange(len(images))), jitter.order, jitter.factors, strict=True
    ):
        theirs = picture(image)
        for operation, factor in zip(order, factors, strict=True):
            theirs = enhancers[operation](theirs).enhance(float(factor))
        torch.testing.assert_close(ours, pixels(theirs), rtol=0, atol=ROUNDING)


def test_crop_and_flip_are_torchvisions() -> None:
    """A frame is torchvision's pad, crop and horizontal flip of the same image; all places and both sides are drawn."""
    images = pictures(400, channels=3, size=10)
    drawn = Draws(seed=0, epoch=0, images=len(images), size=10).draw_framing(crop=2, flip=True)
    assert drawn is not None
    framing = torch.from_numpy(drawn)
    assert len(framing.unique(dim=0)) == 5 * 5 * 2
    for image, ours, (down, right, flipped) in zip(
        images, move_pixels(images, locate_framed_pixels(framing, 10)), framing.tolist(), strict=True
    ):
        theirs = F.crop(F.pad(image, [2]), 2 + down, 2 + right, 10, 10)
        assert torch.equal(ours, F.horizontal_flip(theirs) if flipped else theirs)


def test_an_erased_rectangle_is_torchvisions_erase_of_the_drawn_area() -> None:
    """Erased pixels are those of torchvision's erase; areas and ratios fill the published ranges and no image is lost."""
    size, images = 32, 4000
    boxes = Draws(seed=0, epoch=0, images=images, size=size).draw_erasing(0.25)
    height, width = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    erased = height * width > 0
    assert abs(erased.mean() - 0.25) < 3 * np.sqrt(0.25 * 0.75 / images)
    area, ratio = (height * width)[erased] / size**2, (height / np.maximum(width, 1))[erased]
    assert 0.015 < area.min() < 0.03 and 0.3 < area.max() < 0.345
    assert ratio.min() > 0.25 and ratio.max() < 4.5
    assert boxes.min() >= 0 and boxes.max() <= size
    mask = fill_boxes(torch.from_numpy(boxes[:50]), size)
    for (top, bottom, left, right), ours in zip(boxes[:50].tolist(), mask, strict=True):
        theirs = F.erase(torch.zeros(1, size, size), top, left, bottom - top, right - left, torch.ones(1))
        assert torch.equal(ours, theirs.bool())


def test_a_resized_crop_is_torchvisions_of_the_drawn_rectangle() -> None:
    """Enlarged rectangles equal torchvision's bilinear resized_crop to one level; the whole image stays as it is."""
    size = 20
    images = pictures(60, channels=3, size=size)
    boxes = torch.from_numpy(Draws(seed=0, epoch=0, images=len(images), size=size).draw_crops(0.08))
    for image, (top, bottom, left, right), ours in zip(images, boxes.tolist(), enlarge_boxes(images, boxes), strict=True):
        theirs = F.resized_crop(image, top, left, bottom - top, right - left, [size, size])
        assert (ours.int() - theirs.int()).abs().max() <= 1
    whole = torch.tensor([0, size, 0, size]).expand(len(images), 4)
    assert torch.equal(enlarge_boxes(images, whole), images)


@pytest.mark.parametrize("kind", ["resized_crop", "erasing"])
def test_rectangles_are_distributed_as_torchvisions(kind: str) -> None:
    """Area, ratio and place have the distributions of torchvision's own draws (Kolmogorov and Smirnov's test)."""
    size, count = 224, 2000
    draws, image = Draws(seed=0, epoch=0, images=count, size=size), torch.zeros(1, size, size)
    torch.manual_seed(0)
    if kind == "resized_crop":
        boxes = draws.draw_crops(0.3)
        theirs = [RandomResizedCrop.get_params(image, [0.3, 1.0], [3 / 4, 4 / 3]) for _ in range(count)]
    else:
        boxes = draws.draw_erasing(1.0)
        theirs = [RandomErasing.get_params(image, (0.02, 0.33), (0.3, 3.3), [0.0])[:4] for _ in range(count)]
    top, bottom, left, right = boxes.T
    y, x, height, width = np.array(theirs, dtype=float).T
    assert stats.ks_2samp((bottom - top) * (right - left), height * width).pvalue > 1e-3
    assert stats.ks_2samp((bottom - top) / (right - left), height / width).pvalue > 1e-3
    assert stats.ks_2samp(top, y).pvalue > 1e-3 and stats.ks_2samp(left, x).pvalue > 1e-3
    assert boxes.min() >= 0 and boxes.max() <= size


@pytest.mark.parametrize("channels", [1, 3])
def test_what_a_gpu_computes_for_all_rows_is_what_a_cpu_computes_for_those_needed(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work without knowledge of the drawn operations gives the same pixels as work on the rows that drew each."""
    images = pictures(280, channels=channels, size=16)
    variants = torch.arange(len(images)) % (len(OPERATIONS) * len(SIGNS))
    expected = make_randaugment(12, 16)(images, variants)
    monkeypatch.setattr("study.training.augmentation.pixels.SYNCHRONOUS_DEVICES", ())
    assert torch.equal(make_randaugment(12, 16)(images, variants), expected)
