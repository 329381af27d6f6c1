"""What a power cut leaves of a folder: nothing that wasn't flushed, as POSIX promises no more.

A file's content counts from its own fsync, a name in a folder (a new file or folder, a rename, a removal) from the folder's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from interposition import Call


@dataclass
class Change:
    """A change of names that the folder's fsync makes durable; `kept` is the file that was removed or replaced."""

    kind: str
    path: str
    source: str = ""  # of a rename
    kept: Path | None = None

    def undo(self) -> None:
        with contextlib.suppress(OSError):
            if self.kind == "mkdir":
                shutil.rmtree(self.path)
            elif self.kind == "create":
                os.unlink(self.path)
            elif self.kind == "rename":
                os.rename(self.path, self.source)
            if self.kept is not None:
                os.replace(self.kept, self.path)


@dataclass
class VolatileDisk:
    """Follows the calls on a folder's files; `saved` is a folder on the same disk for what is removed."""

    saved: Path
    flushed: dict[str, int] = field(default_factory=dict)  # how much of a written file is durable
    changes: list[Change] = field(default_factory=list)  # those that are not durable, in their order

    def observe(self, call: Call) -> None:
        """Note a call that is about to happen."""
        path = call.path
        if call.kind == "create":
            if call.is_new:
                self.changes.append(Change("create", path))
                self.flushed[path] = 0
            elif call.truncates:
                self.flushed[path] = 0
        elif call.kind == "write":
            if path not in self.flushed:
                self.flushed[path] = os.path.getsize(path)
        elif call.kind == "fsync" and os.path.isdir(path):
            self.changes = [change for change in self.changes if os.path.dirname(change.path) != path]
        elif call.kind == "fsync":
            self.flushed[path] = os.path.getsize(path)
        elif call.kind == "mkdir" and not os.path.exists(path):
            self.changes.append(Change("mkdir", path))
        elif call.kind == "unlink" and os.path.isfile(path):
            self.changes.append(Change("unlink", path, kept=self._keep(path)))
            self.flushed.pop(path, None)
        elif call.kind == "rename" and os.path.exists(path):
            self._follow(path, call.target)
            kept = self._keep(call.target) if os.path.isfile(call.target) else None
            self.changes.append(Change("rename", call.target, source=path, kept=kept))

    def cut_power(self, *, names: bool) -> None:
        """Empty what wasn't flushed; with `names`, also undo the changes of names that were not."""
        for path, size in self.flushed.items():
            with contextlib.suppress(FileNotFoundError):
                if os.path.getsize(path) > size:
                    os.truncate(path, size)
        while names and self.changes:
            change = self.changes.pop()
            change.undo()
            if change.kind == "rename":
                self._follow(change.path, change.source)

    def _follow(self, before: str, after: str) -> None:
        """What is known of a file or folder is known under its new name."""

        def renamed(path: str) -> str:
            return after + path[len(before) :] if path == before or path.startswith(before + os.sep) else path

        self.flushed = {renamed(path): size for path, size in self.flushed.items() if path != after or after == before}
        for change in self.changes:
            change.path = renamed(change.path)

    def _keep(self, path: str) -> Path:
        self.saved.mkdir(exist_ok=True)
        kept = self.saved / f"{len(list(self.saved.iterdir()))}"
        os.link(path, kept)
        return kept
