"""Locks show who is alive and keep launches apart, in optimized Python too, which executes no assert and has no docstrings."""

from __future__ import annotations

import subprocess
import sys

import pytest

from study.errors import UserError
from study.records.locks import launcher_lock, sweep_lock, worker_lock
from study.records.sweep_folder import SweepFolder

HOLDER = """\
import sys
from pathlib import Path
from study.records.locks import launcher_lock, sweep_lock, worker_lock
from study.records.sweep_folder import SweepFolder
folder = SweepFolder(Path(sys.argv[1]))
worker_lock(folder, ("launch", 0)).acquire()
launcher_lock(folder, "launch").acquire()
with sweep_lock(folder):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("options", [[], ["-OO"]])
def test_a_lock_is_held_as_long_as_its_process_lives(tmp_path, options):
    """Another process sees it, can't acquire it, and can as soon as the first is killed."""
    folder = SweepFolder(tmp_path)
    program = [sys.executable, *options, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        assert worker_lock(folder, ("launch", 0)).is_held() and launcher_lock(folder, "launch").is_held()
        assert not worker_lock(folder, ("launch", 1)).is_held()
        with pytest.raises(UserError, match="another live process"):
            worker_lock(folder, ("launch", 0)).acquire()
        with pytest.raises(UserError, match=f"process {holder.pid}"), sweep_lock(folder, timeout_s=0):
            pass
        holder.kill()
    assert not worker_lock(folder, ("launch", 0)).is_held() and not launcher_lock(folder, "launch").is_held()
    with sweep_lock(folder, timeout_s=0):
        pass


def test_commands_explain_themselves_without_docstrings():
    """`python -OO` removes what their descriptions are taken from."""
    for command in ("plan", "status"):
        program = [sys.executable, "-OO", "-m", f"study.{command}", "--help"]
        assert "usage:" in subprocess.run(program, capture_output=True, text=True, check=True).stdout
