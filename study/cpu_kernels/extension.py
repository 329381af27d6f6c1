"""The compiled kernels as one extension: prepared once per worker, checked against torch, put in place in a run's model."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.backbones.depthwise_conv import DepthwiseConv2d
from study.cpu_kernels.compiler import Unavailable, compiled, private_folder
from study.cpu_kernels.depthwise import SIZES, Backward, Convolution, bound_backward, convolution_with
from study.cpu_kernels.gelu_norm import GeluBatchNorm2d, GeluNorm, bound_gelu_norm, joins

SOURCES = Path(__file__).parent
PLAIN = "plain"
TOLERANCE = 1e-5  # of the largest entry, in the checks against torch; rounding makes up to 2e-6
EPS = 1e-5


@dataclass(frozen=True)
class Extension:
    """The kernels, and their name in execution fingerprints."""

    name: str
    convolution: Convolution
    gelu_norm: GeluNorm


def prepare(environment: Mapping[str, str], *, folder: Path | None = None) -> Extension:
    """The kernels for this machine, compiled if need be and checked against torch; raises Unavailable with the reason."""
    library = compiled(SOURCES, folder=folder or private_folder(), environment=environment)
    try:
        loaded = ctypes.CDLL(str(library.path))
        backward, gelu_norm = bound_backward(loaded), bound_gelu_norm(loaded)
    except (OSError, AttributeError) as error:  # an OpenMP runtime without GOMP_parallel, above all
        raise Unavailable(f"the compiled library doesn't load: {error}") from None
    if not (all(convolves_like_torch(backward, size) for size in SIZES) and norms_like_torch(gelu_norm)):
        raise Unavailable("the compiled kernels' results are not torch's")
    return Extension(f"extension-{library.digest}", convolution_with(backward), gelu_norm)


def put_in_place(model: nn.Module, extension: Extension | None) -> str:
    """Let the model use the kernels where they are faster; returns what the execution fingerprint shall say of it.

    Depthwise convolutions of 5 and more get theirs, and a BatchNorm that follows a GELU computes both. Names of parameters
    and buffers stay as they are.
    """
    if extension is None:
        return PLAIN
    convolutions = [m for m in model.modules() if isinstance(m, DepthwiseConv2d) and m.kernel_size[0] in SIZES]
    for module in convolutions:
        module.convolution = extension.convolution
    norms = [found for module in list(model.modules()) if isinstance(module, nn.Sequential) for found in pairs(module)]
    for parent, activation, norm in norms:
        setattr(parent, norm, GeluBatchNorm2d(getattr(parent, norm), extension.gelu_norm))
        setattr(parent, activation, nn.Identity())
    return extension.name if convolutions or norms else PLAIN


def pairs(sequence: nn.Sequential) -> list[tuple[nn.Sequential, str, str]]:
    """The sequence with the names of each activation and norm in it that can be computed as one."""
    neighbours = pairwise(sequence.named_children())
    return [(sequence, first, second) for (first, activation), (second, norm) in neighbours if joins(activation, norm)]


def waves(*shape: int) -> Tensor:
    """Numbers between -1 and 1 that don't repeat."""
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).sin().view(shape)


def convolves_like_torch(backward: Backward, size: int) -> bool:
    """Whether a small case with every remainder (of lanes, tiles and rows) gives torch's gradients, within rounding."""
    grid = waves(3, 37, 5, 11).contiguous(memory_format=torch.channels_last)
    gradient, weight = grid.flip(0, 2), waves(37, 1, size, size)
    margin = [size // 2] * 2
    expected = torch.ops.aten.convolution_backward(
        gradient, grid, weight, [37], [1, 1], margin, [1, 1], False, [0, 0], 37, [True] * 3
    )
    return agree(backward(grid, gradient, weight, (True, True)), expected)


def norms_like_torch(kernel: GeluNorm) -> bool:
    """Whether a small case with remainders of lanes and of tokens gives torch's results and gradients, within rounding."""
    grid = (4 * waves(3, 37, 5, 11)).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, bias = waves(37).requires_grad_(), waves(74)[37:].requires_grad_()
    gradient = grid.detach().flip(0, 2)
    normed = functional.batch_norm(functional.gelu(grid), None, None, weight, bias, training=True, eps=EPS)
    expected = torch.autograd.grad(normed, (grid, weight, bias), gradient)
    with torch.no_grad():
        ours, mean, _, deviation = kernel.forward(grid, weight, bias, EPS)
        found = kernel.backward(grid, gradient, weight, mean, deviation)
    return agree((ours, *found), (normed.detach(), *expected))


def agree(ours: tuple[Tensor | None, ...], theirs: tuple[Tensor, ...]) -> bool:
    """Whether all tensors are equal within TOLERANCE; a number that isn't one is never equal."""
    return all(
        mine is not None and bool((mine - other).abs().max() <= TOLERANCE * other.abs().max())
        for mine, other in zip(ours, theirs, strict=True)
    )
