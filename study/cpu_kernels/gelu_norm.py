"""BatchNorm of GELU as one compiled operator, forward and backward, in place of torch's two.

Both are memory-bound. One operator reads or writes the grid 9 times in a step instead of 15 and saves one tensor for the
backward pass instead of two; sums are in float64, so it is closer to the exact result than torch's (tests/cpu_kernels).
"""

import ctypes
from collections.abc import Callable
from ctypes import c_float, c_int, c_int64, c_void_p
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.cpu_kernels.depthwise import can_use_kernels


@dataclass(frozen=True)
class GeluNorm:
    """The library's two functions on tensors.

    `forward`: grid `b d h w`, weight, bias `d`, eps -> normed grid, and the batch's mean, variance and 1 / deviation `d`.
    `backward`: grid, gradient, weight, mean and 1 / deviation -> gradients of grid, weight and bias.
    """

    forward: Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor, Tensor, Tensor]]
    backward: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]

    def __deepcopy__(self, memo: object) -> Self:
        return self  # copies of a model share the kernel


class GeluBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm of GELU: b d h w -> b d h w, with the parameters and statistics of `norm`, under the same names.

    In evaluation, and for tensors that the kernel doesn't support, it computes torch's GELU and torch's norm.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, norm: nn.BatchNorm2d, kernel: GeluNorm) -> None:
        assert is_fusable(nn.GELU(), norm)
        super().__init__(norm.num_features, eps=norm.eps, momentum=norm.momentum)
        self._parameters.update(norm._parameters)
        self._buffers.update(norm._buffers)
        self.train(norm.training)
        self.kernel = kernel

    def forward(self, grid: Tensor) -> Tensor:
        tokens = grid.numel() // self.num_features
        if not self.training or tokens < 2 or not can_use_kernels(grid, self.weight):
            return super().forward(functional.gelu(grid))
        normed, mean, variance = _GeluNorm.apply(self.kernel, grid, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (tokens / (tokens - 1)), self.momentum)
        return normed


def is_fusable(activation: nn.Module, norm: nn.Module) -> bool:
    """Whether the operator can replace an activation and the norm after it: exact GELU, and BatchNorm with torch's defaults."""
    return (
        type(activation) is nn.GELU
        and activation.approximate == "none"
        and type(norm) is nn.BatchNorm2d
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
    )


class _GeluNorm(torch.autograd.Function):
    """The compiled operator, which has no second derivative; the batch's mean and variance are not differentiated."""

    @staticmethod
    def forward(
        context: Any, kernel: GeluNorm, grid: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        normed, mean, variance, deviation = kernel.forward(grid, weight, bias, eps)
        context.save_for_backward(grid, weight, mean, deviation)
        context.kernel = kernel
        context.mark_non_differentiable(mean, variance)
        return normed, mean, variance

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, gradient: Tensor, *_: Tensor) -> tuple[None, Tensor, Tensor, Tensor, None]:
        grid, weight, mean, deviation = context.saved_tensors
        return None, *context.kernel.backward(grid, gradient, weight, mean, deviation), None


def bind_gelu_norm(library: ctypes.CDLL) -> GeluNorm:
    """The library's functions on tensors."""
    workspace, compiled_forward = library.gelu_norm_workspace, library.gelu_norm_forward
    compiled_backward = library.gelu_norm_backward
    workspace.argtypes, workspace.restype = [c_int64, c_int], c_int64
    compiled_forward.argtypes = [c_void_p] * 3 + [c_float] + [c_void_p] * 4 + [c_int64] * 2 + [c_int, c_void_p]
    compiled_backward.argtypes = [c_void_p] * 8 + [c_int64] * 2 + [c_int, c_void_p]
    compiled_forward.restype = compiled_backward.restype = None

    def forward(grid: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        channels, threads = len(weight), torch.get_num_threads()
        scratch = grid.new_empty(workspace(channels, threads))
        outputs = torch.empty_like(grid), *(grid.new_empty(channels) for _ in range(3))
        normed, mean, variance, deviation = outputs
        read, written = ([tensor.data_ptr() for tensor in tensors] for tensors in ((grid, weight, bias), outputs))
        compiled_forward(*read, eps, *written, grid.numel() // channels, channels, threads, scratch.data_ptr())
        return normed, mean, variance, deviation

    def backward(
        grid: Tensor, gradient: Tensor, weight: Tensor, mean: Tensor, deviation: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        channels, threads = len(weight), torch.get_num_threads()
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        scratch = grid.new_empty(workspace(channels, threads))
        gradients = torch.empty_like(grid), torch.empty_like(weight), torch.empty_like(weight)
        pointers = [tensor.data_ptr() for tensor in (grid, gradient, weight, mean, deviation, *gradients)]
        compiled_backward(*pointers, grid.numel() // channels, channels, threads, scratch.data_ptr())
        return gradients

    return GeluNorm(forward, backward)
