"""A worker computes where it was told to or not at all: a GPU that was given but can't be used is an error.

Training on the CPU by surprise is the costliest silent fallback there is, so `auto` takes the CPU only where nothing
speaks for a GPU: none was allotted through the environment, and torch sees none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from study.cpu_kernels.extension import Extension
from study.errors import Problem, UserError

GPU_ALLOTMENTS = ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_GPUS_ON_NODE")
NO_DEVICES = ("", "-1", "0x0", "NoDevFiles", "none", "void")
"""Values under which CUDA_VISIBLE_DEVICES hides every GPU; Slurm writes NoDevFiles to jobs without one."""

WORKSPACES = (":4096:8", ":16:8")  # of cuBLAS, as torch's notes on reproducibility name them
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class DeviceChoice:
    """Where a worker computes. `deterministic`: only algorithms that give the same bits each time (always so on a CPU).

    `extension` holds the kernels that were compiled for this machine; without it all are torch's (`model_setup`).
    """

    kind: Literal["cpu", "cuda"]
    deterministic: bool = True
    extension: Extension | None = None

    @property
    def device(self) -> torch.device:
        return torch.device(self.kind)


def choose_device(asked: str, environment: Mapping[str, str], *, deterministic: bool = False) -> DeviceChoice:
    """The device for `asked`, one of auto, cuda and cpu; raises UserError where a GPU is meant but can't be used."""
    if asked not in ("auto", "cuda", "cpu"):
        raise UserError(Problem("no such device", key="device", value=asked, choices=("auto", "cuda", "cpu")))
    if asked == "cpu":
        return DeviceChoice("cpu")
    fault = cuda_fault()
    if fault is None:
        if deterministic and environment.get("CUBLAS_WORKSPACE_CONFIG") not in WORKSPACES:
            rule = "deterministic matrix products on a GPU need this variable before the first of them"
            raise UserError(Problem(rule, key="CUBLAS_WORKSPACE_CONFIG", choices=WORKSPACES))
        return DeviceChoice("cuda", deterministic=deterministic)
    allotted = allotments(environment)
    if asked == "auto" and not allotted:
        return DeviceChoice("cpu")
    raise UserError(Problem(unusable(fault, allotted), key="device", value=asked))


def allotments(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables by which a scheduler or a user gave this process a GPU."""
    given = {name: environment[name] for name in GPU_ALLOTMENTS if environment.get(name, "") not in NO_DEVICES}
    if given.get("SLURM_GPUS_ON_NODE") == "0":
        del given["SLURM_GPUS_ON_NODE"]
    return given


def cuda_fault() -> str | None:
    """Why torch can't compute on a GPU here, or None where a first kernel ran."""
    if torch.version.cuda is None:
        return "this build of torch has no CUDA"
    try:
        torch.zeros(1, device="cuda").add_(1)
        torch.cuda.synchronize()
    except (RuntimeError, AssertionError) as error:
        return str(error).splitlines()[0]
    return None


def unusable(fault: str, allotted: Mapping[str, str]) -> str:
    """The sentence that names driver, build and environment, so that the cause is found from the log alone."""
    given = ", ".join(f"{name}={value}" for name, value in allotted.items()) or "no GPU in the environment"
    build = f"torch {torch.__version__} built for CUDA {torch.version.cuda}"
    return f"a GPU is meant but can't be used: {fault}; driver {driver_version()}; {build}; {given}"


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
    """Inside, fp32 means IEEE fp32 on convolutions and matrix products alike, and algorithms are as deterministic as chosen.

    torch's default lets cuDNN convolutions run in TF32 but matrix products not, which would hand ConvMixer a lower
    precision than ViT. The former modes return on leaving.
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
