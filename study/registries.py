"""Registries: the named parts that a sweep chooses from, the package's own and those of the plug-ins in use.

    TOKEN_MIXERS.register("max_gate", TokenMixer(construct=MaxGate, cost=max_gate_cost, is_global=True))

The package registers its parts where they are defined, and a plug-in registers more by the same calls while it is loaded
(`study.config.plugins`). Those are known only inside `parts.in_use()`, so that two sweeps of one process can have
different plug-ins.
"""

import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from study.errors import Problem, UserError

PartT = TypeVar("PartT")
PACKAGE_NAME = __name__.partition(".")[0]


@dataclass(frozen=True)
class Plugin:
    """Code that isn't the package's: its name (of a file, a folder or a distribution with its version), and its digest."""

    name: str
    digest: str


@dataclass(frozen=True)
class PluginPart:
    """A part that a plug-in registered, and the file and line where it did."""

    part: object
    plugin: Plugin
    place: str


@dataclass
class PluginParts:
    """What the plug-ins of one sweep have registered, by the registry's kind and the part's name."""

    parts: dict[tuple[str, str], PluginPart] = field(default_factory=dict)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Inside, the registries have these parts, and no other plug-in's."""
        token = _IN_USE.set(self)
        try:
            yield
        finally:
            _IN_USE.reset(token)

    @contextmanager
    def loading(self, plugin: Plugin) -> Iterator[None]:
        """Inside, `register` adds the parts of this plug-in."""
        token = _LOADING.set(plugin)
        try:
            with self.in_use():
                yield
        finally:
            _LOADING.reset(token)


_IN_USE: ContextVar[PluginParts | None] = ContextVar("the plug-ins in use", default=None)
_LOADING: ContextVar[Plugin | None] = ContextVar("the plug-in that is being loaded", default=None)


class Registry(Mapping[str, PartT], Generic[PartT]):
    """The parts of one kind by name, in the order of their registration; those of the plug-ins in use come last.

    `kind` is what messages call a part and `part_type` its class. `calls` are the attributes of a part that the package calls,
    each with the names of the arguments that it passes by position.
    """

    def __init__(self, kind: str, part_type: type[PartT], *, calls: Mapping[str, tuple[str, ...]]) -> None:
        self.kind, self.part_type, self.calls = kind, part_type, calls
        self.own: dict[str, PartT] = {}  # the package's

    def register(self, name: str, part: PartT) -> None:
        """Add a part. In a plug-in, UserError with the calling file and line for a name that is taken and for no such part."""
        caller, plugin = sys._getframe(1), _LOADING.get()
        if str(caller.f_globals.get("__name__")).partition(".")[0] == PACKAGE_NAME:
            assert name not in self.own, f"two parts of the package: {self.kind} {name}"
            self.own[name] = part
            return
        place, parts = f"{show_path(caller.f_code.co_filename)}:{caller.f_lineno}", _IN_USE.get()
        if plugin is None or parts is None:
            rule = "a part can be registered only while a sweep loads its plug-ins: name this file in its `plugins`"
            raise UserError(Problem(rule, place, self.kind, name))
        if fault := self._find_fault(name, part):
            raise UserError(Problem(fault, place, f"{self.kind} {name}"))
        parts.parts[self.kind, name] = PluginPart(part, plugin, place)

    def find(self, name: object, *, key: str) -> PartT:
        """The part of this name. UserError with the valid names, at the option `key`, if there is none."""
        if isinstance(name, str) and name in self:
            return self[name]
        raise UserError(Problem(f"no {self.kind} of this name", key=key, value=name, choices=tuple(self)))

    def find_plugin_part(self, name: str) -> PluginPart | None:
        """Where a part comes from; None for the package's own."""
        parts = _IN_USE.get()
        return parts.parts.get((self.kind, name)) if parts else None

    def _find_fault(self, name: str, part: object) -> str | None:
        if name in self.own:
            return f"the package has a {self.kind} of this name"
        if earlier := self.find_plugin_part(name):
            return f"a {self.kind} of this name is registered at {earlier.place}"
        if not isinstance(part, self.part_type):
            return f"not a {self.part_type.__name__}, which every {self.kind} is, but a {type(part).__name__}"
        for attribute, arguments in self.calls.items():
            function = getattr(part, attribute)
            if function is not None and (fault := _explain_call(function, arguments)):
                return f"{attribute} is called with {' and '.join(arguments)}: {fault}"
        return None

    def __getitem__(self, name: str) -> PartT:
        if name in self.own:
            return self.own[name]
        if (registered := self.find_plugin_part(name)) is None:
            raise KeyError(name)
        assert isinstance(registered.part, self.part_type)
        return registered.part

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        if parts := _IN_USE.get():
            yield from (name for kind, name in parts.parts if kind == self.kind)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def show_path(path: str) -> str:
    """A path as a message shows it: from the working directory where it is below."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path


def _explain_call(function: object, arguments: tuple[str, ...]) -> str | None:
    """Why a function can't be called with these positional arguments, None if it can."""
    if not callable(function):
        return "it can't be called"
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        return str(error)
    except ValueError:  # of a builtin without a signature
        return None
    return None
