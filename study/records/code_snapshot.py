"""A copy of the package, named by its content hash, and the git commit that it comes from.

Workers import `study` from the copy, so edits while jobs are queued have no effect on them.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from study.atomic_io import flush, make_folder, refusal
from study.errors import Problem, UserError

PACKAGE = Path(__file__).resolve().parents[1]
NOT_CODE = shutil.ignore_patterns("__pycache__", "*.pyc", "*.so", "build")
"""What Python, compilers and setuptools leave between sources."""


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
        if path.is_file() and not NOT_CODE("", list(relative.parts)):
            content = path.read_bytes()
            digest.update(f"{relative.as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def snapshot_name(package: Path = PACKAGE, plugins: Sequence[Path] = ()) -> str:
    """The package's hash, or where there are plug-ins, the hash of both."""
    if not plugins:
        return code_hash(package)
    digest = hashlib.sha256(code_hash(package).encode())
    for path in plugins:
        digest.update(f"{path.name}\0{hashlib.sha256(path.read_bytes() if path.is_file() else b'').hexdigest()}\0".encode())
    return digest.hexdigest()[:16]


def list_copied_plugins(names: Sequence[str], package: Path = PACKAGE) -> list[Path]:
    """The plug-ins of a launch beside the package that it copied."""
    return [package.parent / "plugins" / name for name in names]


def take_snapshot(code: Path, package: Path = PACKAGE, *, plugins: Sequence[Path] = ()) -> str:
    """Copy the package to `code/<hash>/study`, whole and flushed, unless it is there; returns the hash.

    Plug-ins are copied to `code/<hash>/plugins`.

    A copy whose content isn't what its name says (cut off by a power failure, or edited) is put aside and taken anew. To be
    called under the sweep's lock.
    """
    name = snapshot_name(package, plugins)
    place = code / name
    copied = list_copied_plugins([path.name for path in plugins], place / "study")
    if snapshot_name(place / "study", copied) == name:
        return name
    with refusal("copy the code to", place):
        make_folder(code)
        draft = Path(tempfile.mkdtemp(dir=code, prefix=".draft-"))
        try:
            shutil.copytree(package, draft / "study", ignore=NOT_CODE)
            for path in list_copied_plugins([path.name for path in plugins], draft / "study"):
                path.parent.mkdir(exist_ok=True)
                shutil.copyfile(next(each for each in plugins if each.name == path.name), path)
            draft.chmod(0o755)
            with ThreadPoolExecutor(16) as pool:  # so that no file of a renamed folder is empty after a power failure
                list(pool.map(flush, (draft, *draft.rglob("*"))))
            if place.exists():
                aside = place.rename(code / f"{draft.name[1:]}-{name}")
                print(f"the code in {place} was damaged or edited: copied anew, what was there is now {aside}", file=sys.stderr)
            draft.rename(place)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        flush(code)
    return name


def require_launched_code(code: str, package: Path = PACKAGE, *, plugins: Sequence[str] = ()) -> None:
    """Raise UserError if the imported package isn't the copy that a launch took: records name the code that trained them."""
    if snapshot_name(package, list_copied_plugins(plugins, package)) != code:
        rule = "this worker imported other code than its launch copied; launch again, which copies it anew and trains its runs"
        raise UserError(Problem(rule, place=str(package), key="code", value=code))


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
