"""Which tensors the compiled kernels support; torch's operators compute all others."""

from __future__ import annotations

import torch
from torch import Tensor


def can_use_kernels(grid: Tensor, weight: Tensor) -> bool:
    """Whether a kernel supports this call: float32 on a CPU, `b d h w` in channels_last, gradients enabled, no autocast."""
    return (
        torch.is_grad_enabled()
        and grid.device.type == "cpu"
        and grid.dtype == weight.dtype == torch.float32
        and grid.is_contiguous(memory_format=torch.channels_last)
        and not torch.is_autocast_enabled("cpu")
    )
