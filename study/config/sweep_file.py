"""Reads a sweep file strictly: YAML 1.2 with line numbers, then `key=value` overrides, then the rules of a sweep.

Overrides use the keys of the file and are checked as strictly: `train.epochs=2`, `seeds=10`, `backbones.vit.train.lr=1e-3`.
A list given to an axis replaces its levels; a single value fixes it.

Mistakes are reported layer by layer, all mistakes of a layer at once: first the form of the document, then rules between
its keys, then (`study.planning.resolver`) the options of every cell, then the models that they describe.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from study.config.comparison import Comparison, check_comparison, choose_kind, read_expectation, split_expected
from study.config.folder_name import NAME_RULE, is_folder_name
from study.config.options import OUTSIDE_IDENTITY
from study.config.plugins import LoadedPlugins, load_plugins
from study.config.recipes import RECIPES
from study.config.seeds import Stages
from study.config.sweep import (
    BASELINE,
    CHANGE,
    DEFAULT_TRIAL_SEEDS,
    FIRST_TRIAL_SEED,
    MAX_RUNS,
    SECTIONS,
    SEED_SPACING,
    TUNABLE,
    Ablation,
    Cell,
    Document,
    Section,
    Setting,
    Sweep,
    Tuning,
    has_value,
    is_option_key,
)
from study.config.yaml_source import OPTIONS, NodePath, Places, list_problems, read_options, unknown_rule
from study.errors import Problem, UserError, and_more, sort_by_line

_UNCOMPARED: Mapping[str, str] = {
    "train.read_test": "runs that don't read the test set have nothing to compare",
    **{
        f"{section}.{name}": "this option changes no result, so runs can't be compared by it: set it once"
        for section, group in OPTIONS.items()
        for name, field in group.model_fields.items()
        if field.json_schema_extra == OUTSIDE_IDENTITY and (section, name) not in (("data", "root"), ("train", "start"))
    },
}
"""Options that are no axis, with the reason: the run table has no column for them."""


def read_sweep(path: str | Path, overrides: Sequence[str] = (), *, text: str | None = None, with_plugins: bool = True) -> Sweep:
    """The sweep of a file with overrides applied; `text` is what the file will have, if it isn't written yet.

    Without its plug-ins a sweep can't be planned, but what is recorded of it can be found.

    Raises UserError with all mistakes of the document's form; if there are none, with all that break rules between keys.
    """
    path = Path(path)
    folders = (path, path.parent, Path("sweeps"), Path())
    document, places, text = read_options(path, Document, overrides, what="sweep", folders=folders, given=text)
    files = [path.parent / file for file in document.plugins] if with_plugins else []
    where = [places.get(("plugins", n), places.get(("plugins",), str(path))) for n in range(len(files))]
    plugins = load_plugins(files, where) if files else LoadedPlugins()
    comparison, problems = _read_comparison(document, places, path)
    with plugins.in_use():
        sweep = _build_sweep(document, places, path=path, text=text, overrides=tuple(overrides))
        if document.recipe not in (None, *RECIPES) and (with_plugins or not document.plugins):
            place = places.get(("recipe",), str(path))
            problems.append(Problem("no recipe of this name", place, "recipe", document.recipe, sorted(RECIPES)))
    sweep = replace(sweep, comparison=comparison, plugins=plugins)
    if not is_folder_name(sweep.name):
        rule = f"{NAME_RULE}; `name:` or name=... gives another than the file's"
        problems.append(Problem(rule, places.get(("name",), str(path)), "name", sweep.name))
    problems += _check_size(sweep)
    problems += _check_axes(sweep)
    problems += _check_ablation(sweep)
    problems += check_comparison(sweep.comparison, sweep.factors())
    problems += [] if problems else _check_exclusions(sweep)  # an option that they name may be what is misspelt
    problems += [] if problems else _check_unmatched_exclusions(sweep)
    problems += _check_trials(sweep)
    if problems:
        raise UserError(*sort_by_line(problems))
    return sweep


def _build_sweep(document: Document, places: Places, *, path: Path, text: str, overrides: tuple[str, ...]) -> Sweep:
    def setting(value: Any, *where: str | int) -> Setting:
        innermost = next((places[where[:n]] for n in range(len(where), 0, -1) if where[:n] in places), str(path))
        return Setting(value, innermost)

    def flatten(sections: Mapping[Section, Mapping[str, Any]], *where: str) -> Cell:
        return {
            f"{section}.{name}": setting(value, *where, section, name)
            for section, options in sections.items()
            for name, value in options.items()
        }

    def levels(group: Mapping[str, list[Any]], *where: str | int) -> dict[str, tuple[Setting, ...]]:
        return {key: tuple(setting(value, *where, key, n) for n, value in enumerate(values)) for key, values in group.items()}

    def cell(options: Mapping[str, Any], *where: str | int) -> Cell:
        return {key: setting(value, *where, key) for key, value in options.items()}

    recipe = RECIPES.get(document.recipe or "")
    ablation = None
    if (ablate := document.ablate) is not None:
        changes = {name: cell(options, "ablate", "changes", name) for name, options in ablate.changes.items()}
        ablation = Ablation(cell(ablate.baseline, "ablate", "baseline"), changes, ablate.match, ablate.tune)
    stages = document.seeds if isinstance(document.seeds, Stages) else None
    tuning = None
    if document.tune is not None:
        tune, final = document.tune, stages.every if stages else document.seeds
        unused = (seed for seed in itertools.count(FIRST_TRIAL_SEED) if tune.per == "seed" or seed not in final)
        seeds = tune.seeds or list(itertools.islice(unused, DEFAULT_TRIAL_SEEDS))
        place = setting(seeds, "tune", "seeds").place
        tuning = Tuning(levels(tune.axes, "tune", "axes"), tuple(seeds), place, tune.widen, tune.per)
    base = dict(flatten({section: getattr(document, section) for section in SECTIONS}))
    if document.backbone is not None:
        base["backbone"] = setting(document.backbone, "backbone")
    return Sweep(
        name=document.name or path.stem,
        path=str(path),
        question=document.question,
        expected=split_expected(document.expected)[0],
        effect_of_interest=document.effect_of_interest,
        comparison=Comparison(),
        device=document.device,
        deterministic=document.deterministic,
        track=tuple(document.track),
        plugins=LoadedPlugins(),
        recipe=recipe,
        preset={key: Setting(value, f"recipe {recipe.name}") for key, value in recipe.settings.items()} if recipe else {},
        base=base,
        overlays={name: flatten(sections, "backbones", name) for name, sections in document.backbones.items()},
        axes=levels(document.axes, "axes"),
        zipped=tuple(levels(group, "zip", n) for n, group in enumerate(document.zip)),
        exclude=tuple(cell(rule, "exclude", n) for n, rule in enumerate(document.exclude)),
        ablation=ablation,
        seeds=stages.seeds if stages else tuple(document.seeds),
        stages=stages,
        tuning=tuning,
        final={"train.fit_on": setting(document.final.fit_on, "final", "fit_on")} if document.final else {},
        text=text,
        overrides=overrides,
    )


def _read_comparison(document: Document, places: Places, path: Path) -> tuple[Comparison, list[Problem]]:
    """What the file states about its comparison, and the mistakes in expectations that can be checked."""
    stated = document.contrasts
    where: dict[str, NodePath] = {
        f"contrasts.{part}.{name}": ("contrasts", part, name) for part in ("reference", "own") for name in getattr(stated, part)
    }
    where["contrasts.primary"] = ("contrasts", "primary")
    entries: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for n, entry in split_expected(document.expected)[1]:
        node: NodePath = ("expected", n) if isinstance(document.expected, list) else ("expected",)
        where[f"expected.{len(entries)}"] = node
        try:
            entries.append(read_expectation(entry))
        except ValidationError as error:
            own = {key[len(node) :]: place for key, place in places.items() if key[: len(node)] == node}
            problems += list_problems(
                error, choose_kind(entry), places=own, file=places.get(node, str(path)), prefix="expected."
            )
    lines = {
        key: next(places[node[:n]] for n in range(len(node), 0, -1) if node[:n] in places)
        for key, node in where.items()
        if node[:1] in places
    }
    return Comparison(stated.reference, stated.own, stated.primary, entries, lines), problems


def _check_size(sweep: Sweep) -> Iterator[Problem]:
    """A sweep of more runs than any cluster trains, counted before its grid is expanded."""
    groups = [*map(len, sweep.axes.values()), *(len(next(iter(group.values()), ())) for group in sweep.zipped)]
    groups += [1 + len(sweep.ablation.changes)] if sweep.ablation else []
    runs = len(sweep.every_seed)
    if (tuning := sweep.tuning) is not None:
        runs += tuning.trials_per_choice * (1 if tuning.per == "cell" else len(sweep.every_seed))
    if math.prod(groups) * runs > MAX_RUNS:
        levels = " x ".join(f"{count:,}" for count in groups) or "no"
        rule = f"a sweep plans at most {MAX_RUNS:,} runs, trials included and exclude not counted"
        yield Problem(f"{rule}: this one has {levels} levels, each with {runs:,} runs", sweep.path, "axes")


def _list_given(sweep: Sweep) -> dict[str, str]:
    """Where the sections give each option, in words."""
    layers = (sweep.final, *list(sweep.overlays.values())[::-1], sweep.base)
    return {key: f"given at {setting.place}" for layer in layers for key, setting in layer.items()}


def _check_axes(sweep: Sweep) -> Iterator[Problem]:
    """Axes that name no option, options that are given twice, and a sweep without a backbone."""
    form = f"an axis varies `backbone` or `section.option` with a section of {', '.join(SECTIONS)}"
    options = ["backbone", *(f"{section}.{name}" for section, group in OPTIONS.items() for name in group.model_fields)]
    given = _list_given(sweep)
    tuned = sweep.tuning.axes if sweep.tuning else {}
    for key, levels in (axis for group in (sweep.axes, *sweep.zipped, tuned) for axis in group.items()):
        if not is_option_key(key):
            yield Problem(form, place=levels[0].place, key=key, candidates=options)
        elif rule := _UNCOMPARED.get(key):
            yield Problem(rule, place=levels[0].place, key=key)
        elif key in given:
            yield Problem(f"varied here and {given[key]}", place=levels[0].place, key=key)
        given[key] = f"varied at {levels[0].place}"
    if "data.label" in given and {"data.name", "data.root"} & sweep.factors().keys():
        rule = f"several data sets can't share one label, {given['data.label']}: each goes by its name, or that of its folder"
        yield Problem(rule, place=sweep.path, key="data.label")
    if "backbone" not in given and "backbone" not in (sweep.ablation.baseline if sweep.ablation else {}):
        yield Problem("name the backbone, or an axis of backbones", place=sweep.path, key="backbone")


def _check_ablation(sweep: Sweep) -> Iterator[Problem]:
    """Changes of what is no option, a baseline given twice, and changes of what is varied, which would undo each other."""
    if (ablation := sweep.ablation) is None:
        return
    form = f"a change sets `backbone` or `section.option` with a section of {', '.join(SECTIONS)}"
    options = ["backbone", *(f"{section}.{name}" for section, group in OPTIONS.items() for name in group.model_fields)]
    tuned = sweep.tuning.axes if sweep.tuning else {}
    groups = (sweep.axes, *sweep.zipped, tuned)
    varied = {key: f"varied at {levels[0].place}" for group in groups for key, levels in group.items()}
    parts = {"baseline": ablation.baseline, **{f"changes.{name}": own for name, own in ablation.changes.items()}}
    for part, own in parts.items():
        given = varied if part != "baseline" else {**_list_given(sweep), **varied}
        for key, each in own.items():
            name = f"ablate.{part}.{key}"
            if not is_option_key(key):
                yield Problem(form, place=each.place, key=name, candidates=[f"ablate.{part}.{option}" for option in options])
            elif key in given:
                yield Problem(f"given here and {given[key]}", place=each.place, key=name)
    if ablation.tune == "baseline" and sweep.tuning is None:
        rule = "changes can take their baseline's choice only where something is tuned: add `tune`, or leave this out"
        yield Problem(rule, sweep.path, "ablate.tune", ablation.tune)


def _check_exclusions(sweep: Sweep) -> Iterator[Problem]:
    """Exclusions by options that no cell has a value for, or that trials choose."""
    ablation = [{CHANGE: ()}, sweep.ablation.baseline, *sweep.ablation.changes.values()] if sweep.ablation else []
    layers = (sweep.axes, *sweep.zipped, sweep.base, sweep.preset, *sweep.overlays.values(), *ablation)
    known = {key for layer in layers for key in layer} - (sweep.tuning.axes.keys() if sweep.tuning else set())
    rule = "exclude refers to an option that is neither set nor varied"
    for key, setting in (entry for excluded in sweep.exclude for entry in excluded.items()):
        if key not in known:
            yield Problem(rule, place=setting.place, key=key, choices=sorted(known))
        elif key == CHANGE and setting.value not in (choices := sweep.factors()[CHANGE]):
            yield Problem("exclude names no change of this sweep", setting.place, key, setting.value, choices)
    if sweep.ablation and (kept := list(sweep.cells())):
        where = [", ".join(f"{key} {level.value}" for key, level in cell.items() if key != CHANGE) for cell in kept]
        baselines = {name for cell, name in zip(kept, where, strict=True) if cell[CHANGE].value == BASELINE}
        lacking = {cell[CHANGE]: name for cell, name in zip(kept, where, strict=True) if name not in baselines}
        for change, name in lacking.items():
            rule = f"exclude leaves this change without its baseline{f' at {name}' if name else ''}"
            yield Problem(rule, change.place, f"ablate.changes.{change.value}")


def _check_unmatched_exclusions(sweep: Sweep) -> list[Problem]:
    """Exclusions that leave no cell out; those of levels that the command line has changed may."""
    overridden = {word.partition("=")[0].strip().removeprefix("axes.") for word in sweep.overrides}
    rules = [excluded for excluded in sweep.exclude if not excluded.keys() & overridden]  # which may leave nothing to exclude
    found = [dict.fromkeys(excluded, False) for excluded in rules]
    matched = [False] * len(rules)
    for settings in map(sweep.settings, sweep.grid() if rules else ()):
        for n, excluded in enumerate(rules):
            same = {key: has_value(settings, key, wanted) for key, wanted in excluded.items()}
            found[n] = {key: found[n][key] or same[key] for key in excluded}
            matched[n] = matched[n] or all(same.values())
    problems = []
    for n in (n for n, each in enumerate(matched) if not each):
        alone = {key: wanted for key, wanted in rules[n].items() if not found[n][key]}
        rule = "exclude leaves nothing out: " + (
            "no cell has this value" if alone else "no cell has all of these values together"
        )
        for key, wanted in (alone or rules[n]).items():
            levels = sorted({str(level) for level in sweep.factors().get(key, [])}) if alone else ()
            problems.append(Problem(rule, place=wanted.place, key=key, value=wanted.value, choices=levels))
    return problems


def _check_trials(sweep: Sweep) -> Iterator[Problem]:
    """Trials over options that are not part of the recipe, or with a seed of a final run."""
    if sweep.tuning is None:
        return
    rule = "trials choose options of the recipe: no model, no data, nothing that changes what a run costs"
    for key, levels in sweep.tuning.axes.items():
        if is_option_key(key) and key not in TUNABLE:
            yield Problem(unknown_rule(key, rule), place=levels[0].place, key=f"tune.axes.{key}", choices=TUNABLE)
    tuning = sweep.tuning
    if tuning.per == "seed" and max(tuning.seeds) >= SEED_SPACING:
        rule = (
            f"where each seed tunes for itself, trial seeds are numbers below {SEED_SPACING}, counted for each final seed anew"
        )
        yield Problem(rule, tuning.place, "tune.seeds")
    if tuning.per == "seed" and sweep.stages:
        rule = "where each seed tunes for itself, further seeds would need trials of their own: give a number of seeds"
        yield Problem(rule, tuning.place, "seeds", "until: decided")
    trials = {seed for final in sweep.every_seed for seed in tuning.seeds_for(final)}
    if shared := sorted(trials & set(sweep.every_seed)):
        rule = f"final runs have fresh seeds, but both have {', '.join(and_more(list(map(str, shared)), 8))}"
        yield Problem(rule, tuning.place, "tune.seeds")
