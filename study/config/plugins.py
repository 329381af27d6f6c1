"""Plug-ins: a user's own files that register parts (`study.registries`), as a sweep names them in `plugins`.

A file is executed once for each of its contents. It is trusted like the package itself. Its mistakes are reported with its own
file and line.
"""

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from study.atomic_io import read_regular
from study.errors import Problem, UserError
from study.registries import Plugin, PluginParts, show_path

MAX_PLUGIN_BYTES = 10_000_000


@dataclass(frozen=True)
class LoadedPlugins:
    """The plug-ins of one sweep, loaded in their order: their files, and what they registered."""

    paths: tuple[Path, ...] = ()
    parts: PluginParts = field(default_factory=PluginParts)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Inside, the registries have these parts; an exception in a plug-in's code becomes a UserError with its line."""
        with self.parts.in_use():
            try:
                yield
            except (UserError, ValidationError):
                raise
            except Exception as error:
                if place := _find_line(error, self.paths):
                    raise UserError(Problem(_describe(error), place)) from error
                raise


def load_plugins(paths: Sequence[Path], places: Sequence[str] = ()) -> LoadedPlugins:
    """Execute these files; `places` are where the sweep names them.

    Raises UserError for a file that can't be read or executed, that registers nothing, or that registers what is no part.
    """
    problems, contents = [], []
    names = [path.name for path in paths]
    for n, path in enumerate(paths):
        place = places[n] if places else ""
        try:
            contents.append(hashlib.sha256(read_regular(path, MAX_PLUGIN_BYTES)).hexdigest()[:16])
        except OSError as error:
            problems.append(Problem(f"cannot read this plug-in: {error.strerror}", place, "plugins", str(path)))
        if path.suffix != ".py" or names.count(path.name) > 1:
            rule = "plug-ins are Python files (.py), each with a name of its own"
            problems.append(Problem(rule, place, "plugins", str(path)))
    if problems:
        raise UserError(*problems)
    return _load(tuple(path.resolve() for path in paths), tuple(contents))


@cache
def _load(paths: tuple[Path, ...], digests: tuple[str, ...]) -> LoadedPlugins:
    """One set of classes for one content: specifications of a plug-in are compared by their class too."""
    loaded = LoadedPlugins(paths)
    for path, digest in zip(paths, digests, strict=True):
        plugin = Plugin(path.name, digest)
        name = f"plugin_{path.stem}_{digest}"
        found = importlib.util.spec_from_file_location(name, path)
        assert found is not None and found.loader is not None, path
        module = importlib.util.module_from_spec(found)
        sys.modules[name] = module  # where dataclasses and pydantic look up the names in annotations
        before = len(loaded.parts.parts)
        try:
            with loaded.parts.loading(plugin):
                found.loader.exec_module(module)
        except UserError:
            raise
        except Exception as error:
            place = _find_line(error, [path]) or show_path(str(path))
            raise UserError(Problem(_describe(error), place)) from error
        if len(loaded.parts.parts) == before:
            raise UserError(Problem("this plug-in registers nothing", show_path(str(path)), "plugins"))
    return loaded


def _find_line(error: Exception, paths: Sequence[Path]) -> str:
    """The innermost line of these files that an exception passed through; "" if it passed none."""
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename) in paths:
        return f"{show_path(error.filename)}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) in paths]
    return f"{show_path(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""


def _describe(error: Exception) -> str:
    rule = f"{type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, ImportError):
        rule += "; a plug-in is one file, and imports only what is installed where its runs are trained"
    return rule
