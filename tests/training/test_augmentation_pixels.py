"""Laws of augmented pixels: each operation gives what torchvision gives for the same picture in Pillow, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import ImageEnhance, ImageFilter
from pillow_pictures import ROUNDING, picture, pictures, pixels
from scipy import stats

from study.config.options import AugmentOptions
from study.data import DatasetInfo
from study.data.torchvision_schema import declare_missing_operators
from study.training.augmentation import Augmentation
from study.training.augmentation.draws import Draws
from study.training.augmentation.jitter import ORDERS, draw_jitter
from study.training.augmentation.mixing import fill_boxes
from study.training.augmentation.pixels import enlarge_boxes, locate_framed_pixels, move_pixels, smooth

declare_missing_operators()

from torchvision.transforms import RandomErasing, RandomResizedCrop  # noqa: E402  the schemas come first
from torchvision.transforms.v2 import functional as F  # noqa: E402


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


def test_noise_fills_erased_rectangles_and_nothing_else() -> None:
    """With `pixel` an image keeps its pixels outside of its rectangle, and has noise of unit variance inside, as timm's."""
    images = pictures(400, channels=3, size=16)
    options = AugmentOptions(erasing=0.5, erasing_mode="pixel")
    facts = DatasetInfo("set", "0", 16, 3, ("a", "b"), 400, 5, (0.5,) * 3, (0.2,) * 3, val_images=5)
    today = Augmentation(options, facts, seed=0, images=400).epoch(0, device=torch.device("cpu"), layout=torch.channels_last)
    assert today.erasing is not None
    normal, rows = today.normalize(images), torch.arange(400)
    inside = fill_boxes(today.erasing.box, 16).expand_as(normal)
    erased = today.augment_pixels(images, rows)
    assert torch.equal(erased[~inside], normal[~inside]) and erased.is_contiguous(memory_format=torch.channels_last)
    noise = erased[inside].numpy()
    assert stats.kstest(noise, stats.norm.cdf).pvalue > 1e-3
    assert abs(stats.pearsonr(noise[1:], noise[:-1]).statistic) < 4 / len(noise) ** 0.5
    assert torch.equal(today.augment_pixels(images[7:9], rows[7:9]), erased[7:9])


@pytest.mark.parametrize("kind", ["resized_crop", "erasing", "pixel"])
def test_rectangles_are_distributed_as_torchvisions(kind: str) -> None:
    """Area, ratio and place have the distributions of torchvision's own draws (Kolmogorov and Smirnov's test)."""
    size, count = 224, 2000
    draws, image = Draws(seed=0, epoch=0, images=count, size=size), torch.zeros(1, size, size)
    torch.manual_seed(0)
    if kind == "resized_crop":
        boxes = draws.draw_crops(0.3)
        theirs = [RandomResizedCrop.get_params(image, [0.3, 1.0], [3 / 4, 4 / 3]) for _ in range(count)]
    else:
        area, ratio = ((0.02, 0.33), (0.3, 3.3)) if kind == "erasing" else ((0.02, 1 / 3), (0.3, 1 / 0.3))  # torchvision, timm
        boxes = draws.draw_erasing(1.0, "const" if kind == "erasing" else "pixel")
        theirs = [RandomErasing.get_params(image, area, ratio, [0.0])[:4] for _ in range(count)]
    top, bottom, left, right = boxes.T
    y, x, height, width = np.array(theirs, dtype=float).T
    assert stats.ks_2samp((bottom - top) * (right - left), height * width).pvalue > 1e-3
    assert stats.ks_2samp((bottom - top) / (right - left), height / width).pvalue > 1e-3
    assert stats.ks_2samp(top, y).pvalue > 1e-3 and stats.ks_2samp(left, x).pvalue > 1e-3
    assert boxes.min() >= 0 and boxes.max() <= size
