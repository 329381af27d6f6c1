"""The compiled gradients of the depthwise convolution in torch's terms, for modules that `put_in_place` finds suitable.

The forward pass is torch's own, which is near what the machine can do; its weight gradient takes 5 to 8 times what all of the
backward pass takes here (benchmarks/README.md). With k = 3 torch's is as fast, so only larger kernels are taken over.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from ctypes import c_int, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.backbones.depthwise import DepthwiseConv2d
from study.kernels.compiling import Library, Unavailable, compiled, private_folder

SOURCE = Path(__file__).with_name("depthwise.cpp")
SIZES = (5, 7, 9)
PLAIN = "plain"
TOLERANCE = 1e-5  # of the largest entry, in the check against torch; rounding makes about 3e-7

Gradients = tuple[Tensor | None, Tensor, Tensor | None]
Backward = Callable[[Tensor, Tensor, Tensor, tuple[bool, bool]], Gradients]
Convolution = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class DepthwiseKernel:
    """A depthwise convolution (grid `b d h w`, weight `d 1 k k`, bias `d` -> `b d h w`) and its name in fingerprints."""

    name: str
    convolution: Convolution


def prepare(environment: Mapping[str, str], *, folder: Path | None = None) -> DepthwiseKernel:
    """The kernel for this machine, compiled if need be and checked against torch; raises Unavailable with the reason."""
    library = compiled(SOURCE, folder=folder or private_folder(), environment=environment)
    try:
        backward = bound(library)
    except (OSError, AttributeError) as error:  # an OpenMP runtime without GOMP_parallel, above all
        raise Unavailable(f"the compiled library doesn't load: {error}") from None
    if not all(agrees_with_torch(backward, size) for size in SIZES):
        raise Unavailable("the compiled kernel's results are not torch's")
    return DepthwiseKernel(f"extension-{library.digest}", convolution_with(backward))


def put_in_place(model: nn.Module, kernel: DepthwiseKernel | None) -> str:
    """Let the model's depthwise convolutions use the kernel; returns what the execution fingerprint shall say of them."""
    suited = [m for m in model.modules() if isinstance(m, DepthwiseConv2d) and m.kernel_size[0] in SIZES]
    if kernel is None or not suited:
        return PLAIN
    for module in suited:
        module.convolution = kernel.convolution
    return kernel.name


def suits(grid: Tensor, weight: Tensor) -> bool:
    """Whether the kernel knows this case: float32 on a CPU, channels last, and gradients wanted."""
    return (
        torch.is_grad_enabled()
        and grid.device.type == "cpu"
        and grid.dtype == weight.dtype == torch.float32
        and grid.is_contiguous(memory_format=torch.channels_last)
        and not torch.is_autocast_enabled("cpu")
    )


def plain(grid: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """torch's own depthwise convolution with an odd kernel."""
    return functional.conv2d(grid, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))


def convolution_with(backward: Backward) -> Convolution:
    """A depthwise convolution whose gradients `backward` computes where it can."""

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


def bound(library: Library) -> Backward:
    """The library's function in torch's terms; raises OSError or AttributeError where it can't be loaded."""
    loaded = ctypes.CDLL(str(library.path))
    workspace, kernel = loaded.depthwise_workspace, loaded.depthwise_backward
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


def agrees_with_torch(backward: Backward, size: int) -> bool:
    """Whether a small case with every remainder (of lanes, tiles and rows) gives torch's gradients, within rounding."""
    waves = torch.arange(3 * 37 * 5 * 11, dtype=torch.float32).sin().view(3, 37, 5, 11)
    grid = waves.contiguous(memory_format=torch.channels_last)
    gradient, weight = grid.flip(0, 2), waves.flatten()[: 37 * size**2].view(37, 1, size, size)
    margin = [size // 2] * 2
    expected = torch.ops.aten.convolution_backward(
        gradient, grid, weight, [37], [1, 1], margin, [1, 1], False, [0, 0], 37, [True] * 3
    )
    pairs = zip(backward(grid, gradient, weight, (True, True)), expected, strict=True)
    return all(bool((ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max()) for ours, theirs in pairs)
