"""The memory layout of a model's images and kernels, chosen by its layers.

Rule: a model that convolves over its grid of tokens (a kernel larger than 1 that isn't a patch embedding's) trains in
channels_last, every other in torch's contiguous layout, unless variants were measured on the device at hand and another was
faster (`python -m study.benchmark --variants`). Measured on one core of an AVX-512 Xeon, fp32, forward and backward, batch 128:
ConvMixer-48/4 k5 on 8x8 digits 1.7x (patch 1), 2.1x (2) and 2.9x (4) faster in channels_last.
"""

import torch
from torch import Tensor, nn

from study.config.options import Layout

LAYOUT_NAMES: dict[torch.memory_format, Layout] = {torch.contiguous_format: "contiguous", torch.channels_last: "channels_last"}
"""Names in the execution fingerprint."""
MEMORY_FORMATS = {name: layout for layout, name in LAYOUT_NAMES.items()}


def choose_memory_format(model: nn.Module) -> torch.memory_format:
    """The layout that `model` trains in, unless another was measured to be faster."""
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    mixes_positions = any(max(c.kernel_size) > 1 and c.stride != c.kernel_size for c in convolutions)
    return torch.channels_last if mixes_positions else torch.contiguous_format


def to_memory_format(images: Tensor, layout: torch.memory_format) -> Tensor:
    """Images `b c h w` in `layout`, with exactly its strides; a copy only where they are in another layout.

    channels_last is ambiguous for images of one channel, and convolutions choose by the strides: with the other layout's
    strides the whole stem is computed in that one (digits, ConvMixer-112/2 p1: a step takes 1.2 times as long).
    """
    found = images.contiguous(memory_format=layout)
    if layout is torch.contiguous_format:
        return found
    _, c, h, w = images.shape
    return found.as_strided(images.shape, (h * w * c, 1, w * c, c))
