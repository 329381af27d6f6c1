"""The depthwise convolution: the token mixer of ConvMixer and ConvNeXt, one filter per feature."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class DepthwiseConv2d(nn.Conv2d):
    """Each feature is convolved with its own k x k filter, zeros around the grid: b d h w -> b d h w.

    `convolution` (grid, weight, bias -> grid) may be set to another implementation; None is torch's.
    """

    convolution: Callable[[Tensor, Tensor, Tensor | None], Tensor] | None = None

    def __init__(self, dim: int, kernel_size: int) -> None:
        super().__init__(dim, dim, kernel_size, padding="same", groups=dim)

    def forward(self, grid: Tensor) -> Tensor:
        if self.convolution is None:
            return super().forward(grid)
        return self.convolution(grid, self.weight, self.bias)
