"""A killed run resumes from its newest checkpoint; a damaged or foreign file is reported, renamed and never loaded.

A checkpoint file is one line with the SHA-256 of the rest, then what `torch.save` wrote. Its name carries run, writer
and step, `<run_id>.<writer>.<step>.checkpoint`, so that a dying worker that overlaps its successor never shares a file
with it. An incomplete file of a killed writer ends in `.part`.
"""

import hashlib
import io
import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from study.atomic_io import read_regular, whole_file
from study.config.documents import CORRECTABLE

log = logging.getLogger(__name__)

SavedState = Mapping[str, Any]

KEPT_STEPS = 2  # should the newest be unreadable, the one before it is close
MAX_CHECKPOINT_BYTES = 1 << 40
SHARE_OF_TIME = 0.01  # maximum that is spent on writing
LEAST_INTERVAL_SECONDS = 60.0
NAME = re.compile(r"(?P<run_id>.+)\.(?P<writer>[^.]+)\.(?P<step>\d{9})\.(checkpoint|part)")


class Checkpoints:
    """The checkpoints of one run in `folder`, as one writer sees them.

    `writer` names launch, task and restart, for example `20260102-101500-3-0`; no two processes share one. `notes` collects
    messages about files that were quarantined or couldn't be written.
    """

    def __init__(self, folder: Path, run_id: str, writer: str, *, interval_seconds: float = LEAST_INTERVAL_SECONDS):
        assert "." not in writer and "/" not in writer, f"{writer!r} can't be part of a checkpoint's name"
        self.folder, self.run_id, self.writer = folder, run_id, writer
        self.notes: list[str] = []
        self._least_interval = interval_seconds
        self._next_save = time.monotonic() + interval_seconds

    def due(self) -> bool:
        """Whether it's time to save: after a minute, and later where writing is slow, to stay within 1 % of the time."""
        return time.monotonic() >= self._next_save

    def save(self, state: SavedState, *, step: int) -> None:
        """Write the state after `step` steps, then remove what it replaces.

        Where it can't be written, on a full disk say, nothing is removed, a note says so, and the training goes on.
        """
        started = time.monotonic()
        try:
            path = self._path(step)
            with whole_file(path, draft=path.with_suffix(".part")) as draft, draft.open("xb") as file:
                file.writelines(encode({"run_id": self.run_id, "step": step, "state": dict(state)}))
        except OSError as error:
            self._note(f"the checkpoint at step {step} could not be written: {error}")
        else:
            # Keep the newest two steps, and what another writer saved after more steps than this one.
            kept = sorted((found for found in self.steps() if found <= step), reverse=True)[:KEPT_STEPS]
            replaced = [path for path in self._of_run() if step_of(path) <= step and step_of(path) not in kept]
            partial = [path for path in self._of_run("part") if f".{self.writer}." not in path.name and step_of(path) <= step]
            for path in [*replaced, *partial]:
                path.unlink(missing_ok=True)
        finally:
            now = time.monotonic()
            self._next_save = now + max(self._least_interval, (now - started) / SHARE_OF_TIME)

    def steps(self) -> set[int]:
        """The steps after which there are checkpoints, by the file names alone."""
        return set(map(step_of, self._of_run()))

    def newest(self, *, like: SavedState) -> SavedState | None:
        """The newest readable state, on the CPU, or None. It must have the keys, types and shapes of `like`; None: any."""
        for path in sorted(self._of_run(), key=step_of, reverse=True):
            try:
                return self._read(path, like)
            except FileNotFoundError:  # a writer that overlaps this one has replaced it since the folder was listed
                continue
            except ValueError as error:
                self._quarantine(path, str(error))
        return None

    def discard(self) -> None:
        """Remove all files of the run; called when its record is on disk."""
        for path in [*self._of_run(), *self._of_run("part"), *self.folder.glob(f"{self.run_id}.*.bad")]:
            path.unlink(missing_ok=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"{self.run_id}.{self.writer}.{step:09d}.checkpoint"

    def _of_run(self, suffix: str = "checkpoint") -> list[Path]:
        found = ((path, NAME.fullmatch(path.name)) for path in self.folder.glob(f"{self.run_id}.*.{suffix}"))
        return [path for path, match in found if match and match["run_id"] == self.run_id]

    def _read(self, path: Path, like: SavedState) -> SavedState:
        try:
            content = read_regular(path, MAX_CHECKPOINT_BYTES)
        except OSError as error:
            if error.errno not in CORRECTABLE:
                raise
            raise ValueError(f"it can't be read ({error.strerror})") from None
        document = decode(content)
        if document.get("run_id") != self.run_id or document.get("step") != step_of(path):
            raise ValueError(f"it belongs to {document.get('run_id')} at step {document.get('step')}")
        state = document.get("state")
        if not isinstance(state, dict) or state.keys() != like.keys():
            raise ValueError("it was written by another version of this project")
        if wrong := [name for name in like if not _fits(state[name], like[name])]:
            raise ValueError(f"its {', '.join(wrong)} can't be of this run")
        return cast(SavedState, state)

    def _quarantine(self, path: Path, reason: str) -> None:
        aside = path.with_name(f"{path.name}.{self.writer}.bad")
        try:
            path.rename(aside)
        except FileNotFoundError:
            return
        self._note(f"checkpoint {path.name} is not used: {reason}; kept as {aside.name}")

    def _note(self, note: str) -> None:
        log.warning("%s", note)
        self.notes.append(note)


def _fits(saved: object, like: object) -> bool:
    """Whether a saved value can replace `like`: tensors, alone or by name, of the same shapes and types; else the same type."""
    if isinstance(like, torch.Tensor):
        return isinstance(saved, torch.Tensor) and (saved.shape, saved.dtype) == (like.shape, like.dtype)
    if isinstance(like, dict) and like and all(isinstance(each, torch.Tensor) for each in like.values()):
        return isinstance(saved, dict) and saved.keys() == like.keys() and all(_fits(saved[name], like[name]) for name in like)
    return like is None or isinstance(saved, type(like))


def step_of(path: Path) -> int:
    """The number of steps after which a checkpoint was saved."""
    return int(path.name.split(".")[-2])


def encode(document: SavedState) -> tuple[bytes, memoryview]:
    """A checkpoint's bytes in two pieces, the digest's line and the document, so that a large model isn't copied."""
    buffer = io.BytesIO()
    torch.save(dict(document), buffer)
    body = buffer.getbuffer()
    return hashlib.sha256(body).hexdigest().encode() + b"\n", body


def decode(content: bytes) -> dict[str, Any]:
    """The document of a checkpoint's bytes, its tensors on the CPU; ValueError where they are damaged or something else."""
    end = content.find(b"\n")
    body = memoryview(content)[end + 1 :]
    if hashlib.sha256(body).hexdigest().encode() != content[: max(end, 0)]:
        raise ValueError("it is incomplete or damaged")
    try:
        document = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises whatever the bytes make it raise
        raise ValueError(f"it can't be read: {(str(error) or type(error).__name__).splitlines()[0]}") from error
    if not isinstance(document, dict):
        raise ValueError("it isn't a checkpoint")
    return document
