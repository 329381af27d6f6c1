"""Packages that a machine without a network lacks, brought along as wheels in benchmarks/wheels.

`pip download --only-binary=:all: --python-version 3.12 --platform manylinux2014_x86_64 -d benchmarks/wheels pydantic` fills
the folder, on a machine with a network, for the other one's Python.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import zipfile
from pathlib import Path

FOLDER = Path(__file__).with_name("wheels")
NEEDED = ("pydantic",)  # by the training engine, beside torch, numpy and scipy


def unpack_missing() -> None:
    """Make the wheels' packages importable where one that is needed isn't installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if not missing:
        return
    wheels = sorted(FOLDER.glob("*.whl"))
    if not wheels:
        sys.exit(f"{', '.join(missing)} is not installed and {FOLDER} holds no wheels")
    target = tempfile.mkdtemp(prefix="wheels-")
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as content:
            content.extractall(target)
    sys.path.append(target)
