"""Affine maps of images with bilinear or bicubic interpolation, each image by its own, with Pillow's pixels.

As in Pillow, positions and sums are in float64, an output pixel whose center is mapped outside the image is filled, pixels
beyond the borders repeat those at the borders, and results are cut to 0..255 and truncated.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from study.training.augmentation.pixels import change_selected

_Filter = Callable[[list[Tensor], Tensor], Tensor]


def map_affine(images: Tensor, matrix: Tensor, *, bicubic: Tensor, fill: Tensor) -> Tensor:
    """Images uint8 `b c h w` by matrices float64 `b 6` from output to input positions; `bicubic` bool `b`, `fill` uint8 `c`.

    Pillow's `Image.transform(size, AFFINE, matrix, BILINEAR or BICUBIC, fillcolor=fill)`.
    """
    linear = change_selected(~bicubic, images, lambda at: _map(images[at], matrix[at], fill, _blend_linearly, (0, 1)))
    return change_selected(bicubic, linear, lambda at: _map(images[at], matrix[at], fill, _fit_cubic, (-1, 0, 1, 2)))


def _map(images: Tensor, matrix: Tensor, fill: Tensor, interpolate: _Filter, steps: tuple[int, ...]) -> Tensor:
    """The same with one filter, which is given the pixels at `steps` from the upper or left neighbor."""
    batch, channels, size, _ = images.shape
    at = torch.arange(size, device=images.device, dtype=torch.float64) + 0.5
    rows, columns = at.repeat_interleave(size), at.repeat(size)
    a, b, c, d, e, f = (column[:, None] for column in matrix.unbind(1))
    x, y = a * columns + b * rows + c, d * columns + e * rows + f  # `b (h w)`
    inside = (x >= 0) & (x < size) & (y >= 0) & (y < size)
    left, top = (x - 0.5).floor(), (y - 0.5).floor()
    right, down = ((place - 0.5 - first).view(-1, 1) for place, first in ((x, left), (y, top)))  # `(b h w) 1`
    below, beside = ([(first.long() + step).clamp_(0, size - 1) for step in steps] for first in (top, left))
    pixels = images.permute(0, 2, 3, 1).reshape(-1, channels)
    start = torch.arange(batch, device=images.device)[:, None] * size**2

    def read(row: Tensor, column: Tensor) -> Tensor:
        return pixels.index_select(0, (row * size + column + start).flatten()).double()

    mapped = interpolate([interpolate([read(row, column) for column in beside], right) for row in below], down)
    cut = mapped.clamp_(0, 255).to(torch.uint8).view(batch, -1, channels)
    return torch.where(inside[:, :, None], cut, fill).transpose(1, 2).reshape(images.shape)


def _blend_linearly(taps: list[Tensor], share: Tensor) -> Tensor:
    """The line through two taps at `share` between them."""
    first, second = taps
    return first + (second - first) * share


def _fit_cubic(taps: list[Tensor], share: Tensor) -> Tensor:
    """The cubic with Pillow's a = -1 through four taps, at `share` between the second and the third."""
    first, second, third, fourth = taps
    quadratic = 2 * (first - second) + third - fourth
    cubic = second - first - third + fourth
    return second + share * (third - first + share * (quadratic + share * cubic))
