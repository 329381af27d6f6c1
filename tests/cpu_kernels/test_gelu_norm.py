"""BatchNorm of GELU as one operator, against torch's two in double precision."""

from __future__ import annotations

import copy
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from study.cpu_kernels import gelu_norm
from study.cpu_kernels.compiler import KernelsUnavailable
from study.cpu_kernels.extension import load_extension
from study.cpu_kernels.gelu_norm import GeluBatchNorm2d, is_fusable


@pytest.fixture(scope="module")
def kernel():
    try:
        return load_extension(os.environ).gelu_norm
    except KernelsUnavailable as reason:
        pytest.skip(str(reason))


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def grid_of(*shape, seed=0):
    return noise(*shape, seed=seed).contiguous(memory_format=torch.channels_last)


def norm_of(channels, *, seed=5):
    """A norm whose parameters and statistics are not the initial ones."""
    norm = nn.BatchNorm2d(channels, eps=1e-3)
    with torch.no_grad():
        for at, tensor in enumerate((norm.weight, norm.bias, norm.running_mean, norm.running_var)):
            tensor.copy_(noise(channels, seed=seed + at).abs() + 0.1)
    return norm


def exact(norm, grid, outer):
    """Output, statistics and gradients of torch's two operators in double precision."""
    twin, grid = copy.deepcopy(norm).double(), grid.double().requires_grad_()
    output = twin(F.gelu(grid))
    output.backward(outer.double())
    return [output.detach(), twin.running_mean, twin.running_var, grid.grad, twin.weight.grad, twin.bias.grad]


def ours(norm, grid, outer, kernel):
    """The same of the operator, with a copy of the norm."""
    fused, grid = GeluBatchNorm2d(copy.deepcopy(norm), kernel), grid.clone().requires_grad_()
    output = fused(grid)
    output.backward(outer)
    return [output.detach(), fused.running_mean, fused.running_var, grid.grad, fused.weight.grad, fused.bias.grad]


@settings(deadline=None, max_examples=60)
@given(
    images=st.integers(1, 4),
    channels=st.integers(1, 50),
    height=st.integers(1, 12),
    width=st.integers(2, 12),
    scale=st.sampled_from([0.01, 1.0, 30.0]),
    offset=st.sampled_from([-20.0, -3.0, 0.0, 3.0, 1000.0]),
    threads=st.integers(1, 3),
)
def test_it_is_the_norm_of_gelu(kernel, images, channels, height, width, scale, offset, threads):
    """For every remainder of lanes and tokens, in GELU's tails, and for channels whose mean is far from zero."""
    grid = grid_of(images, channels, height, width) * scale + offset
    outer, norm = grid_of(images, channels, height, width, seed=1), norm_of(channels)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    found = ours(norm, grid, outer, kernel)
    torch.set_num_threads(before)
    rounding = 4 * torch.finfo(torch.float32).eps * max(1.0, abs(offset) / min(scale, 1.0))  # of the difference to the mean
    for mine, truth in zip(found, exact(norm, grid, outer), strict=True):
        tolerance = max(3e-6, 40 * rounding) * max(1.0, truth.abs().max().item())
        assert (mine - truth).abs().max() <= tolerance


def test_it_is_closer_to_the_exact_result_than_torch(kernel):
    """Over 8 x 16 x 16 tokens of 256 features, output and every gradient; both within a part in ten thousand."""
    grid, outer, norm = grid_of(8, 256, 16, 16) * 2, grid_of(8, 256, 16, 16, seed=1), norm_of(256)
    fused = ours(norm, grid, outer, kernel)
    twin, leaf = copy.deepcopy(norm), grid.clone().requires_grad_()
    output = twin(F.gelu(leaf))
    output.backward(outer)
    two = [output.detach(), twin.running_mean, twin.running_var, leaf.grad, twin.weight.grad, twin.bias.grad]
    for mine, theirs, truth in zip(fused, two, exact(norm, grid, outer), strict=True):
        error, their_error = ((found - truth).abs().max() / truth.abs().max() for found in (mine, theirs))
        assert error <= 1e-6 and error <= 1.5 * their_error


@pytest.mark.parametrize("x", [-1e30, -100.0, -15.0, -13.2, 13.2, 100.0, 1e18, float("nan"), float("inf")])
def test_extreme_values_are_gelus(kernel, x):
    """Where e^-u underflows, GELU is 0 or x; NaN affects its own channel only."""
    grid = torch.zeros(1, 20, 2, 2).contiguous(memory_format=torch.channels_last)
    grid[0, 3, 1, 1] = x
    _, mean, _, _ = kernel.forward(grid, torch.ones(20), torch.zeros(20), 1e-5)
    expected = F.gelu(grid.double()).mean(dim=(0, 2, 3))
    torch.testing.assert_close(mean.double(), expected, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_same_bits_for_the_same_number_of_threads(kernel, threads):
    """Over twenty calls, also with more threads than tokens."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    for shape in ((3, 72, 9, 7), (1, 20, 1, 2)):
        grid, outer, norm = grid_of(*shape), grid_of(*shape, seed=1), norm_of(shape[1])
        first, *others = [ours(norm, grid, outer, kernel) for _ in range(20)]
        assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))
    torch.set_num_threads(before)


def test_evaluation_is_torchs(kernel):
    """In evaluation, with gradients or without, the bits are those of torch's GELU and norm."""
    grid, norm = grid_of(2, 33, 8, 8), norm_of(33).eval()
    fused = GeluBatchNorm2d(copy.deepcopy(norm), kernel).eval()
    assert torch.equal(fused(grid), norm(F.gelu(grid)))
    with torch.inference_mode():
        assert torch.equal(fused(grid), norm(F.gelu(grid)))


@pytest.mark.parametrize("case", ["contiguous", "double precision", "autocast", "no gradients", "one token"])
def test_unsupported_calls_are_torchs(kernel, case, monkeypatch):
    """Other layouts and precisions take torch's path, and never call the kernel; one token is torch's error."""
    monkeypatch.setattr(gelu_norm._GeluNorm, "apply", None)
    shape = (1, 20, 1, 1) if case == "one token" else (2, 20, 8, 8)
    grid, norm = grid_of(*shape), norm_of(20)
    if case == "contiguous":
        grid = grid.contiguous()
    if case == "double precision":
        grid, norm = grid.double(), norm.double()
    fused = GeluBatchNorm2d(copy.deepcopy(norm), kernel)
    with torch.autocast("cpu", enabled=case == "autocast"), torch.set_grad_enabled(case != "no gradients"):
        if case == "one token":
            with pytest.raises(ValueError, match="more than 1 value"):
                fused(grid)
        else:
            assert torch.equal(fused(grid), norm(F.gelu(grid)))


def test_names_and_tensors_stay_the_norms(kernel):
    """A state dict has the same names and the same tensors, so that checkpoints and optimizers are unaffected."""
    norm = norm_of(20)
    fused = GeluBatchNorm2d(norm, kernel)
    before, after = norm.state_dict(keep_vars=True), fused.state_dict(keep_vars=True)
    assert list(before) == list(after) and all(before[name] is after[name] for name in before)
    assert (fused.eps, fused.momentum) == (norm.eps, norm.momentum)


def test_only_gelu_and_default_batch_norm_are_fused():
    """Another activation, GELU's approximation and norms with other statistics are not fused."""
    gelu, norm = nn.GELU(), nn.BatchNorm2d(4)
    assert is_fusable(gelu, norm)
    assert not is_fusable(nn.ReLU(), norm) and not is_fusable(nn.GELU("tanh"), norm)
    assert not is_fusable(gelu, nn.BatchNorm1d(4)) and not is_fusable(gelu, nn.LayerNorm(4))
    assert not is_fusable(gelu, nn.BatchNorm2d(4, affine=False)) and not is_fusable(gelu, nn.BatchNorm2d(4, momentum=None))
    assert not is_fusable(gelu, nn.BatchNorm2d(4, track_running_stats=False))


def test_second_derivatives_are_refused(kernel):
    """torch raises; a wrong zero would be silent."""
    grid = grid_of(2, 20, 4, 4).requires_grad_()
    output = GeluBatchNorm2d(norm_of(20), kernel)(grid)
    (derivative,) = torch.autograd.grad(output.square().sum(), grid, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        derivative.sum().backward()
