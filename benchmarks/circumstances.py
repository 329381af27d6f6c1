"""The conditions of a measurement: machine, versions, commit, load, command."""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from study.records.code_snapshot import find_origin
from study.training.fingerprint import processor_name

PACKAGES = ("torch", "torchvision", "timm", "numpy")


def circumstances(kind: str, *, threads: int) -> dict[str, Any]:
    """The circumstances of a measurement on `kind` that begins now."""
    found = find_origin()
    return {
        "command": " ".join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": found.commit,
        "uncommitted_changes": found.dirty,
        "device": torch.cuda.get_device_name() if kind == "cuda" else processor_name(),
        "cuda": torch.version.cuda if kind == "cuda" else None,
        "cudnn": torch.backends.cudnn.version() if kind == "cuda" else None,  # type: ignore[no-untyped-call]
        "cpu": processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "load_before": os.getloadavg()[0],
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def version(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
