"""The plan of a launch on disk, `plans/<digest>.json`: what the sweep asks, and every planned run."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import JsonValue

from study.config.comparison import ContrastsSection, ExpectedAccuracy, ExpectedSign
from study.config.documents import STORED, Name, as_stored, read_document
from study.config.folder_name import NAME_RULE, is_folder_name
from study.config.formats import FORMAT, upgrade_override
from study.config.sweep import EffectOfInterest
from study.errors import Problem, UserError, add_location
from study.records.record import CostDocument, MatchDocument, RunDocument, RunOptions, Stage
from study.records.sweep_folder import LAUNCH_HINT, SweepFolder

ContrastsDocument = Annotated[Mapping[str, Any], as_stored(ContrastsSection)]
ExpectationDocument = (
    Annotated[Mapping[str, Any], as_stored(ExpectedSign, required=("contrast", "sign"))]
    | Annotated[Mapping[str, Any], as_stored(ExpectedAccuracy, required=("accuracy", "tolerance"))]
)


class NotLaunched(UserError):
    """The sweep has no plan yet, since nothing has been launched."""


@dataclass(frozen=True)
class PlannedEntry:
    """A planned run as JSON values. In `run`, options that tuning has yet to select are None."""

    __pydantic_config__ = STORED
    run_id: Name
    run: RunDocument
    cost: CostDocument
    match: MatchDocument
    stage: Stage = "final"  # plans written before there were trials lack this and the following
    cell: str | None = None  # in a tuned sweep, what a final run shares with its trials
    trials: int | None = None  # in a tuned sweep, how many trials choose its options
    for_seed: int | None = None  # of a trial, the final seed that it chooses for; None: all of the cell
    change: str | None = None  # in an ablation, the run's change; None elsewhere
    data_set: str | None = None  # in a sweep of several data sets, the run's; None elsewhere

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    @property
    def options(self) -> RunOptions:
        return RunOptions.from_json(self.run)


@dataclass(frozen=True)
class StudyFacts:
    """What a sweep asks and varies, as its newest launch planned it; seeds and planned runs are those of final runs."""

    __pydantic_config__ = STORED
    name: str
    question: str
    expected: str
    factors: Mapping[str, list[JsonValue]]
    seeds: tuple[int, ...]
    match: Mapping[str, JsonValue]
    planned_runs: int
    sweep_yaml: str
    overrides: tuple[str, ...]
    recipe: str | None = None
    tuned: Mapping[str, list[JsonValue]] = field(default_factory=dict)  # levels of the options that trials selected
    trials_per_cell: int = 0  # of one choice
    times_widened: int = 0  # rounds that added levels to the ranges of the tuned options
    effect_of_interest: EffectOfInterest | None = None  # None in plans before 0.2.0, and where no effect was stated
    contrasts: ContrastsDocument = field(default_factory=dict)  # as the sweep states them; empty where it doesn't
    expectations: tuple[ExpectationDocument, ...] = ()  # those that can be checked
    looks: Mapping[str, list[int]] = field(default_factory=dict)  # by sweep, the seeds of each cell at every planned look

    def __post_init__(self) -> None:
        """Raise UserError if a file's name for the sweep is no folder's name: it might lead to another folder."""
        if not all(is_folder_name(name) for name in self.name.split("-vs-")):
            raise UserError(Problem(NAME_RULE, key="name", value=self.name))


@dataclass(frozen=True)
class PlanFile:
    """A plan as its file holds it. `pending` are final runs whose tuned options have yet to be selected."""

    facts: StudyFacts
    runs: tuple[PlannedEntry, ...]
    pending: tuple[PlannedEntry, ...]

    @property
    def run_ids(self) -> list[str]:
        return [entry.run_id for entry in self.runs]

    def to_json(self) -> dict[str, Any]:
        """The document that `read_plan` reads."""
        facts = self.facts
        apart = ("planned_runs", "tuned", "trials_per_cell", "times_widened")
        study = {name: value for name, value in vars(facts).items() if name not in apart}
        counts = {"trials_per_cell": facts.trials_per_cell, "times_widened": facts.times_widened}
        tuning = {"axes": facts.tuned, **counts} if facts.tuned else None
        return {
            "format": FORMAT,
            "study": {**study, "tuning": tuning},
            "runs": [entry.to_json() for entry in self.runs],
            "pending": [entry.to_json() for entry in self.pending],
        }

    @cached_property
    def digest(self) -> str:
        """16 hex digits of the plan's content, by which its file is named."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def of_stage(self, stage: Stage) -> list[PlannedEntry]:
        """The planned runs of a stage, pending ones included."""
        return [entry for entry in (*self.runs, *self.pending) if entry.stage == stage]


@dataclass(frozen=True)
class _PlanOfLaunch:
    __pydantic_config__ = STORED
    plan: Name


@dataclass(frozen=True)
class _TuningDocument:
    __pydantic_config__ = STORED
    axes: dict[str, list[JsonValue]] = field(default_factory=dict)
    trials_per_cell: int = 0
    times_widened: int = 0


@dataclass(frozen=True)
class _StudyDocument:
    """What `PlanFile.to_json` writes as `study`."""

    __pydantic_config__ = STORED
    name: str
    question: str
    expected: str
    factors: dict[str, list[JsonValue]]
    seeds: tuple[int, ...]
    match: dict[str, JsonValue]
    sweep_yaml: str
    overrides: tuple[str, ...]
    recipe: str | None = None
    tuning: _TuningDocument | None = None
    effect_of_interest: EffectOfInterest | None = None
    contrasts: ContrastsDocument = field(default_factory=dict)
    expectations: tuple[ExpectationDocument, ...] = ()
    looks: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class _PlanDocument:
    __pydantic_config__ = STORED
    study: _StudyDocument
    runs: tuple[PlannedEntry, ...]
    pending: tuple[PlannedEntry, ...] = ()


def load_plan(folder: SweepFolder) -> PlanFile:
    """The plan of a sweep's newest launch. Raises NotLaunched if there is none."""
    launches = folder.launch_ids()
    if not launches:
        raise NotLaunched(Problem("nothing has been launched here yet", place=str(folder.path)))
    path = folder.launches / launches[-1] / "launch.json"
    launch = read_document(path, _PlanOfLaunch, hint=LAUNCH_HINT)
    hint = f"restore it, or run the newest launch again; {path} names it"
    return read_plan(folder.plans / f"{launch.plan}.json", hint=hint)


def read_plan(path: Path, *, hint: str) -> PlanFile:
    document = read_document(path, _PlanDocument, hint=hint)
    study, tuning = document.study, document.study.tuning or _TuningDocument()
    with add_location(str(path)):
        facts = StudyFacts(
            name=study.name,
            question=study.question,
            expected=study.expected,
            factors=study.factors,
            seeds=study.seeds,
            match=study.match,
            planned_runs=sum(entry.stage == "final" for entry in (*document.runs, *document.pending)),
            sweep_yaml=study.sweep_yaml,
            overrides=tuple(map(upgrade_override, study.overrides)),
            recipe=study.recipe,
            tuned={key.rpartition(".")[2]: levels for key, levels in tuning.axes.items()},
            trials_per_cell=tuning.trials_per_cell,
            times_widened=tuning.times_widened,
            effect_of_interest=study.effect_of_interest,
            contrasts=study.contrasts,
            expectations=study.expectations,
            looks=study.looks,
        )
    return PlanFile(facts, document.runs, document.pending)
