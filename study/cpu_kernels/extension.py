"""The compiled kernels as one extension: loaded once per worker, checked against torch, installed in a run's model."""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.backbones.token_mixers import DepthwiseConv2d
from study.cpu_kernels.compiler import KernelsUnavailable, compile_library, make_private_folder
from study.cpu_kernels.depthwise import COMPILED_SIZES, Backward, Convolution, bind_backward, make_convolution
from study.cpu_kernels.gelu_norm import GeluBatchNorm2d, GeluNorm, bind_gelu_norm, is_fusable

SOURCES = Path(__file__).parent
NO_KERNELS = "plain"  # in execution fingerprints
_TOLERANCE = 1e-5  # of the largest entry, in the checks against torch; rounding makes up to 2e-6
_EPS = 1e-5


@dataclass(frozen=True)
class Extension:
    """The kernels, and their name in execution fingerprints."""

    name: str
    convolution: Convolution
    gelu_norm: GeluNorm


def load_extension(environment: Mapping[str, str], *, folder: Path | None = None) -> Extension:
    """Compile if necessary, load and check the kernels for this machine; raises KernelsUnavailable with the reason."""
    library = compile_library(SOURCES, folder=folder or make_private_folder(), environment=environment)
    try:
        loaded = ctypes.CDLL(str(library.path))
        backward, gelu_norm = bind_backward(loaded), bind_gelu_norm(loaded)
    except (OSError, AttributeError) as error:  # most often an OpenMP runtime without GOMP_parallel
        raise KernelsUnavailable(f"the compiled library doesn't load: {error}") from None
    if not (all(is_convolution_correct(backward, size) for size in COMPILED_SIZES) and is_gelu_norm_correct(gelu_norm)):
        raise KernelsUnavailable("the compiled kernels' results differ from torch's")
    return Extension(f"extension-{library.digest}", make_convolution(backward), gelu_norm)


def install_kernels(model: nn.Module, extension: Extension | None) -> str:
    """Let the model use the kernels where they are faster; returns their name in the execution fingerprint.

    Depthwise convolutions of 5 and larger get theirs, and a BatchNorm after a GELU computes both. Names of parameters
    and buffers are unchanged.
    """
    if extension is None:
        return NO_KERNELS
    convolutions = [m for m in model.modules() if isinstance(m, DepthwiseConv2d) and m.kernel_size[0] in COMPILED_SIZES]
    for module in convolutions:
        module.convolution = extension.convolution
    fusable = [
        (sequence, first, second)
        for sequence in list(model.modules())
        if isinstance(sequence, nn.Sequential)
        for (first, activation), (second, norm) in pairwise(sequence.named_children())
        if is_fusable(activation, norm)
    ]
    for sequence, activation, norm in fusable:
        setattr(sequence, norm, GeluBatchNorm2d(getattr(sequence, norm), extension.gelu_norm))
        setattr(sequence, activation, nn.Identity())
    return extension.name if convolutions or fusable else NO_KERNELS


def is_convolution_correct(backward: Backward, size: int) -> bool:
    """Whether a small case with every remainder (of lanes, tiles and rows) gives torch's gradients, within rounding."""
    grid = _sines(3, 37, 5, 11).contiguous(memory_format=torch.channels_last)
    gradient, weight = grid.flip(0, 2), _sines(37, 1, size, size)
    padding = [size // 2] * 2
    expected = torch.ops.aten.convolution_backward(
        gradient, grid, weight, [37], [1, 1], padding, [1, 1], False, [0, 0], 37, [True] * 3
    )
    return _are_close(backward(grid, gradient, weight, (True, True)), expected)


def is_gelu_norm_correct(kernel: GeluNorm) -> bool:
    """Whether a small case with remainders of lanes and of tokens gives torch's results and gradients, within rounding."""
    grid = (4 * _sines(3, 37, 5, 11)).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, bias = _sines(37).requires_grad_(), _sines(74)[37:].requires_grad_()
    gradient = grid.detach().flip(0, 2)
    normed = functional.batch_norm(functional.gelu(grid), None, None, weight, bias, training=True, eps=_EPS)
    expected = torch.autograd.grad(normed, (grid, weight, bias), gradient)
    with torch.no_grad():
        ours, mean, _, deviation = kernel.forward(grid, weight, bias, _EPS)
        gradients = kernel.backward(grid, gradient, weight, mean, deviation)
    return _are_close((ours, *gradients), (normed.detach(), *expected))


def _sines(*shape: int) -> Tensor:
    """Numbers between -1 and 1 without repetition."""
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).sin().view(shape)


def _are_close(ours: tuple[Tensor | None, ...], theirs: tuple[Tensor, ...]) -> bool:
    """Whether all tensors are equal within the tolerance; NaN never is."""
    return all(
        mine is not None and bool((mine - other).abs().max() <= _TOLERANCE * other.abs().max())
        for mine, other in zip(ours, theirs, strict=True)
    )
