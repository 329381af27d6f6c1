"""Compiling at first use: once, complete or not at all, and never a requirement."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from study.cpu_kernels import extension
from study.cpu_kernels.compiler import CompiledLibrary, KernelsUnavailable, compile_library, find_compiler, make_private_folder
from study.training import model_setup
from study.training.device import DeviceChoice

SOURCES = extension.SOURCES
needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler")

COUNTING = """#!/bin/sh
case "$*" in *" -o "*) echo compiled >> {log}; sleep 0.3;; esac
exec c++ "$@"
"""


def compiler(folder: Path, script: str) -> dict[str, str]:
    """An environment whose C++ compiler is a shell script."""
    path = folder / "compiler"
    path.write_text(script)
    path.chmod(0o755)
    return {**os.environ, "CXX": str(path)}


@needs_compiler
def test_workers_that_start_together_compile_once(tmp_path):
    """Of four processes that start at the same time one compiles, and all load the same file."""
    log, cache = tmp_path / "log", tmp_path / "cache"
    cache.mkdir()
    environment = compiler(tmp_path, COUNTING.format(log=log))
    code = (
        "import os, sys, pathlib; from study.cpu_kernels.compiler import compile_library;"
        "from study.cpu_kernels.extension import SOURCES;"
        "print(compile_library(SOURCES, folder=pathlib.Path(sys.argv[1]), environment=os.environ).path)"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(cache)], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    paths = {process.communicate(timeout=120)[0].strip() for process in started}
    assert [process.returncode for process in started] == [0] * 4
    assert len(paths) == 1 and Path(paths.pop()).exists()
    assert log.read_text().splitlines() == ["compiled"]
    assert sorted(path.suffix for path in cache.iterdir()) == [".lock", ".so"]


@needs_compiler
def test_another_source_is_another_library(tmp_path):
    """A changed source, also one that is only included, never loads the library of the old one."""
    changed = tmp_path / "changed"
    shutil.copytree(SOURCES, changed, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    header = changed / "blocks.h"
    header.write_text(header.read_text() + "\n// changed\n")
    one = compile_library(SOURCES, folder=tmp_path, environment=os.environ)
    other = compile_library(changed, folder=tmp_path, environment=os.environ)
    assert one.path != other.path and one.digest != other.digest
    assert one == compile_library(SOURCES, folder=tmp_path, environment=os.environ)


@needs_compiler
def test_a_compiler_that_fails_leaves_nothing(tmp_path):
    """Its message is the reason, and no library is left; a later attempt with a working compiler succeeds."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "wrong.cpp").write_text("int wrong(")
    with pytest.raises(KernelsUnavailable, match=r"failed: .*error"):
        compile_library(broken, folder=tmp_path, environment=os.environ)
    assert not list(tmp_path.glob("*.so"))
    assert compile_library(SOURCES, folder=tmp_path, environment=os.environ).path.exists()


def test_a_missing_compiler_is_the_reason(tmp_path):
    """An empty PATH, and a $CXX that doesn't exist."""
    with pytest.raises(KernelsUnavailable, match=r"no C\+\+ compiler$"):
        find_compiler({"PATH": str(tmp_path)})
    with pytest.raises(KernelsUnavailable, match="nowhere-c"):
        find_compiler({"PATH": str(tmp_path), "CXX": "nowhere-c++ -m64"})
    with pytest.raises(KernelsUnavailable, match="exit status 1"):
        compile_library(SOURCES, folder=tmp_path, environment=compiler(tmp_path, "#!/bin/sh\nexit 1\n"))


def test_training_continues_without_a_compiler_and_reports_it_once(tmp_path, capsys):
    """The device choice has no extension, and stderr has one line."""
    choice = model_setup.with_cpu_kernels(DeviceChoice("cpu"), {"PATH": str(tmp_path)})
    assert choice == DeviceChoice("cpu")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "no C++ compiler" in lines[0]


def test_a_folder_that_others_can_write_to_is_refused(tmp_path):
    """Its files are executed, so neither a folder that others may write to nor a link is used."""
    folder = make_private_folder(tmp_path)
    assert folder.stat().st_mode & 0o077 == 0 and make_private_folder(tmp_path) == folder
    folder.chmod(0o777)
    with pytest.raises(KernelsUnavailable, match="writable by others"):
        make_private_folder(tmp_path)
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(KernelsUnavailable):
        make_private_folder(tmp_path)
    with pytest.raises(KernelsUnavailable, match="no folder"):
        make_private_folder(tmp_path / "missing")


def test_importing_compiles_nothing():
    """The kernels are imported with the training engine; a compiler is started when a worker loads them."""
    code = (
        "import subprocess; subprocess.run = subprocess.Popen = None;"
        "import study.cpu_kernels.extension, study.training.engine, study.worker.runner"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


def test_an_unloadable_library_falls_back(tmp_path, monkeypatch):
    """An empty file under the library's name raises KernelsUnavailable, which training survives."""
    library = tmp_path / "empty.so"
    library.touch()
    monkeypatch.setattr(extension, "compile_library", lambda *_, **__: CompiledLibrary(library, "0"))
    with pytest.raises(KernelsUnavailable, match="doesn't load"):
        extension.load_extension({}, folder=tmp_path)
