"""The package's structure: few rooms on few floors, and module names that occur once. `lint-imports` checks the directions."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import grimp
import pytest

from study.__main__ import COMMANDS

PACKAGE = Path(__file__).resolve().parents[1] / "study"
MAX_ROOMS = 20
MAX_FLOORS = 9


def room(module: str) -> str:
    """The folder or top-level module of a module; all commands and what they share are one room."""
    parts = module.split(".")[1:]
    if not parts or parts[0] in (*COMMANDS, "__main__", "cli"):
        return "commands"
    return parts[0]


@cache
def room_imports() -> dict[str, frozenset[str]]:
    """For each room the other rooms that it imports, also inside functions and for type annotations."""
    graph = grimp.build_graph("study", cache_dir=None)
    modules = graph.modules - {"study"}  # the public interface refers to its functions for type checkers only
    imports: dict[str, set[str]] = {room(module): set() for module in modules}
    for module in modules:
        imports[room(module)] |= {room(other) for other in graph.find_modules_directly_imported_by(module) if other in modules}
    return {name: frozenset(others - {name}) for name, others in imports.items()}


@cache
def floor(name: str) -> int:
    """1 for a room that imports no other, else one more than the highest room that it imports."""
    return 1 + max((floor(other) for other in room_imports()[name]), default=0)


def test_few_rooms():
    """A reader can keep the folders in mind, nested ones counted."""
    nested = [folder for folder in PACKAGE.rglob("*/*/") if (folder / "__init__.py").exists()]
    assert len(room_imports()) + len(nested) <= MAX_ROOMS


def test_few_floors():
    """The longest chain of rooms that import each other is short; a circle of rooms would never end."""
    try:
        assert max(map(floor, room_imports())) <= MAX_FLOORS
    except RecursionError:
        pytest.fail("rooms import each other in a circle")


def test_module_names_are_unique():
    """A file's name says which module it is."""
    names = Counter(path.stem for path in PACKAGE.rglob("*.py") if path.stem != "__init__")
    assert [name for name, count in names.items() if count > 1] == []
