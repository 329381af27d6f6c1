"""What a document with mistakes most likely means, so that one reading finds the mistakes behind the first ones too.

A misspelt key or word is taken for its nearest valid one, a value that can't be is left out, and what is required has a
stand-in. Nothing is ever trained from the result: it is only searched for what else is wrong.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from study.config.yaml_source import KEY_MARK, NodePath, Places, literal_choices
from study.errors import nearest

ModelT = TypeVar("ModelT", bound=BaseModel)
STAND_INS: Mapping[str, Any] = {"question": "?", "seeds": [0], "epochs": 1_000_000}  # warmup is shorter than these
ROUNDS = 4  # what is left out may be required, or a part of something that breaks a rule


@dataclass(frozen=True)
class Mended(Generic[ModelT]):
    """What a document may mean; None where nothing could be made of it.

    Where something is `lost`, that it is missing elsewhere is no mistake of its own.
    """

    meant: ModelT | None
    lost: bool


def mended(tree: Mapping[str, Any], model: type[ModelT], *, places: Places) -> Mended[ModelT]:
    """The document as it is likely meant. `places` learns where renamed nodes stand."""
    fixed, lost = copy.deepcopy(dict(tree)), False
    for _ in range(ROUNDS):
        try:
            return Mended(model.model_validate(fixed), lost)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                lost |= not _mend(fixed, detail, list(model.model_fields), places)
    return Mended(None, lost=True)


def _mend(tree: dict[str, Any], detail: ErrorDetails, known: Sequence[str], places: Places) -> bool:
    """Mends one finding in place; False where something had to be left out for it."""
    path, kind = tuple(detail["loc"]), detail["type"]
    if path[-1:] == (KEY_MARK,):
        return _rename(tree, path[:-1], literal_choices(detail), places)
    if kind == "extra_forbidden":
        return _rename(tree, path, known if len(path) == 1 else (), places)
    if path and path[0] in STAND_INS:
        tree[str(path[0])] = STAND_INS[str(path[0])]
        return True
    node, name = _holder(tree, path[:1] if kind == "missing" else path)
    value = node.get(name)
    if kind == "literal_error" and (word := nearest(str(value), literal_choices(detail))):
        node[name] = word
        return True
    if isinstance(value, list) and len(distinct := list({repr(one): one for one in value}.values())) < len(value):
        node[name] = distinct
        return True
    node.pop(name, None)
    return False


def _rename(tree: dict[str, Any], path: NodePath, known: Sequence[str], places: Places) -> bool:
    """A misspelt key takes the name that is meant, unless that is there already; False where it's left out."""
    node, name = _holder(tree, path)
    value, meant = node.pop(name, None), nearest(name, known)
    if meant is None or meant in node:
        return False
    node[meant] = value
    for place in [place for place in places if place[: len(path)] == path]:
        places[(*path[:-1], meant, *place[len(path) :])] = places[place]
    return True


def _holder(tree: dict[str, Any], path: NodePath) -> tuple[dict[str, Any], str]:
    """The innermost mapping on the path, and the key in it that leads on."""
    node, name = tree, str(path[0]) if path else ""
    for part in path[1:]:
        if not isinstance(node.get(name), dict):
            break
        node, name = node[name], str(part)
    return node, name
