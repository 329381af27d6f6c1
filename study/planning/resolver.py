"""A cell of the grid, resolved: options validated, the data's facts filled in, the width solved for its budget.

Problems are collected, not raised one by one, so that a plan names everything that can't be built at once.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from study.backbones import get_spec_class, names
from study.backbones.closed_form import Cost
from study.backbones.specification import BackboneSpec
from study.config.mending import mended
from study.config.options import AugmentOptions, DataOptions, MatchOptions, ResolvedData, TrainOptions
from study.config.run import Run
from study.config.sweep import SECTIONS, Cell, Setting, Sweep
from study.config.yaml_source import Places, problems_of
from study.data import DatasetInfo, NotPrepared, describe_dataset
from study.errors import Problem, UserError, nearest
from study.planning.width import Matched, Sized, Sizer, solved_options

OptionsT = TypeVar("OptionsT", bound=BaseModel)
FROM_DATA = {"image_size": "data.image_size", "in_channels": "the data set", "num_classes": "the data set"}
"""Model options that the data decides, so that no sweep can contradict it."""


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
        return Run(backbone=self.backbone, model=self.model, data=self.data, augment=self.augment, train=self.train, seed=seed)


@dataclass(frozen=True)
class Read(Generic[OptionsT]):
    """A section's options as they are most likely meant; only a `sound` one has no mistake."""

    options: OptionsT | None
    sound: bool
    lost: bool  # whether something had to be left out


@dataclass
class Resolver:
    """Resolves cells one by one and collects every problem, each once.

    What follows a mistake is checked as if it were mended, so that one plan tells all. Data that is only not prepared
    yet is no mistake of the sweep, and collected apart.
    """

    sweep: Sweep
    problems: list[Problem] = field(default_factory=list)
    unprepared: list[Problem] = field(default_factory=list)
    _facts: dict[str, DatasetInfo | None] = field(default_factory=dict)
    _sizer: Sizer = field(default_factory=Sizer)

    def __post_init__(self) -> None:
        overlays: dict[str, Cell] = {}
        for name, overlay in self.sweep.overlays.items():
            place = next((setting.place for setting in overlay.values()), self.sweep.path)
            wrong = Problem("no backbone of this name", place, "backbones", name, names())
            self.tell(*([] if name in names() else [wrong]))
            overlays[name if name in names() else wrong.suggestion or name] = overlay
        self.sweep = replace(self.sweep, overlays=overlays)

    def resolve(self, cell: Cell, *, imposed: Cell) -> ResolvedCell | None:
        """The cell with its levels, or None where that is a problem; `imposed` goes before everything and is no level."""
        likely, kind = self._named(cell)
        settings = {**self.sweep.settings(likely), **imposed}
        data = self._read(DataOptions, settings, "data")
        augment = self._read(AugmentOptions, settings, "augment")
        train = self._read(TrainOptions, settings, "train")
        match = self._read(MatchOptions, settings, "match")
        found = self._facts_of(data.options, settings) if data.options else None
        if train.options and found:
            self._check_batches(train.options, found, settings)
        solved = self._model(kind, settings, match=match, found=found, train=train) if kind else None
        sound = likely is cell and all(read.sound for read in (data, augment, train, match))
        if not (sound and data.options and augment.options and train.options and found and solved):
            return None
        model, matched = solved
        levels = {key: setting.value for key, setting in cell.items()}
        return ResolvedCell(
            backbone=model.backbone,
            model=model,
            options=data.options,
            data=_data(data.options, found),
            augment=augment.options,
            train=train.options,
            cost=model.closed_form(),
            match=matched,
            levels=levels,
        )

    def data_options(self, cell: Cell) -> DataOptions | None:
        read = self._read(DataOptions, self.sweep.settings(cell), "data")
        return read.options if read.sound else None

    def tell(self, *problems: Problem) -> None:
        known = {str(problem) for problem in self.problems}
        self.problems += [problem for problem in problems if str(problem) not in known]

    def _named(self, cell: Cell) -> tuple[Cell, type[BackboneSpec] | None]:
        """The cell with its backbone as it is most likely meant, and that; None where nobody can say."""
        backbone = self.sweep.settings(cell).get("backbone")
        if backbone is None:  # told by the form
            return cell, None
        if backbone.value in names():
            return cell, get_spec_class(backbone.value)
        problem = Problem("no backbone of this name", backbone.place, "backbone", backbone.value, names())
        self.tell(problem)
        if problem.suggestion is None:
            return cell, None
        return {**cell, "backbone": Setting(problem.suggestion, backbone.place)}, get_spec_class(problem.suggestion)

    def _read(self, kind: type[OptionsT], settings: Cell, section: str) -> Read[OptionsT]:
        own = _section(settings, section)
        values = {name: _frozen(setting.value) for name, setting in own.items()}
        try:
            return Read(kind.model_validate(values), sound=True, lost=False)
        except ValidationError as error:
            self.tell(*self._translated(error, kind, own, section))
            likely = mended(values, kind, places={})
            return Read(likely.meant, sound=False, lost=likely.lost)

    def _translated(
        self, error: ValidationError, kind: type[BaseModel], own: Mapping[str, Setting], section: str
    ) -> list[Problem]:
        """The error's problems with their places; of a value that nobody gave it is said that it is the default."""
        places: Places = {(name,): setting.place for name, setting in own.items()}
        found = problems_of(error, kind, places=places, file=self.sweep.path, prefix=f"{section}.")
        return [
            problem
            if problem.value is None or problem.key.removeprefix(f"{section}.") in own
            else replace(problem, rule=f"{problem.rule}; {problem.value} is the default", value=None)
            for problem in found
        ]

    def _facts_of(self, options: DataOptions, settings: Cell) -> DatasetInfo | None:
        key = options.model_dump_json()
        if key not in self._facts:
            self._facts[key] = None
            try:
                self._facts[key] = describe_dataset(options)
            except NotPrepared as error:
                words = shlex.join([self.sweep.path, *self.sweep.overrides])
                self.unprepared += [replace(one, rule=one.rule.replace("SWEEP", words)) for one in error.problems]
            except UserError as error:
                self.tell(*(problem.at(self._place(settings, problem.key, "data.name")) for problem in error.problems))
        return self._facts[key]

    def _model(
        self,
        kind: type[BackboneSpec],
        settings: Cell,
        *,
        match: Read[MatchOptions],
        found: DatasetInfo | None,
        train: Read[TrainOptions],
    ) -> Sized | None:
        own, sound = self._own_model_options(settings, kind)
        if match.options is None or match.lost or train.options is None or found is None:
            self._check_alone(kind, own, found=found, by=match.options.by if match.sound and match.options else None)
            return None
        given = [name for name in own if name in solved_options(kind, match.options)]
        rule = "the budget solves the width: leave this out, or set match.by: none"
        self.tell(*(Problem(rule, own[name].place, f"model.{name}") for name in given))
        values = {name: _frozen(setting.value) for name, setting in own.items() if name not in given} | _of_data(found)
        places = {name: self._place(settings, f"match.{name}") for name in ("target", "benchmark")}
        try:
            sized = self._sizer.sized(kind, values, match=match.options, train=train.options, places=places)
        except ValidationError as error:
            self.tell(*self._translated(error, kind, own, "model"))
            return None
        except UserError as error:
            self.tell(*error.problems)
            return None
        self._check_norms(sized[0], train.options, settings)
        return sized if sound and not given else None

    def _check_alone(
        self, kind: type[BackboneSpec], own: Mapping[str, Setting], *, found: DatasetInfo | None, by: str | None
    ) -> None:
        """Tells what is wrong with model options whatever the width is, and the images where they aren't known either.

        The rest has stand-ins, so what breaks a rule between two options may be the stand-in's fault.
        """
        values = {name: _frozen(setting.value) for name, setting in own.items()}
        width = {} if by == "none" else {"dim": 32}
        images = _of_data(found) if found else {"image_size": 32, "in_channels": 3, "num_classes": 10}
        try:
            kind.model_validate({**width, **values, **images})
        except ValidationError as error:
            broken = {f"model.{detail['loc'][0]}" for detail in error.errors() if detail["type"] == "value_error"}
            doubtful = broken if found is None else broken & {"model.heads", "model.position_embedding"}
            told = self._translated(error, kind, own, "model")
            self.tell(*(problem for problem in told if problem.key not in doubtful))

    def _own_model_options(self, settings: Cell, kind: type[BackboneSpec]) -> tuple[dict[str, Setting], bool]:
        """The model options that this backbone has, and whether all are sound.

        One that no backbone of the sweep has is a mistake, and taken for the one that is meant.
        """
        own = _section(settings, "model")
        overlay = _section(self.sweep.overlays.get(kind.backbone, {}), "model")
        known = {name for backbone in self._backbones() for name in get_spec_class(backbone).model_fields}
        kept, problems = {name: setting for name, setting in own.items() if name in kind.model_fields}, []
        for name, setting in own.items():
            valid = set(kind.model_fields) if name in overlay else known
            if name in FROM_DATA:
                del kept[name]
                rule, choices = "the data decides this option", [FROM_DATA[name]]
                problems.append(Problem(rule, setting.place, f"model.{name}", choices=choices))
            elif name not in valid:
                rule = f"no option of {kind.backbone}" if name in overlay else "no backbone of this sweep has this option"
                choices = sorted(f"model.{option}" for option in valid - FROM_DATA.keys())
                problems.append(Problem(rule, setting.place, f"model.{name}", choices=choices))
                meant = (problems[-1].suggestion or "").removeprefix("model.")
                kept |= {meant: setting} if meant in kind.model_fields and meant not in own else {}
        self.tell(*problems)
        return kept, not problems

    def _backbones(self) -> list[str]:
        """The backbones of the sweep, misspelt ones as they are meant."""
        varied = self.sweep.factors().get("backbone", [])
        fixed = [self.sweep.base["backbone"].value] if "backbone" in self.sweep.base else []
        meant = [name if name in names() else nearest(str(name), names()) for name in [*varied, *fixed]]
        return [name for name in meant if name is not None] or list(names())

    def _check_batches(self, train: TrainOptions, found: DatasetInfo, settings: Cell) -> None:
        """What only recipe and data together can tell to be impossible."""
        if train.batch_size > found.train_images:
            self.tell(
                Problem(
                    f"a batch is larger than the {found.train_images:,} training images",
                    self._place(settings, "train.batch_size"),
                    "train.batch_size",
                    train.batch_size,
                )
            )

    def _check_norms(self, model: BackboneSpec, train: TrainOptions, settings: Cell) -> None:
        """What only recipe and model together can tell to be impossible."""
        if train.accumulate > 1 and model.has_batch_norm:
            self.tell(
                Problem(
                    f"{model.backbone} has BatchNorm, which sees the micro-batch: no accumulation with it",
                    self._place(settings, "train.accumulate"),
                    "train.accumulate",
                    train.accumulate,
                )
            )

    def _place(self, settings: Cell, *keys: str) -> str:
        """Where the first of these keys that is given stands, or the file."""
        return next((settings[key].place for key in keys if key in settings), self.sweep.path)


def _section(settings: Cell, section: str) -> dict[str, Setting]:
    assert section in SECTIONS
    start = section + "."
    return {key.removeprefix(start): setting for key, setting in settings.items() if key.startswith(start)}


def _frozen(value: Any) -> Any:
    """YAML's lists become the tuples that frozen options hold."""
    return tuple(value) if isinstance(value, list) else value


def _of_data(found: DatasetInfo) -> dict[str, int]:
    """The model options that the data decides."""
    return {"image_size": found.image_size, "in_channels": found.channels, "num_classes": found.num_classes}


def _data(options: DataOptions, found: DatasetInfo) -> ResolvedData:
    sizes = {
        "image_size": found.image_size,
        "train_images": found.train_images,
        "val_images": found.val_images,
        "test_images": found.test_images,
        "num_classes": found.num_classes,
        "channels": found.channels,
    }
    return ResolvedData.model_validate({**options.model_dump(), **sizes, "digest": found.digest})


def data_options(sweep: Sweep) -> list[DataOptions]:
    """The distinct data sets that a sweep's cells use, or a UserError with the mistakes in their options."""
    resolver = Resolver(sweep)
    found = [resolver.data_options(cell) for cell in sweep.cells()]
    if resolver.problems:
        raise UserError(*resolver.problems)
    return list({options.model_dump_json(): options for options in found if options is not None}.values())
