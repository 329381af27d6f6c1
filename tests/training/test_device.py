"""A GPU that was given but can't be used is an error that names driver, build and environment; never a silent CPU."""

from __future__ import annotations

import contextlib

import pytest
import torch

from study.errors import UserError
from study.training import device
from study.training.device import DeviceChoice, autocast, choose_device, driver_version, execution_mode

WITHOUT_A_GPU = [
    {},
    {"CUDA_VISIBLE_DEVICES": ""},
    {"CUDA_VISIBLE_DEVICES": "-1"},
    {"CUDA_VISIBLE_DEVICES": "NoDevFiles"},
    {"SLURM_GPUS_ON_NODE": "0"},
]
WITH_A_GPU = [
    {"CUDA_VISIBLE_DEVICES": "0"},
    {"CUDA_VISIBLE_DEVICES": "GPU-8932"},
    {"SLURM_JOB_GPUS": "0,1"},
    {"SLURM_GPUS_ON_NODE": "2"},
]


@pytest.fixture
def no_cuda(monkeypatch):
    monkeypatch.setattr(device, "find_cuda_fault", lambda: "no CUDA-capable device is detected")


@pytest.fixture
def cuda(monkeypatch):
    monkeypatch.setattr(device, "find_cuda_fault", lambda: None)


@pytest.mark.parametrize("environment", WITHOUT_A_GPU)
def test_auto_takes_the_cpu_where_nothing_speaks_for_a_gpu(no_cuda, environment):
    """None allotted and none usable: the CPU, which is always deterministic."""
    assert choose_device("auto", environment) == DeviceChoice("cpu", deterministic=True)


@pytest.mark.parametrize("environment", WITH_A_GPU)
@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_a_broken_gpu_is_refused_with_all_that_explains_it(no_cuda, monkeypatch, environment, asked):
    """The error names what torch said, the driver, torch's build and the variable that gave the GPU."""
    monkeypatch.setattr(device, "driver_version", lambda: "570.1")
    with pytest.raises(UserError) as refusal:
        choose_device(asked, environment)
    told = str(refusal.value)
    name, value = next(iter(environment.items()))
    for word in ("no CUDA-capable device", "driver 570.1", torch.__version__, f"{name}={value}"):
        assert word in told


def test_cuda_asked_for_without_any_is_refused(no_cuda):
    """`cuda` is no wish but an order, whatever the environment says."""
    with pytest.raises(UserError, match="no GPU in the environment"):
        choose_device("cuda", {})


def test_cpu_is_obeyed_beside_a_gpu(cuda):
    """Whoever asks for the CPU gets it."""
    assert choose_device("cpu", {"CUDA_VISIBLE_DEVICES": "0"}).kind == "cpu"


def test_auto_takes_a_usable_gpu(cuda):
    """With a GPU at hand, allotted or not, it's used; deterministic only where asked."""
    assert choose_device("auto", {}) == DeviceChoice("cuda", deterministic=False)
    assert choose_device("cuda", {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}, deterministic=True).deterministic
    with pytest.raises(UserError, match="CUBLAS_WORKSPACE_CONFIG"):
        choose_device("cuda", {}, deterministic=True)


def test_an_unknown_device_shows_the_valid_ones():
    """A misspelt device is a user's mistake with choices and nearest match."""
    with pytest.raises(UserError, match="did you mean 'cuda'"):
        choose_device("cude", {})


@pytest.mark.skipif(torch.version.cuda is not None, reason="a law of builds without CUDA")
def test_a_build_without_cuda_says_so():
    """The commonest fault, a CPU wheel on a GPU node, is named as such."""
    assert "no CUDA" in (device.find_cuda_fault() or "")


def test_the_driver_is_read_from_the_kernel(tmp_path):
    """The version line of /proc/driver/nvidia/version, or that none is loaded."""
    file = tmp_path / "version"
    assert driver_version(file) == "not loaded"
    file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15\nGCC version: 12\n")
    assert "570.86.15" in driver_version(file)


def test_execution_mode_leaves_no_trace():
    """Modes that are set for a training are those from before when it ends, also by an exception."""
    before = modes()
    with contextlib.suppress(KeyError), execution_mode(DeviceChoice("cuda", deterministic=True)):
        assert modes() == (True, "ieee", "ieee")
        raise KeyError
    assert modes() == before


def modes() -> tuple[bool, str, str]:
    precisions = torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    return torch.are_deterministic_algorithms_enabled(), *precisions


@pytest.mark.parametrize(
    ("precision", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_precision_is_that_of_matrix_products(precision, expected):
    """Inside the context a linear layer computes in the precision that the run names."""
    with autocast(precision, torch.device("cpu")):
        assert torch.nn.Linear(2, 2)(torch.zeros(1, 2)).dtype == expected
