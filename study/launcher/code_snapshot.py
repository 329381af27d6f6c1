"""A copy of the package, named by its content hash, and the git commit that it comes from.

Workers import `study` from the copy, so edits while jobs are queued have no effect on them.
"""

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
    """The commit of the code, whether there were uncommitted changes, and a hash of those; None without git."""

    commit: str | None
    dirty: bool | None
    diff: str | None
    note: str = ""


def code_hash(package: Path = PACKAGE) -> str:
    """Hash of the names and contents of all files that a snapshot copies, untracked ones included; 16 hex digits."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        relative = path.relative_to(package)
        if path.is_file() and "__pycache__" not in relative.parts and path.suffix not in (".pyc", ".so"):
            digest.update(f"{relative.as_posix()}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def take_snapshot(code: Path, package: Path = PACKAGE) -> str:
    """Copy the package to `code/<hash>/study`, atomically, unless it exists; returns the hash."""
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


def find_origin(tree: Path = PACKAGE.parent) -> Origin:
    """The origin of the package in a source tree, or a note why it has none."""
    try:
        commit = _git(tree, "rev-parse", "HEAD").strip()
        diff = _git(tree, "diff", "HEAD", "--", "study") + _git(tree, "ls-files", "-o", "--exclude-standard", "study")
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines() or ["git gave no reason"]
        return Origin(None, None, None, note=f"no commit is recorded: {reason[0]}")
    changed = hashlib.sha256(diff.encode()).hexdigest()[:16] if diff else None
    return Origin(commit, bool(diff), changed)


def _git(tree: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(tree), *words], check=True, capture_output=True, text=True, timeout=30).stdout
