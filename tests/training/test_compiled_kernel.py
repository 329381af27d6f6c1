"""Training with the compiled kernel: the same run within rounding, exact to resume, and told in the fingerprint."""

from __future__ import annotations

import dataclasses
import os

import pytest
import torch
from toy_runs import CPU, Fate, assert_same_bits, attempt, toy_run

from study.benchmarking.timing import time_architecture
from study.cpu_kernels.compiler import KernelsUnavailable
from study.cpu_kernels.extension import load_extension


@pytest.fixture(scope="module")
def with_cpu_kernels():
    try:
        return dataclasses.replace(CPU, extension=load_extension(os.environ))
    except KernelsUnavailable as reason:
        pytest.skip(str(reason))


def convolving_run(**options):
    """A toy ConvMixer whose kernel is one that is taken over."""
    run = toy_run("convmixer", **options)
    return dataclasses.replace(run, model=run.model.with_options({"kernel_size": 5}))


def test_a_killed_run_ends_with_its_twins_bits(with_cpu_kernels, tmp_path):
    """Interrupted after each of its first eight steps, with averaged weights as well."""
    run = convolving_run(evaluate="ema", ema_decay=0.9)
    twin = attempt(run, tmp_path / "twin", device=with_cpu_kernels)
    for restart in range(8):
        result = attempt(run, tmp_path / "killed", fate=Fate(interrupt_after=1), restart=restart, device=with_cpu_kernels)
        assert result is None
    survivor = attempt(run, tmp_path / "killed", restart=9, device=with_cpu_kernels)
    assert_same_bits(survivor, twin)
    assert survivor.exact and survivor.fingerprint["kernels"] == with_cpu_kernels.extension.name


def test_it_is_the_plain_run_within_rounding(with_cpu_kernels, tmp_path):
    """After one epoch weights agree to a part in ten thousand; the fingerprints differ in the kernel alone."""
    run = convolving_run(epochs=1, lr=1e-3)
    ours, plain = attempt(run, tmp_path / "ours", device=with_cpu_kernels), attempt(run, tmp_path / "plain")
    for name, weight in plain.weights.items():
        torch.testing.assert_close(ours.weights[name], weight, rtol=1e-3, atol=2e-4, msg=name)
    changed = {key for key in plain.fingerprint if plain.fingerprint[key] != ours.fingerprint[key]}
    assert changed == {"kernels"} and plain.fingerprint["kernels"] == "plain"


def test_resuming_without_it_is_told_as_inexact(with_cpu_kernels, tmp_path):
    """A run that began with the kernel and goes on without says so."""
    run = convolving_run()
    attempt(run, tmp_path, fate=Fate(interrupt_after=4), device=with_cpu_kernels)
    resumed = attempt(run, tmp_path, restart=1)
    assert not resumed.exact
    assert resumed.resumes[-1].changes == (f"kernels: {with_cpu_kernels.extension.name} -> plain",)


def test_low_precision_stays_plain(with_cpu_kernels, tmp_path):
    """The kernel knows float32 alone, so a bfloat16 run doesn't name it."""
    outcome = attempt(convolving_run(epochs=1, precision="bf16"), tmp_path, device=with_cpu_kernels)
    assert outcome.fingerprint["kernels"] == "plain"


def test_the_benchmark_times_what_a_training_uses(with_cpu_kernels):
    """`study.benchmark` takes the kernel from the device choice as training does."""
    calls = []
    kernel = with_cpu_kernels.extension

    def counted(*tensors):
        calls.append(tensors)
        return kernel.convolution(*tensors)

    watched = dataclasses.replace(with_cpu_kernels, extension=dataclasses.replace(kernel, convolution=counted))
    time_architecture(convolving_run(), device=watched)
    assert calls
