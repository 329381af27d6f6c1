"""The compiled depthwise gradients against torch's convolution in double precision."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from study.cpu_kernels import depthwise
from study.cpu_kernels.compiler import KernelsUnavailable
from study.cpu_kernels.depthwise import COMPILED_SIZES, torch_depthwise
from study.cpu_kernels.extension import load_extension


@pytest.fixture(scope="module")
def kernel():
    try:
        return load_extension(os.environ)
    except KernelsUnavailable as reason:
        pytest.skip(str(reason))


def grid_of(images, channels, height, width, *, seed=0):
    noise = torch.Generator().manual_seed(seed)
    return torch.randn(images, channels, height, width, generator=noise).contiguous(memory_format=torch.channels_last)


def gradients(convolution, grid, weight, bias, outer):
    """The output, and the gradients of sum(outer * output) for the grid, the weight and the bias."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (grid, weight, bias)]
    output = convolution(*leaves)
    output.backward(outer)
    return [output.detach(), *(leaf.grad for leaf in leaves)]


@settings(deadline=None, max_examples=60)
@given(
    images=st.integers(1, 3),
    channels=st.integers(1, 50),
    height=st.integers(1, 19),
    width=st.integers(1, 19),
    size=st.sampled_from(COMPILED_SIZES),
    threads=st.integers(1, 3),
)
def test_gradients_are_those_of_double_precision(kernel, images, channels, height, width, size, threads):
    """For every remainder of lanes, tiles, rows and threads, also where the kernel is wider than the grid."""
    grid, outer = grid_of(images, channels, height, width), grid_of(images, channels, height, width, seed=1)
    weight, bias = grid_of(channels, 1, size, size, seed=2).contiguous(), torch.ones(channels)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    ours = gradients(kernel.convolution, grid, weight, bias, outer)
    torch.set_num_threads(before)
    exact = gradients(torch_depthwise, grid.double(), weight.double(), bias.double(), outer.double())
    for mine, truth in zip(ours, exact, strict=True):
        terms = images * height * width + size**2
        torch.testing.assert_close(mine.double(), truth, rtol=1e-5, atol=3e-7 * terms**0.5 * 8)


@pytest.mark.parametrize("size", COMPILED_SIZES)
def test_a_training_sized_grid(kernel, size):
    """Relative to the largest entry, the error of gradients over 4 x 16 x 16 positions of 256 features is at most 2e-6."""
    grid, outer = grid_of(4, 256, 16, 16), grid_of(4, 256, 16, 16, seed=1)
    weight, bias = grid_of(256, 1, size, size, seed=2).contiguous(), torch.zeros(256)
    ours = gradients(kernel.convolution, grid, weight, bias, outer)
    exact = gradients(torch_depthwise, grid.double(), weight.double(), bias.double(), outer.double())
    for mine, truth in zip(ours, exact, strict=True):
        assert (mine - truth).abs().max() <= 2e-6 * truth.abs().max()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_same_bits_for_the_same_number_of_threads(kernel, threads):
    """Over twenty calls, also with more threads than images."""
    grid, outer = grid_of(3, 72, 9, 7), grid_of(3, 72, 9, 7, seed=1)
    weight, bias = grid_of(72, 1, 7, 7, seed=2).contiguous(), torch.zeros(72)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    first, *others = [gradients(kernel.convolution, grid, weight, bias, outer) for _ in range(20)]
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


def test_the_forward_pass_is_torchs(kernel):
    """Outputs have torch's bits, so that evaluation is the same with the kernel and without it."""
    grid, weight, bias = grid_of(2, 33, 8, 8), grid_of(33, 1, 5, 5).contiguous().requires_grad_(), torch.ones(33)
    assert torch.equal(kernel.convolution(grid, weight, bias), torch_depthwise(grid, weight, bias))


def unsupported_calls():
    """Calls that the kernel doesn't support, by name."""
    contiguous = grid_of(2, 20, 8, 8).contiguous()
    return {
        "contiguous": (contiguous, torch.float32, False),
        "double precision": (grid_of(2, 20, 8, 8).double(), torch.float64, False),
        "bfloat16": (grid_of(2, 20, 8, 8).bfloat16(), torch.bfloat16, False),
        "autocast": (grid_of(2, 20, 8, 8), torch.float32, True),
    }


@pytest.mark.parametrize("case", unsupported_calls())
def test_unsupported_calls_are_torchs(kernel, case, monkeypatch):
    """Other layouts, other precisions and autocast take torch's path, and never call the kernel."""
    grid, dtype, casting = unsupported_calls()[case]
    monkeypatch.setattr(depthwise._Depthwise, "apply", None)
    weight = torch.ones(20, 1, 5, 5, dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", enabled=casting):
        output = kernel.convolution(grid, weight, None)
        assert torch.equal(output, torch_depthwise(grid, weight, None))


def test_unneeded_gradients_are_not_computed(kernel):
    """Without a bias, and for a grid that needs no gradient, the weight's gradient is the same."""
    grid, outer, weight = grid_of(2, 20, 6, 6), grid_of(2, 20, 6, 6, seed=1), grid_of(20, 1, 5, 5).contiguous()
    alone = weight.clone().requires_grad_()
    kernel.convolution(grid, alone, None).backward(outer)
    assert torch.equal(alone.grad, gradients(kernel.convolution, grid, weight, torch.zeros(20), outer)[2])


def test_second_derivatives_are_refused(kernel):
    """torch raises; a wrong zero would be silent."""
    grid = grid_of(1, 20, 6, 6).requires_grad_()
    output = kernel.convolution(grid, torch.ones(20, 1, 5, 5, requires_grad=True), None)
    (derivative,) = torch.autograd.grad(output.square().sum(), grid, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        derivative.sum().backward()
