"""Resolves the cells of a sweep: options validated, the data set's sizes filled in, the width solved for the budget.

Mistakes are collected over all cells and reported in two layers: first the options that a section doesn't have or allow,
then, where all of these are valid, the models that can't be built from them or can't meet the budget.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel, ValidationError

from study.backbones import get_spec_class, names
from study.backbones.specification import BackboneSpec
from study.config.options import AugmentOptions, DataOptions, MatchOptions, ResolvedData, TrainOptions
from study.config.run import Run
from study.config.sweep import BASELINE, CHANGE, Cell, Section, Setting, Sweep
from study.config.yaml_source import OptionsT, Places, list_problems, unknown_rule
from study.data import DatasetInfo, NotPrepared, describe_dataset
from study.data.datasets import DATASETS
from study.errors import Problem, UserError, sort_by_line
from study.planning.ablation_widths import impose_budget, keep_widths
from study.planning.planned_run import PlannedRun
from study.planning.planned_start import StartPlanner
from study.planning.plugin_check import find_plugins
from study.planning.traced_cost import find_cost
from study.planning.training_budget import solve_epochs
from study.planning.width import BudgetMatch, WidthSolver, options_set_by_budget
from study.registries import Registry
from study.training.augmentation.policies import AUGMENTATIONS
from study.training.optimizer import OPTIMIZERS

FROM_DATA = {"image_size": "data.image_size", "in_channels": "the data set", "num_classes": "the data set"}
"""Model options that the data decides, so that no sweep can contradict it."""
_OPEN_EPOCHS = 1_000_000  # until the budget has solved them: no warm-up is longer

REGISTERED: Mapping[Section, Mapping[str, Registry[Any]]] = {
    "data": {"name": DATASETS},
    "augment": {"auto_augment": AUGMENTATIONS},
    "train": {"optimizer": OPTIMIZERS},
}
"""The options that name a registered part, apart from those of backbones."""


@dataclass
class Resolver:
    """Resolves cells one by one and collects the problems of all of them, each once."""

    sweep: Sweep
    option_problems: list[Problem] = field(default_factory=list)
    model_problems: list[Problem] = field(default_factory=list)
    _not_prepared: list[Problem] = field(default_factory=list)  # no mistake of the sweep
    _datasets: dict[str, DatasetInfo | None] = field(default_factory=dict)
    _widths: WidthSolver = field(default_factory=WidthSolver)
    _starts: StartPlanner = field(default_factory=StartPlanner)

    def __post_init__(self) -> None:
        for name, overlay in self.sweep.overlays.items():
            place = next((setting.place for setting in overlay.values()), self.sweep.path)
            if name not in names():
                self.option_problems.append(Problem("no backbone of this name", place, "backbones", name, names()))

    def resolve(self, cell: Cell, *, imposed: Cell) -> PlannedRun | None:
        """The cell's final run with the sweep's first seed, or None if that is a problem.

        The settings `imposed` override all others and are not among the run's levels.
        """
        settings: Cell = {**self.sweep.settings(cell), **imposed}
        ablation, baseline = self.sweep.ablation, None
        if ablation and ablation.match and cell[CHANGE].value != BASELINE:
            if (baseline := self.resolve({**cell, CHANGE: Setting(BASELINE, cell[CHANGE].place)}, imposed=imposed)) is None:
                return None
            if baseline.match.by in ("training_macs", "training_seconds"):
                rule = "a budget of training solves epochs at the widths given: leave this out, changes keep their widths"
                self.option_problems.append(Problem(rule, self.sweep.path, "ablate.match", ablation.match))
                return None
            settings = impose_budget(settings, baseline, by=ablation.match, own=ablation.changes[cell[CHANGE].value])
        data = self.read_section(DataOptions, settings, "data")
        augment = self.read_section(AugmentOptions, settings, "augment")
        match = self.read_section(MatchOptions, settings, "match")
        settings = self._leave_epochs_open(settings, match)
        train = self.read_section(TrainOptions, settings, "train")
        backbone = settings["backbone"]
        if backbone.value not in names():
            problem = Problem("no backbone of this name", backbone.place, "backbone", backbone.value, names())
            self.option_problems.append(problem)
            return None
        kind = get_spec_class(backbone.value)
        model = self._read_model_options(settings, kind)
        if data is None or augment is None or train is None or match is None or model is None:
            return None
        info = self._describe_dataset(data, settings)
        if info is None:
            self._check_unprepared(data, kind, model, match)
            return None
        if solved := [name for name in model if name in options_set_by_budget(kind, match)]:
            rule = "the budget solves the width: leave this out, or set match.by: none"
            self.model_problems += [Problem(rule, model[name].place, f"model.{name}") for name in solved]
            return None
        values = {name: _freeze(setting.value) for name, setting in model.items()}
        values |= {"image_size": info.image_size, "in_channels": info.channels, "num_classes": info.num_classes}
        try:
            solved_widths = baseline and keep_widths(kind, values, match, baseline=baseline)
            spec, met = solved_widths or self._widths.solve(kind, values, match, train)
        except ValidationError as error:
            self.model_problems += self._translate(error, kind, model, "model")
            return None
        except UserError as error:
            self._add_budget_problems(error, settings, match)
            return None
        self._check_options(spec, data, train, info=info, settings=settings)
        if match.solves_epochs:
            if (solved_epochs := self._solve_epochs(spec, match, train, info=info, settings=settings)) is None:
                return None
            train, met = solved_epochs
        train, fit = self._resolve_start(train, spec, info, settings, match=match)
        sizes = {name: getattr(info, name) for name in ResolvedData.__annotations__}
        resolved = ResolvedData.model_validate({**data.model_dump(), **sizes})
        run = Run(spec.backbone, spec, resolved, augment, _clear_idle(train, spec), seed=self.sweep.seeds[0])
        run = replace(run, plugins=find_plugins(run))
        return PlannedRun(run, find_cost(spec), met, levels={key: setting.value for key, setting in cell.items()}, fit=fit)

    def _leave_epochs_open(self, settings: Cell, match: MatchOptions | None) -> Cell:
        """The settings of a cell, with open epochs where its budget solves them, or may do so and is a mistake.

        A recipe may give them all the same: it is stretched.
        """
        open_epochs = {"train.epochs": Setting(_OPEN_EPOCHS, self.sweep.path)}
        if match is None or not match.solves_epochs:
            return settings if match else {**open_epochs, **settings}
        given, recipe = settings.get("train.epochs"), self.sweep.preset.get("train.epochs")
        if given is not None and given is not recipe:
            rule = "the budget solves the epochs: leave this out, or set another match.by"
            self.option_problems.append(Problem(rule, given.place, "train.epochs", given.value))
        return {**settings, **open_epochs}

    def _solve_epochs(
        self, spec: BackboneSpec, match: MatchOptions, train: TrainOptions, *, info: DatasetInfo, settings: Cell
    ) -> tuple[TrainOptions, BudgetMatch] | None:
        """The recipe with the epochs that meet the budget, or None if that is a problem."""
        images = info.train_images + (info.val_images if train.fit_on == "train+val" else 0)
        if train.batch_size > info.train_images:
            return None  # a problem already
        try:
            epochs, met = solve_epochs(spec, match, train, images=images, solver=self._widths)
            return TrainOptions.model_validate({**train.model_dump(), "epochs": epochs}), met
        except ValidationError as error:
            self.model_problems += self._translate(error, TrainOptions, _settings_of(settings, "train"), "train")
        except UserError as error:
            self._add_budget_problems(error, settings, match)
        return None

    def _add_budget_problems(self, error: UserError, settings: Cell, match: MatchOptions) -> None:
        key = "match.target" if match.benchmark is None else "match.benchmark"
        self.model_problems += [problem.at(self._place(settings, key), key) for problem in error.problems]

    def _check_options(
        self, spec: BackboneSpec, data: DataOptions, train: TrainOptions, *, info: DatasetInfo, settings: Cell
    ) -> None:
        """Options of data and recipe that mean nothing with these images or this model."""
        if train.batch_size > info.train_images:
            rule = f"a batch is larger than the {info.train_images:,} training images"
            self._add_model_problem(rule, settings, "train.batch_size", train.batch_size)
        if data.permute_patches and spec.grid == 1:
            rule = f"an image that is one patch has none to permute: a patch_size below {spec.image_size}"
            self._add_model_problem(rule, settings, "data.permute_patches", True)
        if train.accumulate > 1 and spec.norm == "batch" and train.freeze == "none":
            rule = f"{spec.backbone} has BatchNorm, which sees the micro-batch: no accumulation with it"
            self._add_model_problem(rule, settings, "train.accumulate", train.accumulate)

    def _resolve_start(
        self, train: TrainOptions, spec: BackboneSpec, info: DatasetInfo, settings: Cell, *, match: MatchOptions
    ) -> tuple[TrainOptions, str]:
        """The options with the digest of the file that the run starts from, and how its weights are fitted to the model."""
        if (match.by == "seconds" or match.solves_epochs) and train.freeze == "body":
            rule = "a budget in seconds or of training is of trainings of the whole model: not of a frozen body"
            self._add_model_problem(rule, settings, "train.freeze", train.freeze)
        if train.start is None:
            return train.model_copy(update={"start_sha256": None}), ""
        try:
            sha256, fit = self._starts.plan(train.start, spec, info)
        except UserError as error:
            details = "\n    ".join(map(str, error.problems))
            self.model_problems.append(Problem(details, self._place(settings, "train.start"), "train.start"))
            if match.solves_widths:
                rule = (
                    f"the widths are solved for a budget in {match.by}; these weights fix them: set match.by: none, and theirs"
                )
                self._add_model_problem(rule, settings, "match.by", match.by)
            return train, ""
        if train.start_sha256 not in (None, sha256):
            rule = f"the file's content has another SHA-256, {sha256}"
            self._add_model_problem(rule, settings, "train.start_sha256", train.start_sha256)
        return train.model_copy(update={"start_sha256": sha256}), fit

    def _check_unprepared(
        self, data: DataOptions, kind: type[BackboneSpec], model: Mapping[str, Setting], match: MatchOptions
    ) -> None:
        """Report wrong model options before images are decoded for hours, as far as the size of the images is known."""
        values = {name: _freeze(setting.value) for name, setting in model.items()}
        assumed = {"in_channels": 3, "num_classes": 1000}
        try:
            if data.image_size is not None:
                kind.model_validate({"dim": match.head_dim, **values, **assumed, "image_size": data.image_size})
        except ValidationError as error:
            self.model_problems += self._translate(error, kind, model, "model")

    def raise_problems(self) -> None:
        """Raise UserError with all problems of the first layer that has any; NotPrepared if only data is missing."""
        if self.option_problems:
            raise UserError(*sort_by_line(self.option_problems))
        if self.model_problems:
            raise UserError(*sort_by_line([*self.model_problems, *self._not_prepared]))
        if self._not_prepared:
            raise NotPrepared(*self._not_prepared)

    def _add_model_problem(self, rule: str, settings: Cell, key: str, value: object) -> None:
        self.model_problems.append(Problem(rule, self._place(settings, key), key, value))

    def read_section(self, kind: type[OptionsT], settings: Cell, section: Section) -> OptionsT | None:
        own = _settings_of(settings, section)
        problems = [
            Problem(f"no {registry.kind} of this name", own[name].place, f"{section}.{name}", own[name].value, tuple(registry))
            for name, registry in REGISTERED.get(section, {}).items()
            if name in own
            and isinstance(own[name].value, str)
            and own[name].value not in (*registry, kind.model_fields[name].default)
        ]
        self.option_problems += problems
        try:
            options = kind.model_validate({name: _freeze(setting.value) for name, setting in own.items()})
        except ValidationError as error:
            self.option_problems += self._translate(error, kind, own, section)
            return None
        return None if problems else options

    def _translate(
        self, error: ValidationError, kind: type[BaseModel], own: Mapping[str, Setting], section: str
    ) -> list[Problem]:
        """The error's problems with their places; a value that the sweep doesn't give is named as the default."""
        places: Places = {(name,): setting.place for name, setting in own.items()}
        return [
            problem
            if problem.value is None or problem.key.removeprefix(f"{section}.") in own
            else replace(problem, rule=f"{problem.rule}; {problem.value} is the default", value=None)
            for problem in list_problems(error, kind, places=places, file=self.sweep.path, prefix=f"{section}.")
        ]

    def _read_model_options(self, settings: Cell, kind: type[BackboneSpec]) -> dict[str, Setting] | None:
        """The model options that this backbone has; None if some are a mistake.

        An option that only other backbones of the sweep have is left out: it is an axis that does nothing here.
        """
        own = _settings_of(settings, "model")
        overlay = _settings_of(self.sweep.overlays.get(kind.backbone, {}), "model")
        backbones = self.sweep.backbones()
        known = backbones if all(name in names() for name in backbones) else names()  # all where the name of one is misspelt
        of_sweep = {option for backbone in known for option in get_spec_class(backbone).model_fields}
        problems = []
        for name, setting in own.items():
            valid = set(kind.model_fields) if name in overlay else of_sweep
            if name in FROM_DATA:
                rule, choices = "the data decides this option", [FROM_DATA[name]]
                problems.append(Problem(rule, setting.place, f"model.{name}", choices=choices))
            elif name not in valid:
                rule = f"no option of {kind.backbone}" if name in overlay else "no backbone of this sweep has this option"
                choices = sorted(f"model.{option}" for option in valid - FROM_DATA.keys())
                rule = unknown_rule(f"model.{name}", rule)
                problems.append(Problem(rule, setting.place, f"model.{name}", choices=choices))
        self.option_problems += problems
        return None if problems else {name: setting for name, setting in own.items() if name in kind.model_fields}

    def _describe_dataset(self, options: DataOptions, settings: Cell) -> DatasetInfo | None:
        key = options.model_dump_json()
        if key not in self._datasets:
            self._datasets[key] = None
            try:
                self._datasets[key] = describe_dataset(options)
            except NotPrepared as error:
                words = shlex.join([self.sweep.path, *self.sweep.overrides])
                self._not_prepared += [replace(one, rule=one.rule.replace("SWEEP", words)) for one in error.problems]
            except UserError as error:
                self.model_problems += [one.at(self._place(settings, one.key, "data.name")) for one in error.problems]
        return self._datasets[key]

    def _place(self, settings: Cell, *keys: str) -> str:
        """The place of the first of these keys that is given, or the file."""
        return next((settings[key].place for key in keys if key in settings), self.sweep.path)


def collect_data_options(sweep: Sweep) -> list[DataOptions]:
    """The distinct data sets of a sweep's cells. Raises UserError with the mistakes in their options."""
    resolver = Resolver(sweep)
    found = [resolver.read_section(DataOptions, sweep.settings(cell), "data") for cell in sweep.cells()]
    resolver.raise_problems()
    return list({options.model_dump_json(): options for options in found if options is not None}.values())


def _clear_idle(train: TrainOptions, spec: BackboneSpec) -> TrainOptions:
    """The options without a dropout that would act on nothing, so that a run's identity doesn't depend on it."""
    acts = {"attention_dropout": spec.has_attention, "mlp_dropout": spec.has_mlp}
    return train.model_copy(update={name: 0.0 for name, does in acts.items() if getattr(train, name) and not does})


def _settings_of(settings: Cell, section: Section) -> dict[str, Setting]:
    start = f"{section}."
    return {key.removeprefix(start): setting for key, setting in settings.items() if key.startswith(start)}


def _freeze(value: Any) -> Any:
    """YAML's lists become the tuples that frozen options hold."""
    return tuple(value) if isinstance(value, list) else value
