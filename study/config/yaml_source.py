"""YAML 1.2, read strictly: plain values with their lines, `key=value` overrides, and pydantic's errors as problems."""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import ReusedAnchorWarning, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, Event, ScalarEvent
from ruamel.yaml.scalarbool import ScalarBoolean

from study.atomic_io import read_regular
from study.config.formats import current_name
from study.config.options import AugmentOptions, DataOptions, MatchOptions, TrainOptions
from study.config.sweep import SECTIONS, Document
from study.errors import Problem, UserError, sort_by_line

OPTIONS: Mapping[str, type[BaseModel]] = {
    "data": DataOptions,
    "train": TrainOptions,
    "augment": AugmentOptions,
    "match": MatchOptions,
}
"""The sections whose options are known before a backbone is."""

OptionsT = TypeVar("OptionsT", bound=BaseModel)
MAX_BYTES, MAX_NODES, MAX_DEPTH, MAX_DIGITS = 200_000, 20_000, 40, 40
"""Far above any file that a person writes."""
NUMBER = re.compile(r"[-+]?(0x[0-9a-fA-F_]+|0[ob][0-7_]+|[0-9_]+)")

EXTENSION = "x-"  # keys of a file's top level that hold anchors for its aliases, as in Compose files
UNKNOWN = "unknown key"
MISSING = "this key is required and missing"
KEY_MARK = "[key]"  # pydantic's, behind a key that is itself the mistake

NodePath = tuple[str | int, ...]
Places = dict[NodePath, str]
"""The place of each node of a document: path of keys and indices -> `file:line`."""


def read_options(
    path: Path, kind: type[OptionsT], overrides: Sequence[str], *, what: str, folders: Sequence[Path], given: str | None = None
) -> tuple[OptionsT, Places, str]:
    """The options of a file (or of the text `given` in its place) with overrides applied, the places of its nodes, its text.

    Raises UserError with all mistakes; where the file can't be read, with those of the first of `folders` that has any.
    """
    try:
        text = read_regular(path, MAX_BYTES).decode("utf-8") if given is None else given
    except (OSError, UnicodeDecodeError) as error:
        places_to_look = [] if isinstance(error, UnicodeDecodeError) else folders
        choices = next((files for folder in places_to_look if (files := sorted(map(str, folder.glob("[!.]*.yaml"))))), [])
        named = [str(file) for folder in places_to_look if (file := folder / f"{path.name}.yaml").is_file()]
        choices = named or choices  # of the folder of its runs, a sweep's own file alone
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UserError(Problem(f"cannot read this {what}: {reason}", value=str(path), choices=choices)) from None
    tree, places = parse_yaml(text, str(path))
    tree = {key: value for key, value in tree.items() if not key.startswith(EXTENSION)}
    problems = apply_overrides(tree, places, overrides)
    try:
        options = kind.model_validate(tree)
    except ValidationError as error:
        problems += list_problems(error, kind, places=places, file=str(path))
    if problems:
        raise UserError(*sort_by_line(problems))
    return options, places, text


def _check_bounds(text: str, file: str) -> None:
    """Raise UserError for a document that would grow without bounds: counted before an alias is expanded or a number read."""
    anchors: dict[str, int] = {}  # nodes below each anchor, with its aliases expanded
    open_nodes = [("", 0)]  # anchor, and nodes so far

    def refuse(event: Event, rule: str) -> NoReturn:
        raise UserError(Problem(rule, place=f"{file}:{event.start_mark.line + 1}"))

    for event in YAML(typ="rt").parse(io.StringIO(text)):
        nodes = 1
        if isinstance(event, AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_nodes):
                refuse(event, f"the alias *{event.anchor} stands inside what it repeats")
            nodes = anchors.get(event.anchor, 1)
        elif isinstance(event, CollectionStartEvent):
            open_nodes.append((event.anchor or "", 0))
            if len(open_nodes) > MAX_DEPTH:
                refuse(event, f"settings are nested at most {MAX_DEPTH} deep")
            continue
        elif isinstance(event, CollectionEndEvent):
            anchor, nodes = open_nodes.pop()
            nodes += 1
            if anchor:
                anchors[anchor] = nodes
        elif isinstance(event, ScalarEvent):
            if len(event.value) > MAX_DIGITS and NUMBER.fullmatch(event.value):
                refuse(event, f"a number has at most {MAX_DIGITS} digits")
        else:
            continue
        anchor, before = open_nodes[-1]
        open_nodes[-1] = anchor, before + nodes
        if sum(count for _, count in open_nodes) > MAX_NODES:
            refuse(event, f"a file of settings has at most {MAX_NODES:,} values, those that aliases repeat included")


def parse_yaml(text: str, file: str) -> tuple[dict[str, Any], Places]:
    """Plain values, and the line of each node. UserError with the line of duplicate keys, tabs and open brackets."""
    try:
        _check_bounds(text, file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReusedAnchorWarning)  # YAML lets an anchor be given anew
            loaded = YAML(typ="rt").load(io.StringIO(text))
    except ValueError as error:  # of a date that there isn't
        raise UserError(Problem(f"not valid YAML: {error}", place=file)) from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        place = f"{file}:{mark.line + 1}" if mark else file
        raise UserError(Problem(f"not valid YAML: {getattr(error, 'problem', error)}", place=place)) from None
    if not isinstance(loaded, CommentedMap):
        raise UserError(Problem("a mapping of keys to values is expected at the top", place=file))
    places: Places = {}
    return _plain(loaded, (), places, file), places


def _plain(node: Any, path: NodePath, places: Places, file: str) -> Any:
    """A node of ruamel as plain Python; the lines of its children are added to `places`."""
    if isinstance(node, CommentedMap):
        for key, (line, *_) in (node.lc.data or {}).items():
            places[(*path, str(key))] = f"{file}:{line + 1}"
        return {str(key): _plain(value, (*path, str(key)), places, file) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        for index, (line, *_) in (node.lc.data or {}).items():
            places[(*path, index)] = f"{file}:{line + 1}"
        return [_plain(value, (*path, index), places, file) for index, value in enumerate(node)]
    if node is None:
        return None
    if isinstance(node, bool | ScalarBoolean):  # a boolean with an anchor is an int in ruamel
        return bool(node)
    for plain in (int, float, str):
        if isinstance(node, plain):
            return plain(node)
    rule = "only numbers, text, true/false, lists and mappings are known here"
    raise UserError(Problem(rule, places.get(path, file), ".".join(map(str, path)), node))


def apply_overrides(tree: dict[str, Any], places: Places, overrides: Sequence[str]) -> list[Problem]:
    """Write `key=value` words into the document, in place; the problems of those that can't be are returned."""
    problems: list[Problem] = []
    for override in overrides:
        try:
            _apply(tree, places, override)
        except UserError as error:
            problems += error.problems
    return problems


def parse_override(word: str) -> tuple[str, Any]:
    """A `key=value` word of the command line, its value read as YAML; UserError for any other word."""
    key, equals, raw = word.partition("=")
    if not equals or not key.strip():
        raise UserError(Problem("a setting is written key=value", place="command line", value=word))
    return key.strip(), parse_yaml(f"value: {raw}", f"command line, {word}")[0]["value"]


def _apply(tree: dict[str, Any], places: Places, override: str) -> None:
    key, value = parse_override(override)
    path = _target(tree, key, value)
    node = tree
    for part in path[:-1]:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise UserError(Problem("this key holds no further keys", place="command line", key=key))
    node[str(path[-1])] = value
    for below in [place for place in places if place[: len(path)] == path]:
        del places[below]
    places[path] = f"command line, {override}"


def _target(tree: dict[str, Any], key: str, value: Any) -> tuple[str, ...]:
    """The path that an override writes to: an axis of that name first, then a tuned one, a baseline's, the section."""
    axes = tree.get("axes")
    if isinstance(axes, dict) and key in axes:
        if isinstance(value, list):
            return ("axes", key)
        del axes[key]
    for group in tree.get("zip") or []:
        if isinstance(group, dict) and key in group:
            rule = "a zipped axis can only be changed in the file, together with the axes zipped with it"
            raise UserError(Problem(rule, place="command line", key=key))
    tuned = tree["tune"].get("axes") if isinstance(tree.get("tune"), dict) else None
    if isinstance(tuned, dict) and key in tuned:
        if isinstance(value, list):
            return ("tune", "axes", key)
        del tuned[key]
        if not tuned:
            del tree["tune"]
    ablated = tree["ablate"].get("baseline") if isinstance(tree.get("ablate"), dict) else None
    if isinstance(ablated, dict) and key in ablated:
        return ("ablate", "baseline", key)
    for section in (*SECTIONS, "tune.axes"):
        if key.startswith(section + "."):
            return (*section.split("."), key.removeprefix(section + "."))
    return tuple(key.split("."))


def list_problems(
    error: ValidationError, model: type[BaseModel] | None, *, places: Mapping[NodePath, str], file: str, prefix: str = ""
) -> list[Problem]:
    """Pydantic's errors as problems with place, key, value, rule and valid choices; `model`: whose keys these are."""
    found = []
    for detail in error.errors(include_url=False):
        if detail["type"] == "default_factory_not_called":  # a consequence of another error
            continue
        path = tuple(detail["loc"])
        place = next((places[path[:n]] for n in range(len(path), 0, -1) if path[:n] in places), file)
        key = prefix + ".".join(str(part) for part in path if part != KEY_MARK)
        found.append(_problem(detail, model, place=place, key=key.rstrip(".")))
    misspelt = {problem.suggestion for problem in found if problem.rule == UNKNOWN}
    return [problem for problem in found if problem.rule != MISSING or problem.key not in misspelt]


def _problem(detail: ErrorDetails, model: type[BaseModel] | None, *, place: str, key: str) -> Problem:
    kind, value = detail["type"], detail.get("input")
    if kind == "extra_forbidden" and model is Document and "." in str(detail["loc"][0]):
        section, _, name = str(detail["loc"][0]).partition(".")
        rule = f"in a file, an option stands in its section: {section}: {{{name}: ...}}"
        return Problem(rule, place=place, key=key, value=value if isinstance(value, (str, int, float)) else None)
    if kind == "extra_forbidden":
        section = key.rpartition(".")[0]
        fields = _find_model(model, detail["loc"][:-1]).model_fields if model else ()
        choices = [f"{section}.{name}" if section else name for name in fields]
        options = [f"{section}.{name}" for section, group in OPTIONS.items() for name in group.model_fields]
        candidates = options if model is Document and not section else ()
        return Problem(unknown_rule(key, UNKNOWN), place=place, key=key, choices=choices, candidates=candidates)
    if kind == "missing":
        return Problem(MISSING, place=place, key=key)
    if kind == "literal_error":
        choices = [word.strip(" '") for word in detail["ctx"]["expected"].replace(" or ", ",").split(",")]
        return Problem("not one of the valid choices", place=place, key=key, value=value, choices=choices)
    rule = detail["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    rule = rule.replace("a valid dictionary", "a mapping of keys to values").replace("a valid boolean", "true or false")
    if value is None:
        rule += "; the value is empty"
    shown = value if isinstance(value, (str, int, float, bool, list)) else None
    return Problem(rule, place=place, key=key, value=shown)


def _find_model(model: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel]:
    """The model of a nested section, such as `tune`."""
    for name in map(str, path):
        annotation = model.model_fields[name].annotation if name in model.model_fields else None
        nested = [
            kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type) and issubclass(kind, BaseModel)
        ]
        model = nested[0] if nested else model
    return model


def unknown_rule(key: str, rule: str) -> str:
    """The rule that an unknown option breaks; for one under a former name, its current name."""
    return f"this option is now called {current_name(key)}" if current_name(key) != key else rule
