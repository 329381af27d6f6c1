"""Changed images against what changes them elsewhere (Pillow, torch), and the laws of those made here."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from study.probing.distortions import CORRUPTIONS, Distortion, list_distortions
from study.rng import stream

MEAN = (0.2, 0.4, 0.6)


def draw_images(count: int = 3, size: int = 32, channels: int = 3) -> torch.Tensor:
    """Smooth images, as photographs are."""
    noise = stream("test", "pictures", size).uniform(0, 255, (count, channels, size, size))
    return torch.from_numpy(gaussian_filter(noise, (0, 0, 3, 3)).clip(0, 255).astype(np.uint8) * 2)


def apply(name: str, strength: float, images: torch.Tensor, numbers: list[int] | None = None) -> torch.Tensor:
    found = [one for one in list_distortions(images.shape[-1], MEAN[: images.shape[1]]) if one.label == f"{name}_{strength:g}"]
    (distortion,) = found
    return distortion(images, numbers or list(range(len(images))))


def to_picture(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy().squeeze())


def from_picture(picture: Image.Image) -> np.ndarray:
    return np.atleast_3d(np.asarray(picture)).transpose(2, 0, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("severity", [1, 5])
def test_corruptions_are_those_of_pillow_and_torch(channels, severity):
    """JPEG and pixels as Pillow makes them, contrast as its enhancer (to a gray value) for each channel, blur by its kernel."""
    images = draw_images(channels=channels)
    for image, found in zip(images, apply("jpeg", severity, images), strict=True):
        to_picture(image).save(file := io.BytesIO(), "JPEG", quality=(80, 65, 58, 50, 40)[severity - 1])
        np.testing.assert_array_equal(found, from_picture(Image.open(file)))
    for image, found in zip(images, apply("pixelate", severity, images), strict=True):
        side = int(32 * (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1])
        small = to_picture(image).resize((side, side), Image.Resampling.BOX)
        np.testing.assert_array_equal(found, from_picture(small.resize((32, 32), Image.Resampling.BOX)))
    for image, found in zip(images, apply("contrast", severity, images), strict=True):
        for channel, own in zip(image, found, strict=True):
            enhanced = ImageEnhance.Contrast(to_picture(channel[None])).enhance((0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1])
            np.testing.assert_allclose(own.numpy().astype(int), np.asarray(enhanced).astype(int), atol=1)
    sigma = (0.4, 0.6, 0.7, 0.8, 1.0)[severity - 1]
    weights = torch.exp(-(torch.arange(-4, 5).double() ** 2) / (2 * sigma**2)) * (torch.arange(-4, 5).abs() <= 4 * sigma + 0.5)
    kernel = torch.outer(weights, weights)[None, None] / weights.sum() ** 2
    padded = functional.pad(images.double(), (4, 4, 4, 4), mode="replicate")
    blurred = functional.conv2d(padded, kernel.expand(channels, 1, 9, 9), groups=channels)
    torch.testing.assert_close(apply("gaussian_blur", severity, images).double(), blurred, rtol=0, atol=0.501)


def test_noise_has_its_deviation():
    images = torch.full((8, 3, 64, 64), 128, dtype=torch.uint8)
    found = apply("gaussian_noise", 3, images).double() - 128
    assert abs(found.mean()) < 0.2 and found.std() == pytest.approx(255 * 0.08, rel=0.02)


@pytest.mark.parametrize("size", [8, 28, 32, 224])
def test_shuffled_blocks_are_a_permutation(size):
    """The same blocks in another order, another one for each image; each divisor of the size is a level."""
    images = draw_images(size=size)
    levels = [one.strength for one in list_distortions(size, MEAN) if one.name == "patch_shuffle"]
    assert levels == [k for k in range(2, 17) if size % k == 0]
    for k in levels:
        shuffled = apply("patch_shuffle", k, images)
        for image, found in zip(images, shuffled, strict=True):
            cut = [
                sorted(each[:, y : y + size // k, x : x + size // k].numpy().tobytes() for y in own for x in own)
                for each in (image, found)
                for own in [range(0, size, size // k)]
            ]
            assert cut[0] == cut[1]
    assert not torch.equal(*apply("patch_shuffle", levels[-1], images[:1].expand(2, -1, -1, -1)))


def test_blanked_blocks_have_the_mean_color():
    """A quarter, half and three quarters of the blocks, and nothing else has changed."""
    images = draw_images()
    fill = torch.tensor([51, 102, 153])[:, None, None]
    for share in (0.25, 0.5, 0.75):
        found = apply("occlusion", share, images)
        blank = (found == fill).all(dim=1).reshape(-1, 8, 4, 8, 4).all(dim=4).all(dim=2)  # blocks of 4 pixels
        assert blank.sum(dim=(1, 2)).tolist() == [round(64 * share)] * 3
        kept = ~blank.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None].expand_as(images)
        assert torch.equal(found[kept], images[kept])


def test_shifted_images_move_by_their_pixels():
    """Each image is one of its four neighbors; all four directions occur."""
    images, seen = draw_images(count=32), set()
    for image, found in zip(images, apply("shift", 2, images), strict=True):
        for axis, sign in ((1, 1), (1, -1), (2, 1), (2, -1)):
            inside = (slice(None), *(slice(2, -2),) * 2)
            if torch.equal(torch.roll(image, 2 * sign, dims=axis)[inside], found[inside]):
                seen.add((axis, sign))
                edge = found.select(axis, 0 if sign == 1 else -1)
                assert (edge == torch.tensor([51, 102, 153])[:, None]).all()
    assert len(seen) == 4


def test_an_image_is_changed_alike_in_every_batch():
    """Random numbers are those of the distortion and the image's number, wherever it is in a batch; others differ."""
    images = draw_images()
    for distortion in list_distortions(32, MEAN):
        together = distortion(images, [5, 6, 7])
        assert torch.equal(together[1:2], distortion(images[1:2], [6])), distortion.label
        assert together.dtype == torch.uint8 and together.shape == images.shape
    assert not torch.equal(apply("gaussian_noise", 1, images, [5, 6, 7]), apply("gaussian_noise", 1, images, [6, 7, 8]))


def test_there_are_five_severities_for_small_and_large_images():
    for size in (32, 224):
        listed = list_distortions(size, MEAN)
        assert len({one.label for one in listed}) == len(listed)
        for name in CORRUPTIONS:
            assert [one.strength for one in listed if one.name == name] == [1, 2, 3, 4, 5]
    large = [one for one in list_distortions(224, MEAN) if one.name == "jpeg"]
    assert isinstance(large[0], Distortion) and large[0].change.keywords == {"level": 25}  # ImageNet-C's quality
