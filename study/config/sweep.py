"""A sweep is one question: fixed settings and axes, as the file and the command line give them, each value with its place.

`Sweep.cells` is the grid: the product of all axes and zipped groups, without the exclusions. Options are validated per cell,
in `study.planning.resolver`, since only there all of their values are known.
"""

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, field_validator

from study.config.comparison import Comparison, ContrastsSection, split_expected
from study.config.options import AugmentOptions, Options, TrainOptions
from study.config.plugins import LoadedPlugins
from study.config.recipes import Recipe
from study.config.seeds import Seeds, StagedSeeds, Stages

Section = Literal["data", "model", "train", "augment", "match"]
SECTIONS: tuple[Section, ...] = get_args(Section)
"""The groups of options, in the order of the flow; an option's key is `section.name`."""

NOT_TUNED = (
    *("epochs", "accumulate", "precision", "fit_on", "read_test", "evaluate", "keep", "distributed"),
    *("start", "start_sha256", "freeze"),
)
TUNABLE = (
    *(f"train.{name}" for name in TrainOptions.model_fields if name not in NOT_TUNED),
    *(f"augment.{name}" for name in AugmentOptions.model_fields),
)
"""What trials may choose: options of the recipe that change neither the model nor what a run costs."""

Device = Literal["auto", "cuda", "cpu"]
TunedPer = Literal["cell", "seed"]
"""Whether one choice holds for all final runs of a cell, or each final seed tunes for itself."""
TrackerName = Literal["tensorboard", "wandb", "mlflow"]
CHANGE, BASELINE = "change", "baseline"
"""The factor that `ablate` adds, and its first level; the other levels are the names of the changes."""
MAX_RUNS = 200_000  # a typing error must not fill the memory
DEFAULT_TRIAL_SEEDS = 2  # with one, nothing shows how much the choice among candidates depends on the seed
FIRST_TRIAL_SEED = 100
SEED_SPACING = 1000  # trials of the final seed s have seeds from 1000 (s + 1) on, where each seed tunes for itself
_NEW_DEFAULTS = {"data.split": "by_seed"}  # of sweeps; a record that lacks the option was made with the option's own default


def _check_levels(levels: list[Any]) -> list[Any]:
    if not levels or len({repr(level) for level in levels}) < len(levels):
        raise ValueError("an axis has at least one level, and no level twice")
    return levels


def _check_changes(changes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for name, options in changes.items():
        if not options or name == BASELINE or not name.strip() or not name.isprintable():
            raise ValueError(f"a change has a printable name, other than {BASELINE}, and at least one option ({name!r})")
    return changes


def _check_expected(expected: object) -> object:
    split_expected(expected)
    return expected


def _check_trackers(names: list[TrackerName]) -> list[TrackerName]:
    if len(set(names)) < len(names):
        raise ValueError("each tracker is named once")
    return names


def _check_effect(value: object) -> object:
    ratio = value.get("error_ratio") if isinstance(value, dict) and value.keys() == {"error_ratio"} else None
    if value is None:
        return None
    number, low, high = (value, 0, 100) if ratio is None else (ratio, 1, math.inf)
    if isinstance(number, int | float) and not isinstance(number, bool) and low < number < high:
        return value
    raise ValueError("an effect of interest is in points (above 0, below 100), or {error_ratio: R} with R above 1")


EffectOfInterest = float | dict[str, float]
"""Points of accuracy, or `{"error_ratio": r}`: one side makes r times as many errors as the other."""
Axes = dict[str, Annotated[list[Any], AfterValidator(_check_levels)]]


class TuneSection(Options):
    """`tune`: what trials on the validation images choose for every cell, before its final runs."""

    axes: Annotated[Axes, Field(min_length=1)]
    seeds: Seeds | None = None  # None: DEFAULT_TRIAL_SEEDS that no final run has
    widen: bool = True  # extend a range for all cells while the best candidate of some cell is at its end
    per: TunedPer = "cell"


class AblateSection(Options):
    """`ablate`: a baseline and named changes of it, each of which is one level of the factor `change`."""

    baseline: dict[str, Any] = {}
    changes: Annotated[dict[str, dict[str, Any]], Field(min_length=1), AfterValidator(_check_changes)]
    match: Literal["params", "macs", "none"] | None = None  # what of the baseline changes keep; None: as `match` says for all
    tune: Literal["each", "baseline"] = "each"  # with `tune`: whether a change is tuned again or takes its baseline's choice


class FinalSection(Options):
    """`final`: how final runs differ from the trials; in a sweep without trials every run is final."""

    fit_on: Literal["train", "train+val"]


class Document(Options):
    """The top level of a sweep file; its sections are validated per cell."""

    question: str = Field(min_length=1)
    expected: Annotated[Any, AfterValidator(_check_expected)] = ""
    effect_of_interest: Annotated[Any, AfterValidator(_check_effect)] = None
    name: str = Field("", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$|^$")
    device: Device = "auto"
    deterministic: bool = False
    track: Annotated[list[TrackerName], AfterValidator(_check_trackers)] = []
    plugins: list[str] = []
    recipe: str | None = None
    backbone: str | None = None
    data: dict[str, Any] = {}
    model: dict[str, Any] = {}
    train: dict[str, Any] = {}
    augment: dict[str, Any] = {}
    match: dict[str, Any] = {}
    backbones: dict[str, dict[Section, dict[str, Any]]] = {}
    axes: Axes = {}
    zip: list[dict[str, list[Any]]] = []
    exclude: list[dict[str, Any]] = []
    seeds: StagedSeeds
    ablate: AblateSection | None = None
    contrasts: ContrastsSection = ContrastsSection()
    tune: TuneSection | None = None
    final: FinalSection | None = None

    @field_validator("zip")
    @classmethod
    def _check_zipped_lengths(cls, groups: list[dict[str, list[Any]]]) -> list[dict[str, list[Any]]]:
        for group in groups:
            if len({len(levels) for levels in group.values()}) != 1 or not all(group.values()):
                lengths = ", ".join(f"{key}: {len(levels)}" for key, levels in group.items())
                raise ValueError(f"axes zipped together have the same number of levels, at least one ({lengths})")
        return groups


@dataclass(frozen=True)
class Setting:
    """A value and the place that gave it: `sweeps/a.yaml:7`, or `command line`."""

    value: Any
    place: str


Cell = Mapping[str, Setting]
"""One combination of levels: option key -> setting."""


@dataclass(frozen=True)
class Tuning:
    """The trials that choose options: every combination of the levels, with every trial seed; the same for all cells."""

    axes: Mapping[str, tuple[Setting, ...]]
    seeds: tuple[int, ...]
    place: str
    widen: bool = True
    per: TunedPer = "cell"
    added: tuple[Mapping[str, tuple[Setting, ...]], ...] = ()  # the levels of `axes` that each round of widening added

    @property
    def trials_per_choice(self) -> int:
        return len(self.seeds) * math.prod(map(len, self.axes.values()))

    def seeds_for(self, final: int) -> tuple[int, ...]:
        """The seeds of the trials that choose for the final seed: those of no other one if each tunes for itself."""
        return self.seeds if self.per == "cell" else tuple(SEED_SPACING * (final + 1) + seed for seed in self.seeds)

    def candidates(self) -> Iterator[Cell]:
        """The combinations in file order, the last axis fastest."""
        for combination in itertools.product(*self.axes.values()):
            yield dict(zip(self.axes, combination, strict=True))

    def imposed(self) -> Cell:
        """Settings of every trial: validation images that it was not fitted on judge it, and it never reads the test set."""
        return {"train.fit_on": Setting("train", self.place), "train.read_test": Setting(False, self.place)}


@dataclass(frozen=True)
class Ablation:
    """The options of the baseline, and those that each named change sets; `match` and `tune` as in the file."""

    baseline: Cell
    changes: Mapping[str, Cell]
    match: Literal["params", "macs", "none"] | None
    tune: Literal["each", "baseline"]

    def levels(self) -> list[Cell]:
        """The levels of the factor `change`, each with the place of its options."""
        places = {BASELINE: self.baseline, **self.changes}
        found = {name: next((setting.place for setting in options.values()), "ablate") for name, options in places.items()}
        return [{CHANGE: Setting(name, place)} for name, place in found.items()]


@dataclass(frozen=True)
class Sweep:
    """A sweep file, before anything is resolved. `preset`, `base` and `overlays` map `section.name` to settings.

    They are layers: an axis overrides the backbone's own overlay, which overrides the file's base, which overrides the
    recipe's preset. A change of an ablation overrides all of these.
    """

    name: str
    path: str
    question: str
    expected: str
    effect_of_interest: EffectOfInterest | None  # not part of any run: what a report calls equivalent
    comparison: Comparison  # not part of any run
    device: Device
    deterministic: bool  # not part of the plan: how a run is executed is recorded in its fingerprint
    track: tuple[TrackerName, ...]  # not part of the plan: trackers change no run
    plugins: LoadedPlugins  # code that registers further parts; in runs that use them, part of their identity
    recipe: Recipe | None
    preset: Cell
    base: Cell
    overlays: Mapping[str, Cell]
    axes: Mapping[str, tuple[Setting, ...]]
    zipped: tuple[Mapping[str, tuple[Setting, ...]], ...]
    exclude: tuple[Cell, ...]
    ablation: Ablation | None
    seeds: tuple[int, ...]  # of the runs that are planned now
    stages: Stages | None  # where further seeds follow as needed
    tuning: Tuning | None
    final: Cell  # imposed on final runs
    text: str
    overrides: tuple[str, ...]

    @property
    def every_seed(self) -> tuple[int, ...]:
        """All that may be run."""
        return self.stages.every if self.stages else self.seeds

    def factors(self) -> dict[str, list[Any]]:
        """Every varied option with its levels, grid axes first, and the changes of an ablation last."""
        changes = {CHANGE: [BASELINE, *self.ablation.changes]} if self.ablation else {}
        return {
            key: [level.value for level in levels] for group in (self.axes, *self.zipped) for key, levels in group.items()
        } | changes

    def backbones(self) -> list[Any]:
        """All backbones that the sweep names for its cells."""
        given = [self.base, *([self.ablation.baseline, *self.ablation.changes.values()] if self.ablation else [])]
        named = [layer["backbone"].value for layer in given if "backbone" in layer]
        named = [*self.factors().get("backbone", []), *named]
        return [name for n, name in enumerate(named) if name not in named[:n]]  # a mistake may be a list, which has no hash

    def grid(self) -> Iterator[Cell]:
        """Every combination of levels in file order (the last axis varies fastest)."""
        groups: list[list[Cell]] = [[{key: level} for level in levels] for key, levels in self.axes.items()]
        for group in self.zipped:
            rows = zip(*group.values(), strict=True)
            groups.append([dict(zip(group, row, strict=True)) for row in rows])
        if self.ablation:
            groups.append(self.ablation.levels())
        for combination in itertools.product(*groups):
            yield {key: setting for part in combination for key, setting in part.items()}

    def cells(self) -> Iterator[Cell]:
        """The grid without what `exclude` names."""
        for cell in self.grid():
            given = self.settings(cell) if self.exclude else {}
            if not any(all(has_value(given, key, wanted) for key, wanted in rule.items()) for rule in self.exclude):
                yield cell

    def settings(self, cell: Cell) -> Cell:
        """All settings of one cell: defaults, the recipe's, the file's, its backbone's own, and its levels."""
        own = cell
        if self.ablation:
            own = {**self.ablation.baseline, **cell, **self.ablation.changes.get(cell[CHANGE].value, {})}
        merged = {**self.base, **own}
        overlay = self.overlays.get(str(merged["backbone"].value), {}) if "backbone" in merged else {}
        return {
            **{key: Setting(value, "default") for key, value in _NEW_DEFAULTS.items()},
            **self.preset,
            **self.base,
            **overlay,
            **own,
        }


def has_value(settings: Cell, key: str, wanted: Setting) -> bool:
    """Whether an option is set to the value that a rule of `exclude` gives; `true` is not 1."""
    value = settings[key].value if key in settings else None
    return key in settings and value == wanted.value and isinstance(value, bool) == isinstance(wanted.value, bool)


def is_option_key(key: str) -> bool:
    """Whether a key has the form of an option that an axis may vary: `backbone`, or `section.name`."""
    return key == "backbone" or re.fullmatch(rf"({'|'.join(SECTIONS)})\.\w+", key) is not None
