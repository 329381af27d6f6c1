"""The execution fingerprint: everything that may change the last bits of a training and isn't part of its identity.

Two trainings of one run with equal fingerprints end with the same bits. It is part of every record and every checkpoint, so
that a resume on other hardware is reported as inexact. It isn't part of the run's identity: the same run on another machine is
still the same run.
"""

import platform
from functools import cache
from pathlib import Path

import numpy as np
import torch
from pydantic import JsonValue

from study.cpu_kernels.extension import NO_KERNELS
from study.training.device import DeviceChoice
from study.training.optimizer import OPTIMIZERS

Fingerprint = dict[str, JsonValue]


def make_fingerprint(
    choice: DeviceChoice,
    *,
    memory_layout: str,
    micro_batches: int,
    kernels: str = NO_KERNELS,
    compiled: str | None = None,
    ranks: int = 1,
    optimizer: str = "adamw",
) -> Fingerprint:
    """The fingerprint of a training on `choice` by `ranks` processes.

    `kernels` names the compiled extension, or says that all kernels are torch's; `compiled` is torch.compile's mode.
    """
    on_gpu = choice.kind == "cuda"
    return {
        "device": choice.kind,
        "device_name": device_name(choice),
        "cuda_version": torch.version.cuda if on_gpu else None,
        "cudnn_version": torch.backends.cudnn.version() if on_gpu else None,  # type: ignore[no-untyped-call]
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch_version": str(torch.__version__),  # a class of torch's own otherwise, which weights_only refuses
        "numpy_version": np.__version__,
        "python_version": platform.python_version(),
        "memory_layout": memory_layout,
        "optimizer": OPTIMIZERS[optimizer].implementation,
        "micro_batches": micro_batches,
        "kernels": kernels,
        "compiled": compiled or False,
        "ranks": ranks,
        "deterministic": choice.deterministic,
    }


def find_changes(one: Fingerprint, other: Fingerprint) -> list[str]:
    """The entries in which two fingerprints differ, as `threads: 1 -> 2`; empty where the bits must be equal."""
    # "stacked" is written by version 0.1 alone, which could train several runs as one.
    one, other = ({"stacked": 1, **each} for each in (one, other))
    names = sorted(one.keys() | other.keys())
    return [f"{name}: {one.get(name)} -> {other.get(name)}" for name in names if one.get(name) != other.get(name)]


def device_name(choice: DeviceChoice) -> str:
    return torch.cuda.get_device_name() if choice.kind == "cuda" else processor_name()


@cache
def processor_name() -> str:
    """The processor's model name; the bare architecture where the system doesn't report it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
