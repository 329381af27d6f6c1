"""A cell of the grid, resolved: options validated, the data's facts filled in, the width solved for its budget.

Problems are collected, not raised one by one, so that a plan names everything that can't be built at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from study.backbones import names, specification
from study.backbones.closed_form import Cost
from study.backbones.specification import BackboneSpec
from study.config.options import AugmentOptions, DataOptions, MatchOptions, ResolvedData, TrainOptions
from study.config.reading import Places, problems_of
from study.config.run import Run
from study.config.sweep import SECTIONS, Cell, Setting, Sweep
from study.data import DataFacts, facts
from study.errors import Problem, UserError
from study.matching import Unreachable, named_budget, solve
from study.pace import paces, solve_pace
from study.records.benchmark import read_benchmark

OptionsT = TypeVar("OptionsT", bound=BaseModel)
FROM_DATA = {"image_size": "data.image_size", "in_channels": "the data set", "num_classes": "the data set"}
"""Model options that the data decides, so that no sweep can contradict it."""


@dataclass(frozen=True)
class Matched:
    """How a run met its budget: what was matched, the target, the signed residual as a fraction of it."""

    by: str
    target: float | None  # params or MACs (whole numbers), or training seconds per 1,000 images
    residual: float | None
    head_dim: int | None
    tolerance: float | None  # of the residual, a fraction of the target


@dataclass(frozen=True)
class ResolvedCell:
    """A cell with everything decided but the seed."""

    backbone: str
    model: BackboneSpec
    options: DataOptions
    data: ResolvedData
    augment: AugmentOptions
    train: TrainOptions
    cost: Cost
    match: Matched
    levels: Mapping[str, Any]

    def run(self, seed: int) -> Run:
        return Run(backbone=self.backbone, model=self.model, data=self.data, augment=self.augment,
                   train=self.train, seed=seed)


@dataclass
class Resolver:
    """Resolves cells one by one and collects every problem, each once."""

    sweep: Sweep
    problems: list[Problem] = field(default_factory=list)
    _facts: dict[str, DataFacts | None] = field(default_factory=dict)
    _paces: dict[str, dict[BackboneSpec, float]] = field(default_factory=dict)
    _solved: dict[str, tuple[BackboneSpec, Matched]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, overlay in self.sweep.overlays.items():
            if name not in names():
                place = next((setting.place for setting in overlay.values()), self.sweep.path)
                self._tell(Problem("no backbone of this name", place, "backbones", name, names()))

    def resolve(self, cell: Cell, *, imposed: Cell) -> ResolvedCell | None:
        """The cell with its levels, or None where that is a problem; `imposed` goes before everything and is no level."""
        settings = {**self.sweep.settings(cell), **imposed}
        backbone = settings["backbone"]
        if backbone.value not in names():
            self._tell(Problem("no backbone of this name", backbone.place, "backbone", backbone.value, names()))
            return None
        options = self._options(DataOptions, settings, "data")
        augment = self._options(AugmentOptions, settings, "augment")
        train = self._options(TrainOptions, settings, "train")
        match = self._options(MatchOptions, settings, "match")
        found = self._facts_of(options, settings) if options else None
        own = self._own_model_options(settings, specification(backbone.value))
        if not (options and augment and train and match and found) or own is None:
            return None
        solved = self._model(settings, own, match=match, found=found, train=train)
        if solved is None:
            return None
        model, matched = solved
        self._check_recipe(model, train, found, settings)
        levels = {key: setting.value for key, setting in cell.items()}
        return ResolvedCell(backbone=str(backbone.value), model=model, options=options, data=_data(options, found),
                            augment=augment, train=train, cost=model.closed_form(), match=matched, levels=levels)

    def data_options(self, cell: Cell) -> DataOptions | None:
        return self._options(DataOptions, self.sweep.settings(cell), "data")

    def _options(self, kind: type[OptionsT], settings: Cell, section: str) -> OptionsT | None:
        own = _section(settings, section)
        try:
            return kind.model_validate({name: _frozen(setting.value) for name, setting in own.items()})
        except ValidationError as error:
            self._tell(*self._translated(error, kind, own, section))
            return None

    def _translated(
        self, error: ValidationError, kind: type[BaseModel], own: Mapping[str, Setting], section: str
    ) -> list[Problem]:
        places: Places = {(name,): setting.place for name, setting in own.items()}
        fallback = next(iter(places.values()), self.sweep.path).partition(":")[0]
        return problems_of(error, kind, places=places, file=fallback, prefix=f"{section}.")

    def _facts_of(self, options: DataOptions, settings: Cell) -> DataFacts | None:
        key = options.model_dump_json()
        if key not in self._facts:
            self._facts[key] = None
            try:
                self._facts[key] = facts(options)
            except UserError as error:
                place = next(iter(_section(settings, "data").values())).place
                self._tell(*(p if p.place else Problem(p.rule, place, p.key, p.value, p.choices) for p in error.problems))
        return self._facts[key]

    def _model(
        self, settings: Cell, own: Mapping[str, Setting], *, match: MatchOptions, found: DataFacts, train: TrainOptions
    ) -> tuple[BackboneSpec, Matched] | None:
        backbone = settings["backbone"].value
        kind = specification(backbone)
        values = {name: _frozen(setting.value) for name, setting in own.items()}
        values |= {"image_size": found.image_size, "in_channels": found.channels, "num_classes": found.num_classes}
        recipe = [train.precision, train.batch_size] if match.by == "seconds" else []
        key = json.dumps([backbone, values, match.model_dump(mode="json"), recipe], default=str)
        if key in self._solved:
            return self._solved[key]
        try:
            self._solved[key] = self._sized(kind, values, match=match, train=train, settings=settings)
        except ValidationError as error:
            self._tell(*self._translated(error, kind, own, "model"))
        except UserError as error:
            self._tell(*error.problems)
        return self._solved.get(key)

    def _own_model_options(self, settings: Cell, kind: type[BackboneSpec]) -> dict[str, Setting] | None:
        """The model options that this backbone has; one that no backbone of the sweep has is a mistake."""
        own = _section(settings, "model")
        known = {name for backbone in self._backbones() for name in specification(backbone).model_fields}
        overlay = _section(self.sweep.overlays.get(kind.backbone, {}), "model")
        problems = [
            Problem("the data decides this option", setting.place, f"model.{name}", choices=[FROM_DATA[name]])
            for name, setting in own.items() if name in FROM_DATA
        ] + [
            Problem(f"no option of {kind.backbone}" if name in overlay else "no backbone of this sweep has this option",
                    setting.place, f"model.{name}",
                    choices=sorted(f"model.{n}" for n in (kind.model_fields if name in overlay else known)
                                   if n not in FROM_DATA))
            for name, setting in own.items() if name not in (kind.model_fields if name in overlay else known)
        ]
        self._tell(*problems)
        return None if problems else {name: own[name] for name in own if name in kind.model_fields}

    def _backbones(self) -> list[str]:
        varied = self.sweep.factors().get("backbone", [])
        fixed = [self.sweep.base["backbone"].value] if "backbone" in self.sweep.base else []
        return [name for name in [*varied, *fixed] if name in names()]

    def _sized(
        self, kind: type[BackboneSpec], values: dict[str, Any], *, match: MatchOptions, train: TrainOptions, settings: Cell
    ) -> tuple[BackboneSpec, Matched]:
        """The specification at its own width, or at the width that meets the budget."""
        if match.by == "none":
            return kind.model_validate(values), Matched("none", None, None, None, None)
        place = settings["match.target"].place
        template = kind.model_validate(values | {"dim": match.head_dim})
        given = [name for name in template.widths(match.head_dim, match.head_dim) if name in values]
        if given:
            rule = "the budget solves the width: leave this out, or set match.by: none"
            raise UserError(*(Problem(rule, settings[f"model.{name}"].place, f"model.{name}") for name in given))
        if match.by == "seconds":
            return self._paced(template, match=match, train=train, settings=settings)
        target = self._target(match, place)
        try:
            solved = solve(template, by=match.by, target=target, tolerance=match.tolerance, head_dim=match.head_dim)
        except Unreachable as error:
            raise UserError(Problem(str(error), place, "match.target", match.target)) from None
        return solved.spec, Matched(match.by, target, solved.residual, match.head_dim, match.tolerance)

    def _paced(
        self, template: BackboneSpec, *, match: MatchOptions, train: TrainOptions, settings: Cell
    ) -> tuple[BackboneSpec, Matched]:
        """The specification at the width whose pace, as a benchmark file tells it, meets the budget."""
        assert match.benchmark is not None and not isinstance(match.target, str | None)
        key = json.dumps([match.benchmark, train.precision, train.batch_size])
        try:
            if key not in self._paces:
                self._paces[key] = paces(read_benchmark(Path(match.benchmark)), train)
            solved = solve_pace(template, measured=self._paces[key], match=match)
        except UserError as error:
            place = settings["match.benchmark"].place
            raise UserError(*(Problem(p.rule, place, "match.benchmark", p.value, p.choices) for p in error.problems)) from None
        return solved.spec, Matched(match.by, match.target, solved.residual, match.head_dim, match.tolerance)

    def _target(self, match: MatchOptions, place: str) -> int:
        """The budget as a number: given as one, or that of a published variant."""
        assert match.by in ("params", "macs") and not isinstance(match.target, float | None)
        if isinstance(match.target, int):
            return match.target
        try:
            return named_budget(match.target, by=match.by)
        except UserError as error:
            told = (Problem(p.rule, place, "match.target", p.value, p.choices) for p in error.problems)
            raise UserError(*told) from None

    def _check_recipe(self, model: BackboneSpec, train: TrainOptions, found: DataFacts, settings: Cell) -> None:
        """What only data and model together can tell to be impossible."""
        if train.batch_size > found.train_images:
            self._tell(Problem(f"a batch is larger than the {found.train_images:,} training images",
                               _place(settings, "train.batch_size"), "train.batch_size", train.batch_size))
        if train.accumulate > 1 and model.batch_norm:
            self._tell(Problem(f"{model.backbone} has BatchNorm, which sees the micro-batch: no accumulation with it",
                               _place(settings, "train.accumulate"), "train.accumulate", train.accumulate))

    def _tell(self, *problems: Problem) -> None:
        known = {str(problem) for problem in self.problems}
        self.problems += [problem for problem in problems if str(problem) not in known]


def _section(settings: Cell, section: str) -> dict[str, Setting]:
    assert section in SECTIONS
    start = section + "."
    return {key.removeprefix(start): setting for key, setting in settings.items() if key.startswith(start)}


def _place(settings: Cell, key: str) -> str:
    return settings[key].place if key in settings else settings["backbone"].place


def _frozen(value: Any) -> Any:
    """YAML's lists become the tuples that frozen options hold."""
    return tuple(value) if isinstance(value, list) else value


def _data(options: DataOptions, found: DataFacts) -> ResolvedData:
    sizes = {"image_size": found.image_size, "train_images": found.train_images, "val_images": found.val_images,
             "test_images": found.test_images, "num_classes": found.num_classes, "channels": found.channels}
    return ResolvedData.model_validate({**options.model_dump(), **sizes, "digest": found.digest})


def data_options(sweep: Sweep) -> list[DataOptions]:
    """The distinct data sets that a sweep's cells use, or a UserError with the mistakes in their options."""
    resolver = Resolver(sweep)
    found = [resolver.data_options(cell) for cell in sweep.cells()]
    if resolver.problems:
        raise UserError(*resolver.problems)
    return list({options.model_dump_json(): options for options in found if options is not None}.values())
