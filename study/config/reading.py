"""Reads a sweep strictly: YAML 1.2 with line numbers, then `key=value` overrides; every mistake is told with its place.

Overrides are checked as strictly as the file and use the same keys: `train.epochs=2`, `seeds=[0,1]`,
`backbones.vit.train.lr=1e-3`. A list given to an axis replaces its levels; a single value fixes it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

from study.config.options import AugmentOptions, DataOptions, MatchOptions, TrainOptions
from study.config.recipes import recipe_named
from study.config.sweep import SECTIONS, TUNABLE, Cell, Document, Section, Setting, Sweep, Tuning, is_option_key
from study.errors import Problem, UserError

OPTIONS: Mapping[str, type[BaseModel]] = {
    "data": DataOptions, "train": TrainOptions, "augment": AugmentOptions, "match": MatchOptions
}
"""The sections whose options are known before a backbone is."""

NodePath = tuple[str | int, ...]
Places = dict[NodePath, str]
"""Where each node of the document was written: path of keys and indices -> `file:line`."""


def read_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """The sweep of a file with overrides applied, or a UserError that names all mistakes of its form."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        folders = (path, path.parent, Path("sweeps"))
        found = next((files for folder in folders if (files := sorted(map(str, folder.glob("*.yaml"))))), [])
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UserError(Problem(f"cannot read this sweep: {reason}", value=str(path), choices=found)) from None
    tree, places = parse_yaml(text, str(path))
    for override in overrides:
        apply_override(tree, places, override)
    try:
        document = Document.model_validate(tree)
    except ValidationError as error:
        raise UserError(*problems_of(error, Document, places=places, file=str(path))) from None
    sweep = _sweep_of(document, places, path=path, text=text, overrides=tuple(overrides))
    problems = [*_misplaced_keys(sweep), *_unfair_trials(sweep)]
    if problems:
        raise UserError(*problems)
    return sweep


def parse_yaml(text: str, file: str) -> tuple[dict[str, Any], Places]:
    """Plain values and the line of each node; duplicate keys, tabs and torn brackets are told with their line."""
    try:
        loaded = YAML(typ="rt").load(io.StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{file}:{mark.line + 1}" if mark else file
        raise UserError(Problem(f"not valid YAML: {error.problem}", place=place)) from None
    except YAMLError as error:
        raise UserError(Problem(f"not valid YAML: {error}", place=file)) from None
    if not isinstance(loaded, CommentedMap):
        raise UserError(Problem("a mapping of keys to values is expected at the top", place=file))
    places: Places = {}
    return _plain(loaded, (), places, file), places


def _plain(node: Any, path: NodePath, places: Places, file: str) -> Any:
    """ruamel's node as plain Python, its children's lines noted on the way."""
    if isinstance(node, CommentedMap):
        for key, (line, *_) in (node.lc.data or {}).items():
            places[(*path, str(key))] = f"{file}:{line + 1}"
        return {str(key): _plain(value, (*path, str(key)), places, file) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        for index, (line, *_) in (node.lc.data or {}).items():
            places[(*path, index)] = f"{file}:{line + 1}"
        return [_plain(value, (*path, index), places, file) for index, value in enumerate(node)]
    if isinstance(node, bool) or node is None:
        return node
    if isinstance(node, ScalarBoolean):  # a boolean with an anchor, which ruamel holds as a number
        return bool(node)
    for plain in (int, float, str):
        if isinstance(node, plain):
            return plain(node)
    raise UserError(Problem("only numbers, text, true/false, lists and mappings are known here",
                            place=places.get(path, file), key=".".join(map(str, path)), value=node))


def apply_override(tree: dict[str, Any], places: Places, override: str) -> None:
    """Writes one `key=value` into the document, in place; the value is read as YAML."""
    key, equals, raw = override.partition("=")
    if not equals or not key.strip():
        raise UserError(Problem("a setting is written key=value", place="command line", value=override))
    value = parse_yaml(f"value: {raw}", f"command line, {override}")[0]["value"]
    path = _target(tree, key.strip(), value)
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
    """Where a key of the command line is written: an axis of that name first, then a tuned one, then the section."""
    axes = tree.get("axes")
    if isinstance(axes, dict) and key in axes:
        if isinstance(value, list):
            return ("axes", key)
        del axes[key]
    for group in tree.get("zip") or []:
        if isinstance(group, dict) and key in group:
            raise UserError(Problem("a zipped axis is changed in the file, together with its partners",
                                    place="command line", key=key))
    tune = tree.get("tune")
    tuned = tune.get("axes") if isinstance(tune, dict) else None
    if isinstance(tuned, dict) and key in tuned:
        if isinstance(value, list):
            return ("tune", "axes", key)
        del tuned[key]
        if not tuned:
            del tree["tune"]
    for section in (*SECTIONS, "tune.axes"):
        if key.startswith(section + "."):
            return (*section.split("."), key.removeprefix(section + "."))
    return tuple(key.split("."))


def problems_of(
    error: ValidationError, model: type[BaseModel], *, places: Mapping[NodePath, str], file: str, prefix: str = ""
) -> list[Problem]:
    """Pydantic's findings as problems with place, key, value, rule and valid choices."""
    found = []
    for detail in error.errors(include_url=False):
        if detail["type"] == "default_factory_not_called":  # follows from another finding
            continue
        path = tuple(detail["loc"])
        place = next((places[path[:n]] for n in range(len(path), 0, -1) if path[:n] in places), file)
        key = prefix + ".".join(map(str, path))
        found.append(_problem(detail, model, place=place, key=key.rstrip(".")))
    return found


def _problem(detail: ErrorDetails, model: type[BaseModel], *, place: str, key: str) -> Problem:
    kind, value = detail["type"], detail.get("input")
    if kind == "extra_forbidden":
        stem = key.rpartition(".")[0]
        choices = [f"{stem}.{name}" if stem else name for name in model.model_fields]
        if model is Document and not stem:  # `lr=1e-3` means train.lr
            choices += [f"{section}.{name}" for section, group in OPTIONS.items() for name in group.model_fields]
        return Problem("unknown key", place=place, key=key, choices=choices)
    if kind == "missing":
        return Problem("this key is required and missing", place=place, key=key)
    if kind == "literal_error":
        choices = [word.strip(" '") for word in detail["ctx"]["expected"].replace(" or ", ",").split(",")]
        return Problem("not one of the valid choices", place=place, key=key, value=value, choices=choices)
    rule = detail["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    shown = value if isinstance(value, (str, int, float, bool, list)) else None
    return Problem(rule, place=place, key=key, value=shown)


def _sweep_of(document: Document, places: Places, *, path: Path, text: str, overrides: tuple[str, ...]) -> Sweep:
    def setting(value: Any, *where: str | int) -> Setting:
        nearest = next((places[where[:n]] for n in range(len(where), 0, -1) if where[:n] in places), str(path))
        return Setting(value, nearest)

    def flat(sections: Mapping[Section, Mapping[str, Any]], *where: str) -> Cell:
        return {f"{section}.{name}": setting(value, *where, section, name)
                for section, options in sections.items() for name, value in options.items()}

    def levels(group: Mapping[str, list[Any]], *where: str | int) -> dict[str, tuple[Setting, ...]]:
        return {key: tuple(setting(value, *where, key, n) for n, value in enumerate(values))
                for key, values in group.items()}

    recipe = None
    if document.recipe is not None:
        recipe = recipe_named(document.recipe, place=setting(document.recipe, "recipe").place)
    preset = {key: Setting(value, f"recipe {recipe.name}") for key, value in recipe.settings.items()} if recipe else {}
    tuning = None
    if document.tune is not None:
        place = setting(document.tune.seeds, "tune", "seeds").place
        tuning = Tuning(levels(document.tune.axes, "tune", "axes"), tuple(document.tune.seeds), place)
    base = dict(flat({section: getattr(document, section) for section in SECTIONS}))
    if document.backbone is not None:
        base["backbone"] = setting(document.backbone, "backbone")
    return Sweep(
        name=document.name or path.stem,
        path=str(path),
        question=document.question,
        expected=document.expected,
        device=document.device,
        track=tuple(document.track),
        recipe=recipe,
        preset=preset,
        base=base,
        overlays={name: flat(sections, "backbones", name) for name, sections in document.backbones.items()},
        axes=levels(document.axes, "axes"),
        zipped=tuple(levels(group, "zip", n) for n, group in enumerate(document.zip)),
        exclude=tuple({key: setting(value, "exclude", n, key) for key, value in rule.items()}
                      for n, rule in enumerate(document.exclude)),
        seeds=tuple(document.seeds),
        tuning=tuning,
        final={"train.fit_on": setting(document.final.fit_on, "final", "fit_on")} if document.final else {},
        text=text,
        overrides=overrides,
    )


def _misplaced_keys(sweep: Sweep) -> list[Problem]:
    """Keys whose form or place makes no sense: an axis that names no option, a value given twice."""
    tuned = sweep.tuning.axes if sweep.tuning else {}
    groups = [sweep.axes, *sweep.zipped, tuned]
    varied = [(key, levels[0].place) for group in groups for key, levels in group.items()]
    form = f"an axis varies `backbone` or `section.option` with a section of {', '.join(SECTIONS)}"
    problems = [Problem(form, place=place, key=key) for key, place in varied if not is_option_key(key)]
    seen: set[str] = set()
    for key, place in varied:
        fixed = [overlay[key].place for overlay in (sweep.base, *sweep.overlays.values()) if key in overlay]
        if key in seen or fixed:
            told = f"varied here and given at {fixed[0]} too" if fixed else "varied by two axes"
            problems.append(Problem(told, place=place, key=key))
        seen.add(key)
    if "backbone" not in sweep.base and "backbone" not in seen:
        problems.append(Problem("name the backbone, or an axis of backbones", place=sweep.path, key="backbone"))
    own = {key for overlay in sweep.overlays.values() for key in overlay}
    known = {*seen, *sweep.base, *sweep.preset, *own} - {*tuned}
    for rule in sweep.exclude:
        problems += [Problem("excludes by an option that the sweep neither sets nor varies", place=setting.place,
                             key=key, choices=sorted(known))
                     for key, setting in rule.items() if key not in known]
    return problems


def _unfair_trials(sweep: Sweep) -> list[Problem]:
    """Trials over what is no part of the recipe, or with a seed that a final run has too."""
    if sweep.tuning is None:
        return []
    problems = [Problem("trials choose options of the recipe: no model, no data, nothing that changes what a run costs",
                        place=levels[0].place, key=f"tune.axes.{key}", choices=TUNABLE)
                for key, levels in sweep.tuning.axes.items() if key not in TUNABLE]
    shared = sorted(set(sweep.tuning.seeds) & set(sweep.seeds))
    if shared:
        rule = f"final runs have fresh seeds, but both have {', '.join(map(str, shared))}"
        problems.append(Problem(rule, sweep.tuning.place, "tune.seeds", list(sweep.tuning.seeds)))
    return problems
