"""Compiles C++ sources into a shared library for this processor, at first use, with the machine's own compiler.

A library is named after everything that determines its bits: sources, flags, compiler and instruction set. So it is compiled
once per machine, and a changed source or another processor never loads an old library. It is renamed into place when complete.
"""

import fcntl
import hashlib
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_COMPILERS = ("c++", "g++", "clang++")
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared")
_TIMEOUT_S = 300  # compiling takes three seconds on an idle machine


class KernelsUnavailable(Exception):
    """The reason why compiled kernels can't be used here; training continues without them."""


@dataclass(frozen=True)
class CompiledLibrary:
    """A shared library on disk, and the digest of everything that determines its bits."""

    path: Path
    digest: str


def compile_library(sources: Path, *, folder: Path, environment: Mapping[str, str]) -> CompiledLibrary:
    """The library of all C++ files in `sources`: from `folder` if it has one, otherwise compiled into it.

    Raises KernelsUnavailable with the reason if that fails. Workers that start together wait for
    the one that compiles. $CXX names the compiler.
    """
    compiler = find_compiler(environment)
    macros = _run([*compiler, *_FLAGS, "-dM", "-E", "-x", "c++", os.devnull])  # of compiler and processor
    texts = [path.read_text() for path in sorted([*sources.glob("*.cpp"), *sources.glob("*.h")])]
    digest = hashlib.sha256("\0".join([*texts, *_FLAGS, macros]).encode()).hexdigest()[:12]
    library = folder / f"kernels-{digest}.so"
    try:
        with library.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released when the process exits, however it does
            if not library.exists():
                with tempfile.TemporaryDirectory(dir=folder) as drafts:
                    draft = Path(drafts) / library.name
                    _run([*compiler, *_FLAGS, *map(str, sorted(sources.glob("*.cpp"))), "-o", str(draft)])
                    draft.replace(library)
    except OSError as error:
        raise KernelsUnavailable(f"no folder for the compiled library: {error}") from None
    return CompiledLibrary(library, digest)


def find_compiler(environment: Mapping[str, str]) -> list[str]:
    """The command that compiles C++: $CXX, or the first of the usual names on the PATH."""
    named = shlex.split(environment.get("CXX", ""))
    for command in [named] if named else [[name] for name in _COMPILERS]:
        if shutil.which(command[0], path=environment.get("PATH")):
            return command
    raise KernelsUnavailable(f"no C++ compiler: {named[0]} doesn't exist" if named else "no C++ compiler")


def make_private_folder(parent: Path | None = None) -> Path:
    """A folder on the node's local disk that only this user can write to, shared by all of the user's workers.

    Its files are executed, and anyone may write to the folder for temporary files: a folder of another user is refused.
    """
    folder = (parent or Path(tempfile.gettempdir())) / f"patch-or-attention-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise KernelsUnavailable(f"no folder for compiled libraries: {error}") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise KernelsUnavailable(f"{folder} is writable by others, so nothing in it is executed")
    return folder


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise KernelsUnavailable(f"{command[0]} took longer than {_TIMEOUT_S} s") from None
    except OSError as error:
        raise KernelsUnavailable(f"{command[0]} can't be run: {error}") from None
    if done.returncode:
        message = next((line for line in done.stderr.splitlines() if "error" in line), f"exit status {done.returncode}")
        raise KernelsUnavailable(f"{command[0]} failed: {message}")
    return done.stdout
