"""C++ sources as a shared library for the processor at hand, compiled at first use with the machine's own compiler.

A library is named by all that its bits follow from: sources, flags, compiler and instruction set. So it is compiled once per
machine, and a changed source or another processor never meets an old library. It appears under its name whole or not at all.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared")
COMPILING_S = 300  # at most; three seconds on an idle machine


class Unavailable(Exception):
    """Why a compiled kernel can't be had here; training goes on without it."""


@dataclass(frozen=True)
class Library:
    """A shared library on disk, and the digest of all that its bits follow from."""

    path: Path
    digest: str


def compiled(sources: Path, *, folder: Path, environment: Mapping[str, str]) -> Library:
    """The library of all C++ files in the folder `sources`, from `folder` if it is there, else compiled into it.

    Raises Unavailable with the reason where there is none to be had. Workers that start together wait for the one that
    compiles. $CXX names the compiler, as everywhere.
    """
    compiler = find_compiler(environment)
    digest = digest_of(sources, compiler)
    library = folder / f"kernels-{digest}.so"
    try:
        with _turn(folder / f"kernels-{digest}.lock"):
            if not library.exists():
                _compile(sources, library, compiler)
    except OSError as error:
        raise Unavailable(f"no place for the compiled library: {error}") from None
    return Library(library, digest)


def find_compiler(environment: Mapping[str, str]) -> list[str]:
    """The command that compiles C++: $CXX, or the first of the usual names on the PATH."""
    named = shlex.split(environment.get("CXX", ""))
    for command in [named] if named else [[name] for name in COMPILERS]:
        if shutil.which(command[0], path=environment.get("PATH")):
            return command
    raise Unavailable(f"no C++ compiler: {named[0]} isn't there" if named else "no C++ compiler")


def digest_of(sources: Path, compiler: list[str]) -> str:
    """Twelve hexadecimal digits of the sources, the flags, and what compiler and processor tell of themselves."""
    told = _run([*compiler, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull])
    texts = [path.read_text() for path in sorted([*sources.glob("*.cpp"), *sources.glob("*.h")])]
    return hashlib.sha256("\0".join([*texts, *FLAGS, told]).encode()).hexdigest()[:12]


def private_folder(parent: Path | None = None) -> Path:
    """A folder on the node's own disk that this user alone can write to, shared by all of the user's workers.

    What lies in it is executed, and the place for temporary files is everybody's: another's folder is refused.
    """
    folder = (parent or Path(tempfile.gettempdir())) / f"patch-or-attention-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise Unavailable(f"no place for compiled libraries: {error}") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise Unavailable(f"{folder} is open to others, so nothing in it is executed")
    return folder


def _compile(sources: Path, library: Path, compiler: list[str]) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        draft = Path(folder) / library.name
        _run([*compiler, *FLAGS, *map(str, sorted(sources.glob("*.cpp"))), "-o", str(draft)])
        draft.replace(library)


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILING_S, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{command[0]} took longer than {COMPILING_S} s") from None
    except OSError as error:
        raise Unavailable(f"{command[0]} can't be run: {error}") from None
    if done.returncode:
        told = next((line for line in done.stderr.splitlines() if "error" in line), f"exit status {done.returncode}")
        raise Unavailable(f"{command[0]} failed: {told}")
    return done.stdout


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    """Inside, no other process of this machine is inside; the lock ends with the process, so none is ever left behind."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
