"""Wheels in benchmarks/wheels for packages that are missing on a machine without a network.

`pip download --only-binary=:all: --python-version 3.12 --platform manylinux2014_x86_64 -d benchmarks/wheels pydantic` fills
the folder on a machine with a network, for the Python of the other one.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import zipfile
from pathlib import Path

FOLDER = Path(__file__).with_name("wheels")
NEEDED = ("pydantic",)  # by the training engine, besides torch, numpy and scipy


def unpack_missing() -> None:
    """Make the packages in the wheels importable if a needed one is not installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if not missing:
        return
    wheels = sorted(FOLDER.glob("*.whl"))
    if not wheels:
        sys.exit(f"{', '.join(missing)} is not installed and {FOLDER} has no wheels")
    target = tempfile.mkdtemp(prefix="wheels-")
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as content:
            content.extractall(target)
    sys.path.append(target)
