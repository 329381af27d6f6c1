"""The depthwise convolution: the token mixer of ConvMixer and ConvNeXt, one filter per feature."""

from __future__ import annotations

from torch import nn


class DepthwiseConv2d(nn.Conv2d):
    """Each feature is convolved with its own k x k filter, zeros around the grid: b d h w -> b d h w."""

    def __init__(self, dim: int, kernel_size: int) -> None:
        super().__init__(dim, dim, kernel_size, padding="same", groups=dim)
