"""Installing what tests need is silent where nothing is missing, loud where it may not, and fatal only if all is required."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("install_packages.sh")


def run_with(programs: dict[str, str], folder: Path, *, require_all: bool = False) -> subprocess.CompletedProcess[str]:
    """Asks for two packages where `programs` stand before the system's own."""
    for name, body in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    environment = {"PATH": path, "REQUIRE_ALL": "1" if require_all else ""}
    line = ["bash", str(SCRIPT), "munge", "slurmd"]
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=False)


ORDINARY_USER = {
    "id": "echo 1000",
    "apt-get": 'echo "apt-get was called" >&2',
    "dpkg-query": 'case "$*" in *munge*) echo installed;; *) exit 1;; esac',
}


def test_nothing_is_said_or_done_where_all_is_installed(tmp_path: Path) -> None:
    """Every run of the suite asks, so the answer must cost nothing."""
    answer = run_with({**ORDINARY_USER, "dpkg-query": "echo installed"}, tmp_path, require_all=True)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


@pytest.mark.parametrize("require_all", [False, True])
def test_an_ordinary_user_is_told_in_one_line_what_will_be_skipped(tmp_path: Path, *, require_all: bool) -> None:
    """Only what is missing is named, nothing is installed, and the status is 0 unless nothing may be skipped."""
    answer = run_with(ORDINARY_USER, tmp_path, require_all=require_all)
    first, *more = answer.stderr.splitlines()
    assert first == "!!!! not root: the tests that need these packages will be SKIPPED: slurmd"
    assert (answer.returncode, len(more)) == ((1, 1) if require_all else (0, 0))
