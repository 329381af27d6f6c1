"""The device that a worker trains on. A GPU that was allocated but can't be used is an error.

A silent fallback to the CPU would be costly, so `auto` takes the CPU only where no GPU was allocated through the environment
and torch finds none.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from study.cpu_kernels.extension import Extension
from study.errors import Problem, UserError

# The variables through which a scheduler or a user allocates a GPU to this process.
GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_GPUS_ON_NODE")
NO_DEVICES = ("", "-1", "0x0", "NoDevFiles", "none", "void")
"""Values of CUDA_VISIBLE_DEVICES that hide every GPU; Slurm writes NoDevFiles in jobs without one."""

WORKSPACES = (":4096:8", ":16:8")  # of cuBLAS, as torch's notes on reproducibility name them
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class DeviceChoice:
    """A device to train on. `deterministic`: only algorithms that give the same bits each time, as always on a CPU.

    `extension` holds the kernels that were compiled for this machine; without it all kernels are torch's.
    """

    kind: Literal["cpu", "cuda"]
    deterministic: bool = True
    extension: Extension | None = None

    @property
    def device(self) -> torch.device:
        return torch.device(self.kind)


def choose_device(name: str, environment: Mapping[str, str], *, deterministic: bool = False) -> DeviceChoice:
    """The device for `name`, one of auto, cuda and cpu; raises UserError where a GPU is requested but can't be used."""
    if name not in ("auto", "cuda", "cpu"):
        raise UserError(Problem("no such device", key="device", value=name, choices=("auto", "cuda", "cpu")))
    if name == "cpu":
        return DeviceChoice("cpu")
    fault = find_cuda_fault()
    if fault is None:
        if deterministic and environment.get("CUBLAS_WORKSPACE_CONFIG") not in WORKSPACES:
            rule = "deterministic matrix products on a GPU need this variable before the first of them"
            raise UserError(Problem(rule, key="CUBLAS_WORKSPACE_CONFIG", choices=WORKSPACES))
        return DeviceChoice("cuda", deterministic=deterministic)
    allocated = {key: environment[key] for key in GPU_VARIABLES if environment.get(key, "") not in NO_DEVICES}
    if allocated.get("SLURM_GPUS_ON_NODE") == "0":
        del allocated["SLURM_GPUS_ON_NODE"]
    if name == "auto" and not allocated:
        return DeviceChoice("cpu")
    # With driver, build and environment, so that the cause can be found from the log alone.
    given = ", ".join(f"{key}={value}" for key, value in allocated.items()) or "no GPU in the environment"
    build = f"torch {torch.__version__} built for CUDA {torch.version.cuda}"
    rule = f"CUDA requested but unavailable: {fault}; driver {driver_version()}; {build}; {given}"
    raise UserError(Problem(rule, key="device", value=name))


def find_cuda_fault() -> str | None:
    """Why torch can't use a GPU here, or None where a kernel ran."""
    if torch.version.cuda is None:
        return "this build of torch has no CUDA"
    try:
        torch.zeros(1, device="cuda").add_(1)
        torch.cuda.synchronize()
    except (RuntimeError, AssertionError) as error:
        return str(error).splitlines()[0]
    return None


def driver_version(source: Path = Path("/proc/driver/nvidia/version")) -> str:
    """The kernel driver's version line, or `not loaded`; read from /proc, since nvidia-smi may be missing or hang."""
    try:
        return source.read_text().splitlines()[0].removeprefix("NVRM version:").strip()
    except (OSError, IndexError):
        return "not loaded"


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context of a forward pass at `precision`; fp32 is left as it is."""
    return torch.autocast(device.type, dtype=PRECISIONS[precision], enabled=precision != "fp32")


@contextmanager
def execution_mode(choice: DeviceChoice) -> Iterator[None]:
    """Inside, fp32 means IEEE fp32 in convolutions and matrix products alike, and algorithms are as deterministic as chosen.

    torch's default lets cuDNN convolutions run in TF32 but matrix products not, which would hand ConvMixer a lower
    precision than ViT. The former modes are restored on exit.
    """
    cudnn, products, convolutions = torch.backends.cudnn, torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark
    precisions = products.fp32_precision, convolutions.fp32_precision
    torch.use_deterministic_algorithms(choice.deterministic and choice.kind == "cuda")
    cudnn.benchmark = choice.kind == "cuda" and not choice.deterministic
    products.fp32_precision = convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        products.fp32_precision, convolutions.fp32_precision = precisions
        torch.use_deterministic_algorithms(before[0])
        cudnn.benchmark = before[1]


def reset_peak_memory(device: torch.device) -> bool:
    """Reset the peak; returns whether that succeeded, so that a later peak is of this training alone."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak resident size to the current one (proc(5))
    except OSError:
        return False
    return True


def read_peak_mib(device: torch.device, *, was_reset: bool) -> float | None:
    """Since the reset: on a GPU the allocator's peak, on a CPU the whole process's resident peak, in MiB."""
    if not was_reset:
        return None
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM:")), None)
