"""The compiled gradients of the depthwise convolution in torch's terms.

The forward pass is torch's own, which is near what the machine can do; its weight gradient alone takes 5 to 8 times what all
of the backward pass takes here (benchmarks/README.md). With k = 3 torch's is as fast, so only larger kernels are taken over.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_int, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from study.cpu_kernels.applicability import suits

SIZES = (5, 7, 9)

Gradients = tuple[Tensor | None, Tensor, Tensor | None]
Backward = Callable[[Tensor, Tensor, Tensor, tuple[bool, bool]], Gradients]
Convolution = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def plain(grid: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """torch's own depthwise convolution with an odd kernel: grid `b d h w`, weight `d 1 k k`, bias `d` -> `b d h w`."""
    return functional.conv2d(grid, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))


def convolution_with(backward: Backward) -> Convolution:
    """`plain`, with gradients that `backward` computes where it can."""

    def convolution(grid: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not suits(grid, weight):
            return plain(grid, weight, bias)
        convolved: Tensor = _Depthwise.apply(backward, grid, weight, bias)  # type: ignore[no-untyped-call]
        return convolved

    return convolution


class _Depthwise(torch.autograd.Function):
    """torch's forward pass with the compiled backward pass, which has no second derivative."""

    @staticmethod
    def forward(context: Any, backward: Backward, grid: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        context.save_for_backward(grid, weight)
        context.compiled = backward
        return plain(grid, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[None, Tensor | None, Tensor, Tensor | None]:
        grid, weight = context.saved_tensors
        _, wants_grid, _, wants_bias = context.needs_input_grad
        return None, *context.compiled(grid, gradient, weight, (wants_grid, wants_bias))


def bound_backward(library: ctypes.CDLL) -> Backward:
    """The library's function in torch's terms: grid, gradient, weight, which of grid's and bias's gradients are wanted."""
    workspace, kernel = library.depthwise_workspace, library.depthwise_backward
    workspace.argtypes, workspace.restype = [c_int64] * 4 + [c_int], c_int64
    kernel.argtypes, kernel.restype = [c_void_p] * 6 + [c_int64] * 5 + [c_int, c_void_p], c_int

    def backward(grid: Tensor, gradient: Tensor, weight: Tensor, wanted: tuple[bool, bool]) -> Gradients:
        (images, channels, height, width), size, threads = grid.shape, weight.shape[-1], torch.get_num_threads()
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        for_grid = torch.empty_like(grid) if wanted[0] else None
        for_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)
        for_bias = grid.new_empty(channels) if wanted[1] else None
        scratch = grid.new_empty(workspace(height, width, channels, size, threads))
        tensors = (grid, gradient, weight.contiguous(), for_grid, for_weight, for_bias)
        at = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
        status = kernel(*at, images, height, width, channels, size, threads, scratch.data_ptr())
        assert status == 0, f"no kernel of size {size} is compiled in"
        return for_grid, for_weight, for_bias

    return backward
