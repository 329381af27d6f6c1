"""Which tensors the compiled kernels know; all others are torch's."""

from __future__ import annotations

import torch
from torch import Tensor


def suits(grid: Tensor, weight: Tensor) -> bool:
    """Whether this is a case for a kernel: float32 on a CPU, `b d h w` in channels_last, and gradients wanted."""
    return (
        torch.is_grad_enabled()
        and grid.device.type == "cpu"
        and grid.dtype == weight.dtype == torch.float32
        and grid.is_contiguous(memory_format=torch.channels_last)
        and not torch.is_autocast_enabled("cpu")
    )
