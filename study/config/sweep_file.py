"""Reads a sweep strictly: YAML 1.2 with line numbers, then `key=value` overrides; every mistake is told with its place.

Overrides are checked as strictly as the file and use the same keys: `train.epochs=2`, `seeds=[0,1]`,
`backbones.vit.train.lr=1e-3`. A list given to an axis replaces its levels; a single value fixes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from study.config.mending import mended
from study.config.recipes import RECIPES, unknown_recipe
from study.config.sweep import SECTIONS, TUNABLE, Cell, Document, Section, Setting, Sweep, Tuning, is_option_key
from study.config.yaml_source import OPTIONS, Places, apply_overrides, parse_yaml, problems_of
from study.errors import Problem, UserError

NO_BACKBONE = "name the backbone, or an axis of backbones"
NOT_SET = "excludes by an option that the sweep neither sets nor varies"


@dataclass(frozen=True)
class Draft:
    """A sweep as its file is most likely meant, and every mistake in its form. Only one without mistakes is a sweep.

    Where something is `lost`, because nobody can say what it means, that it is missing elsewhere is no mistake of its own.
    """

    sweep: Sweep | None
    problems: tuple[Problem, ...]
    lost: bool


def read_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """The sweep of a file with overrides applied, or a UserError that names all mistakes of its form."""
    draft = read_draft(path, overrides)
    if draft.problems:
        raise UserError(*draft.problems)
    assert draft.sweep is not None
    return draft.sweep


def read_draft(path: Path, overrides: Sequence[str] = ()) -> Draft:
    """The same with its mistakes beside it; a UserError only where the file is no YAML at all."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        folders = (path, path.parent, Path("sweeps"))
        found = next((files for folder in folders if (files := sorted(map(str, folder.glob("*.yaml"))))), [])
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UserError(Problem(f"cannot read this sweep: {reason}", value=str(path), choices=found)) from None
    tree, places = parse_yaml(text, str(path))
    problems = apply_overrides(tree, places, overrides)
    try:
        Document.model_validate(tree)
    except ValidationError as error:
        problems += problems_of(error, Document, places=places, file=str(path))
    likely = mended(tree, Document, places=places)
    if likely.meant is None:
        return Draft(None, tuple(problems), lost=True)
    recipe = Setting(likely.meant.recipe, places.get(("recipe",), str(path)))
    unknown = [] if recipe.value in (None, *RECIPES) else [unknown_recipe(recipe.value, place=recipe.place)]
    document = likely.meant.model_copy(update={"recipe": unknown[0].suggestion}) if unknown else likely.meant
    sweep = _sweep_of(document, places, path=path, text=text, overrides=tuple(overrides))
    problems += [*unknown, *_misplaced_keys(sweep), *_unfair_trials(sweep)]
    sweep = replace(sweep, tuning=_tunable(sweep.tuning))
    lost = likely.lost or (bool(unknown) and document.recipe is None) or not all(map(is_option_key, sweep.factors()))
    told = [problem for problem in problems if not (lost and problem.rule in (NO_BACKBONE, NOT_SET))]
    return Draft(sweep, tuple(told), lost)


def _sweep_of(document: Document, places: Places, *, path: Path, text: str, overrides: tuple[str, ...]) -> Sweep:
    def setting(value: Any, *where: str | int) -> Setting:
        nearest = next((places[where[:n]] for n in range(len(where), 0, -1) if where[:n] in places), str(path))
        return Setting(value, nearest)

    def flat(sections: Mapping[Section, Mapping[str, Any]], *where: str) -> Cell:
        return {
            f"{section}.{name}": setting(value, *where, section, name)
            for section, options in sections.items()
            for name, value in options.items()
        }

    def levels(group: Mapping[str, list[Any]], *where: str | int) -> dict[str, tuple[Setting, ...]]:
        return {key: tuple(setting(value, *where, key, n) for n, value in enumerate(values)) for key, values in group.items()}

    recipe = RECIPES[document.recipe] if document.recipe is not None else None
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
        deterministic=document.deterministic,
        track=tuple(document.track),
        recipe=recipe,
        preset=preset,
        base=base,
        overlays={name: flat(sections, "backbones", name) for name, sections in document.backbones.items()},
        axes=levels(document.axes, "axes"),
        zipped=tuple(levels(group, "zip", n) for n, group in enumerate(document.zip)),
        exclude=tuple(
            {key: setting(value, "exclude", n, key) for key, value in rule.items()} for n, rule in enumerate(document.exclude)
        ),
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
    options = ["backbone", *(f"{section}.{name}" for section, group in OPTIONS.items() for name in group.model_fields)]
    problems = [Problem(form, place=place, key=key, candidates=options) for key, place in varied if not is_option_key(key)]
    seen: set[str] = set()
    for key, place in varied:
        fixed = [overlay[key].place for overlay in (sweep.base, *sweep.overlays.values(), sweep.final) if key in overlay]
        if key in seen or fixed:
            told = f"varied here and given at {fixed[0]} too" if fixed else "varied by two axes"
            problems.append(Problem(told, place=place, key=key))
        seen.add(key)
    if "backbone" not in sweep.base and "backbone" not in seen:
        problems.append(Problem(NO_BACKBONE, place=sweep.path, key="backbone"))
    own = {key for overlay in sweep.overlays.values() for key in overlay}
    known = {*seen, *sweep.base, *sweep.preset, *own} - {*tuned}
    for rule in sweep.exclude:
        problems += [
            Problem(NOT_SET, place=setting.place, key=key, choices=sorted(known))
            for key, setting in rule.items()
            if key not in known
        ]
    return problems


def _tunable(tuning: Tuning | None) -> Tuning | None:
    """The trials without axes that are no part of the recipe, if any are left."""
    axes = {key: levels for key, levels in tuning.axes.items() if key in TUNABLE} if tuning else {}
    return replace(tuning, axes=axes) if tuning and axes else None


def _unfair_trials(sweep: Sweep) -> list[Problem]:
    """Trials over what is no part of the recipe, or with a seed that a final run has too."""
    if sweep.tuning is None:
        return []
    problems = [
        Problem(
            "trials choose options of the recipe: no model, no data, nothing that changes what a run costs",
            place=levels[0].place,
            key=f"tune.axes.{key}",
            choices=TUNABLE,
        )
        for key, levels in sweep.tuning.axes.items()
        if key not in TUNABLE
    ]
    shared = sorted(set(sweep.tuning.seeds) & set(sweep.seeds))
    if shared:
        rule = f"final runs have fresh seeds, but both have {', '.join(map(str, shared))}"
        problems.append(Problem(rule, sweep.tuning.place, "tune.seeds", list(sweep.tuning.seeds)))
    return problems
