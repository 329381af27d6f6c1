"""Moving and blending the pixels of uint8 images `b c h w`, with parameters per image.

Each function gives Pillow's pixels exactly, as the recipes that are reproduced here were trained on them. All sums
are of whole numbers, and what is in floating point is one multiplication and one addition per pixel, so that the
result for an image is the same in every batch.
"""

from collections.abc import Callable

import torch
from torch import Tensor

GRAY_WEIGHTS = (19595, 38470, 7471)  # ITU-R 601-2 luma in 1/65536, as in Pillow's convert("L")

SYNCHRONOUS_DEVICES = ("cpu",)


def change_selected(chosen: Tensor, images: Tensor, change: Callable[[Tensor | slice], Tensor]) -> Tensor:
    """`images` `b ...` with the rows that are `chosen` (bool `b`) replaced by `change(rows)`.

    On a CPU no more work is done than needed. On a GPU the host can't know the rows without waiting for the device.
    """
    if images.device.type not in SYNCHRONOUS_DEVICES:
        return torch.where(chosen.view(-1, *[1] * (images.ndim - 1)), change(slice(None)), images)
    rows = chosen.nonzero().squeeze(1)
    return images.index_copy(0, rows, change(rows)) if len(rows) else images


def move_pixels(images: Tensor, source: Tensor) -> Tensor:
    """Images whose pixel k (row-major) is the pixel `source[:, k]` of their own, black where that is negative.

    `source` is int64 `b (h w)`.
    """
    at = source.clamp(min=0)[:, None].expand(-1, images.shape[1], -1)
    inside = (source >= 0)[:, None]
    return images.flatten(2).gather(2, at).mul_(inside).view_as(images)


def locate_framed_pixels(framing: Tensor, size: int) -> Tensor:
    """The source of each pixel of images that are cropped, then flipped, int64 `b (h w)`, -1 for outside.

    `framing` is int64 `b 3`. torchvision's `RandomCrop(size, padding=crop)`, black outside, and a flip from left to right.
    """
    at = torch.arange(size, device=framing.device)
    down, right, flipped = (column[:, None] for column in framing.unbind(1))
    y = at + down
    x = torch.where(flipped == 1, size - 1 - at, at) + right
    outside = ((y < 0) | (y >= size))[:, :, None] | ((x < 0) | (x >= size))[:, None, :]
    return (y[:, :, None] * size + x[:, None, :]).masked_fill(outside, -1).flatten(1)


def enlarge_boxes(images: Tensor, box: Tensor) -> Tensor:
    """Each image's rectangle (top, bottom, left, right) `b 4`, stretched to the whole image by linear interpolation.

    As torchvision's `resized_crop` with bilinear interpolation: pixels outside the rectangle are not used.
    """
    top, bottom, left, right = box.unbind(1)
    rows = _interpolate(images.float(), top, bottom, dim=2)
    return _interpolate(rows, left, right, dim=3).round_().to(torch.uint8)


def _interpolate(images: Tensor, start: Tensor, end: Tensor, *, dim: int) -> Tensor:
    """Images float `b c h w` whose stretch from `start` to `end` (`b`) along `dim` fills that dimension."""
    size = images.shape[dim]
    length = (end - start)[:, None]
    at = torch.arange(size, device=images.device, dtype=torch.float64)
    place = ((at + 0.5) * length / size - 0.5).clamp_(min=0)
    low = place.floor().long()
    high = torch.minimum(low + 1, length - 1)
    shape = [len(images), 1, 1, 1]
    shape[dim] = size
    first, second = (images.gather(dim, (k + start[:, None]).view(shape).expand_as(images)) for k in (low, high))
    return (second - first).mul_((place - low).float().view(shape)).add_(first)


def blend(degenerate: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """`degenerate + factor x (images - degenerate)`, cut to 0..255 and truncated; `factor` is float32 `b`.

    `degenerate` holds whole numbers and has any shape that broadcasts to `b c h w`. Pillow's Image.blend.
    """
    base = degenerate.float()
    mixed = (images.float() - base).mul_(factor.view(-1, 1, 1, 1)).add_(base)
    return mixed.clamp_(0, 255).to(torch.uint8)


def to_gray(images: Tensor) -> Tensor:
    """The luma of images as whole numbers, int32 `b 1 h w`; of one channel, that channel."""
    if images.shape[1] == 1:
        return images.int()
    red, green, blue = (images[:, k : k + 1].int() * weight for k, weight in enumerate(GRAY_WEIGHTS))
    return (red + green + blue + 32768) >> 16


def compute_mean_level(levels: Tensor) -> Tensor:
    """The mean of each image's `levels` `b 1 h w`, rounded half up to a whole number, int64 `b 1 1 1`."""
    pixels = levels.shape[2] * levels.shape[3]
    return (2 * levels.sum(dim=(1, 2, 3), keepdim=True) + pixels).div(2 * pixels, rounding_mode="floor")


def smooth(images: Tensor) -> Tensor:
    """Images under Pillow's SMOOTH filter (3x3 of ones, 5 in the center, over 13), their outermost pixels kept."""
    wide = images.to(torch.int16)
    rows = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
    box = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    center = wide[:, :, 1:-1, 1:-1]
    result = images.clone()
    # Rounded to the nearest: s / 13 is never halfway between two whole numbers.
    result[:, :, 1:-1, 1:-1] = (2 * (box + 4 * center) + 13).div(26, rounding_mode="floor").to(torch.uint8)
    return result


def make_autocontrast_table(images: Tensor) -> Tensor:
    """Per channel the table that spreads its values over 0..255, uint8 `b c 256`. Pillow's ImageOps.autocontrast."""
    low, high = (end.double()[..., None] for end in torch.aminmax(images.flatten(2), dim=2))
    values = torch.arange(256, dtype=torch.float64, device=images.device)
    span = (high - low).clamp(min=1)
    scale = torch.full_like(span, 255).div_(span)  # 255 / span would be 255 x (1 / span): another last bit
    spread = (values * scale).add_(-low * scale).clamp_(0, 255)
    return torch.where(high > low, spread, values).to(torch.uint8)


def make_equalize_table(images: Tensor) -> Tensor:
    """Per channel the table that flattens its histogram, uint8 `b c 256`. Pillow's ImageOps.equalize."""
    flat = images.flatten(2)
    batch, channels, pixels = flat.shape
    row = torch.arange(batch * channels, device=images.device).view(batch, channels, 1) * 256
    histogram = torch.zeros(batch * channels * 256, dtype=torch.int64, device=images.device)
    histogram.scatter_add_(0, (flat + row).flatten(), torch.ones_like(histogram[:1]).expand(flat.numel()))
    histogram = histogram.view(batch, channels, 256)
    brightest = flat.amax(dim=2, keepdim=True).long()
    step = (pixels - histogram.gather(2, brightest)).div(255, rounding_mode="floor")
    below = histogram.cumsum(dim=2) - histogram  # pixels darker than each value
    table = (below + step // 2).div(step.clamp(min=1), rounding_mode="floor").clamp_(max=255)
    unchanged = torch.arange(256, device=images.device)
    return torch.where(step > 0, table, unchanged).to(torch.uint8)
