"""What runs is what was launched: the package is copied by content hash, and its origin in git is noted.

Workers import `study` from the copy, so edits while jobs are queued change nothing. Untracked files are copied too, since
Python imports them. A missing git is told, not fatal.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
NOT_CODE = shutil.ignore_patterns("__pycache__", "*.pyc", "*.so", "build")


@dataclass(frozen=True)
class Origin:
    """Where the code came from: commit, whether the tree had uncommitted changes, and a hash of those."""

    commit: str | None
    dirty: bool | None
    diff: str | None
    note: str = ""


def code_hash(package: Path = PACKAGE) -> str:
    """Hash of every file that would be copied: names and contents, in sorted order; 16 hex digits."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        relative = path.relative_to(package)
        if path.is_file() and "__pycache__" not in relative.parts and path.suffix not in (".pyc", ".so"):
            digest.update(f"{relative.as_posix()}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def take_snapshot(code: Path, package: Path = PACKAGE) -> str:
    """Copies the package to `code/<hash>/study` unless it is there; returns the hash. Whole or not at all."""
    name = code_hash(package)
    if (code / name).exists():
        return name
    code.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=code, prefix=".draft-"))
    shutil.copytree(package, draft / "study", ignore=NOT_CODE)
    draft.chmod(0o755)
    try:
        draft.rename(code / name)
    except OSError:  # another launch was first
        shutil.rmtree(draft)
        assert (code / name).exists()
    return name


def origin(tree: Path = PACKAGE.parent) -> Origin:
    """The git commit of the tree that holds the package, or a note why there is none."""
    try:
        commit = _git(tree, "rev-parse", "HEAD").strip()
        diff = _git(tree, "diff", "HEAD", "--", "study") + _git(tree, "ls-files", "-o", "--exclude-standard", "study")
    except (OSError, subprocess.SubprocessError) as error:
        told = (getattr(error, "stderr", None) or str(error)).strip().splitlines() or ["git gave no reason"]
        return Origin(None, None, None, note=f"no commit is recorded: {told[0]}")
    changed = hashlib.sha256(diff.encode()).hexdigest()[:16] if diff else None
    return Origin(commit, bool(diff), changed)


def _git(tree: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(tree), *words], check=True, capture_output=True, text=True, timeout=30).stdout
