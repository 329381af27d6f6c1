"""The compiled gradients of the depthwise convolution as a torch function.

The forward pass is torch's own, which is close to the machine's limit; torch's weight gradient alone takes 5 to 8 times as long
as the whole backward pass here (benchmarks/README.md). With k = 3 torch is as fast, so only larger kernels are replaced.
"""

import ctypes
from collections.abc import Callable
from ctypes import c_int, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

COMPILED_SIZES = (5, 7, 9)

_Gradients = tuple[Tensor | None, Tensor, Tensor | None]
Backward = Callable[[Tensor, Tensor, Tensor, tuple[bool, bool]], _Gradients]
Convolution = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def can_use_kernels(grid: Tensor, weight: Tensor) -> bool:
    """Whether a kernel supports this call: float32 on a CPU, `b d h w` in channels_last, gradients enabled, no autocast."""
    return (
        torch.is_grad_enabled()
        and grid.device.type == "cpu"
        and grid.dtype == weight.dtype == torch.float32
        and grid.is_contiguous(memory_format=torch.channels_last)
        and not torch.is_autocast_enabled("cpu")
    )


def torch_depthwise(grid: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """torch's own depthwise convolution with an odd kernel: grid `b d h w`, weight `d 1 k k`, bias `d` -> `b d h w`."""
    return functional.conv2d(grid, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))


def make_convolution(backward: Backward) -> Convolution:
    """`torch_depthwise`, with gradients by `backward` where it supports the call."""

    def convolution(grid: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not can_use_kernels(grid, weight):
            return torch_depthwise(grid, weight, bias)
        return _Depthwise.apply(backward, grid, weight, bias)  # type: ignore[no-untyped-call]

    return convolution


class _Depthwise(torch.autograd.Function):
    """torch's forward pass with the compiled backward pass, which has no second derivative."""

    @staticmethod
    def forward(context: Any, backward: Backward, grid: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        context.save_for_backward(grid, weight)
        context.compiled = backward
        return torch_depthwise(grid, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[None, Tensor | None, Tensor, Tensor | None]:
        grid, weight = context.saved_tensors
        _, needs_grid, _, needs_bias = context.needs_input_grad
        return None, *context.compiled(grid, gradient, weight, (needs_grid, needs_bias))


def bind_backward(library: ctypes.CDLL) -> Backward:
    """The library's function of grid, gradient, weight, and which of the grid's and the bias's gradients are needed."""
    workspace, kernel = library.depthwise_workspace, library.depthwise_backward
    workspace.argtypes, workspace.restype = [c_int64] * 4 + [c_int], c_int64
    kernel.argtypes, kernel.restype = [c_void_p] * 6 + [c_int64] * 5 + [c_int, c_void_p], c_int

    def backward(grid: Tensor, gradient: Tensor, weight: Tensor, needed: tuple[bool, bool]) -> _Gradients:
        (images, channels, height, width), size, threads = grid.shape, weight.shape[-1], torch.get_num_threads()
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        grid_gradient = torch.empty_like(grid) if needed[0] else None
        weight_gradient = torch.empty_like(weight, memory_format=torch.contiguous_format)
        bias_gradient = grid.new_empty(channels) if needed[1] else None
        scratch = grid.new_empty(workspace(height, width, channels, size, threads))
        tensors = (grid, gradient, weight.contiguous(), grid_gradient, weight_gradient, bias_gradient)
        pointers = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
        status = kernel(*pointers, images, height, width, channels, size, threads, scratch.data_ptr())
        assert status == 0, f"no kernel of size {size} is compiled"
        return grid_gradient, weight_gradient, bias_gradient

    return backward
