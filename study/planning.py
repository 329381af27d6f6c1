"""The plan: every run of a sweep, fully resolved, or every reason why not; all of it before a second of GPU time.

The cells of the grid are resolved (`study.cells`), then crossed with the seeds, and runs that came out equal (an axis that a
backbone does not have) are merged. In a sweep with `tune:` every cell has its trials first: all combinations of the tuned
levels with all seeds of `tune.seeds`. Its final runs are pending until a selection says which levels they get.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from study.backbones.closed_form import Cost
from study.backbones.specification import BackboneSpec
from study.cells import Matched, ResolvedCell, Resolver
from study.config.run import Run
from study.config.sweep import Cell, Sweep, Tuning
from study.errors import Problem, UserError
from study.records.record import Stage
from study.records.selection import Choice, Selection
from study.verification import verify


@dataclass(frozen=True)
class PlannedRun:
    """One run with its cost and its match. `levels` are its levels on the sweep's axes, the tuned ones too.

    In a tuned sweep `cell` names what its trials share with it, and `trials` is how many there are.
    """

    run: Run
    cost: Cost
    match: Matched
    levels: Mapping[str, Any]
    stage: Stage
    cell: str | None
    trials: int | None

    @property
    def run_id(self) -> str:
        return self.run.run_id

    @property
    def image_passes(self) -> int:
        """Images seen in training, each counted once per epoch."""
        return self.run.train.epochs * self.run.fitted_images

    @property
    def training_flops(self) -> int:
        """Two FLOPs per MAC, three forward passes per trained image; validation is not in it."""
        return 2 * self.cost.training_macs * self.image_passes

    @property
    def architecture(self) -> str:
        """Equal for runs that share one compiled model."""
        return self.run.backbone + self.run.model.model_dump_json()

    @property
    def label(self) -> str:
        """The architecture in a user's words: `vit patch_size=2 depth=6 dim=96`."""
        varied = {key.rpartition(".")[2]: value for key, value in self.levels.items() if key.startswith("model.")}
        named = {"patch_size": self.run.model.patch_size, **varied, "dim": self.run.model.dim}
        return " ".join([self.run.backbone, *(f"{name}={value}" for name, value in named.items())])

    def to_json(self) -> dict[str, Any]:
        """What a worker and the table need, as JSON values."""
        return {
            "run_id": self.run_id,
            "run": self.run.to_json(),
            "cost": cost_columns(self.run.model, self.cost),
            "match": vars(self.match),
            "stage": self.stage,
            "cell": self.cell,
            "trials": self.trials,
        }


@dataclass(frozen=True)
class PendingRun:
    """A final run whose tuned options wait for the selection; `example` has some candidate's levels in their place."""

    example: PlannedRun
    tuned: tuple[str, ...]

    @property
    def run_id(self) -> str:
        """Stands for the identity that the run will have; no record is ever filed under it."""
        assert self.example.cell is not None
        backbone, patch_size, dim, digest = self.example.cell.rsplit("-", 3)
        return f"{backbone}-{patch_size}-{dim}-s{self.example.run.seed}-pending-{digest}"

    def to_json(self) -> dict[str, Any]:
        """The planned run's document, the tuned options null."""
        document = {**self.example.to_json(), "run_id": self.run_id}
        for section, name in (key.split(".") for key in self.tuned):
            document["run"][section][name] = None
        return document


@dataclass(frozen=True)
class Plan:
    """A sweep with its runs in file order, trials before final ones, seeds innermost."""

    sweep: Sweep
    runs: tuple[PlannedRun, ...]
    pending: tuple[PendingRun, ...]
    merged: int  # runs that came out equal to another one

    @property
    def trials(self) -> tuple[PlannedRun, ...]:
        return tuple(planned for planned in self.runs if planned.stage == "trial")

    @property
    def finals(self) -> tuple[PlannedRun, ...]:
        """The final runs; examples of them where they are pending."""
        decided = tuple(planned for planned in self.runs if planned.stage == "final")
        return decided or tuple(waiting.example for waiting in self.pending)

    @property
    def whole(self) -> tuple[PlannedRun, ...]:
        """Both stages, for what a plan will cost."""
        return (*self.trials, *self.finals)

    @cached_property
    def document(self) -> dict[str, Any]:
        """The plan as it is kept beside its launches; a path-free study part and the runs."""
        match = self.runs[0].match
        study = {
            "name": self.sweep.name,
            "question": self.sweep.question,
            "expected": self.sweep.expected,
            "recipe": self.sweep.recipe.name if self.sweep.recipe else None,
            "factors": {key.rpartition(".")[2]: levels for key, levels in self.sweep.factors().items()},
            "seeds": list(self.sweep.seeds),
            "tuning": tuning_facts(self.sweep.tuning) if self.sweep.tuning else None,
            "match": {"by": match.by, "target": match.target, "tolerance": match.tolerance},
            "sweep_yaml": self.sweep.text,
            "overrides": list(self.sweep.overrides),
        }
        return {
            "study": study,
            "device": self.sweep.device,
            "runs": [planned.to_json() for planned in self.runs],
            "pending": [waiting.to_json() for waiting in self.pending],
        }

    @property
    def digest(self) -> str:
        """Names the plan by its content; 16 hex digits."""
        return hashlib.sha256(json.dumps(self.document, sort_keys=True).encode()).hexdigest()[:16]


def tuning_facts(tuning: Tuning) -> dict[str, Any]:
    """What every cell's trials were over."""
    axes = {key: [level.value for level in levels] for key, levels in tuning.axes.items()}
    return {"axes": axes, "seeds": list(tuning.seeds), "trials_per_cell": tuning.trials_per_cell}


def cost_columns(model: BackboneSpec, cost: Cost) -> dict[str, int]:
    """The columns of the table that follow from the architecture alone."""
    columns = {"tokens": model.tokens, "params": cost.params, "frozen_params": cost.frozen_params, "macs": cost.macs,
               "activation_elements": cost.activation_elements, "padding_macs": cost.padding_macs}
    for name, part in cost.parts.items():
        columns |= {f"params_{name}": part.params, f"macs_{name}": part.macs}
    return columns


def make_plan(sweep: Sweep, selection: Selection | None = None) -> Plan:
    """The whole plan, or a UserError with every problem of every cell.

    The final runs of a tuned sweep get what `selection` chose for their cells, and are pending without one.
    """
    resolver = Resolver(sweep)
    asked: list[PlannedRun | PendingRun] = []
    for cell in sweep.cells():
        if sweep.tuning is None:
            asked += final_runs(resolver.resolve(cell, imposed=sweep.final), sweep.seeds)
        else:
            asked += tuned_runs(cell, resolver, tuning=sweep.tuning, selection=selection)
    if resolver.problems:
        raise UserError(*resolver.problems)
    if not asked:
        raise UserError(Problem("the exclusions leave no run", place=sweep.path, key="exclude"))
    distinct = {one.run_id: one for one in reversed(asked)}
    kept = [distinct.pop(one.run_id) for one in asked if one.run_id in distinct]  # the first of equal ones, in order
    runs = sorted((one for one in kept if isinstance(one, PlannedRun)), key=lambda one: one.stage == "final")
    pending = tuple(one for one in kept if isinstance(one, PendingRun))
    return Plan(sweep, tuple(runs), pending=pending, merged=len(asked) - len(kept))


def final_runs(
    resolved: ResolvedCell | None, seeds: Sequence[int], *, cell: str | None = None, trials: int | None = None
) -> list[PlannedRun]:
    """The final runs of a cell; none of one that is a problem."""
    return [] if resolved is None else [planned_run(resolved, seed, "final", cell=cell, trials=trials) for seed in seeds]


def planned_run(resolved: ResolvedCell, seed: int, stage: Stage, *, cell: str | None, trials: int | None) -> PlannedRun:
    return PlannedRun(resolved.run(seed), cost=resolved.cost, match=resolved.match, levels=resolved.levels, stage=stage,
                      cell=cell, trials=trials)  # fmt: skip


def tuned_runs(
    cell: Cell, resolver: Resolver, *, tuning: Tuning, selection: Selection | None
) -> list[PlannedRun | PendingRun]:
    """The trials of a cell, the same number for each, and its final runs."""
    sweep, tuned = resolver.sweep, tuple(tuning.axes)
    candidates = list(tuning.candidates())
    resolved = [found for levels in candidates if (found := resolver.resolve({**cell, **levels}, imposed=tuning.imposed()))]
    if len(resolved) < len(candidates):
        return []
    key = cell_key(resolved[0], tuned)
    count = tuning.trials_per_cell
    trials = [planned_run(one, seed, "trial", cell=key, trials=count) for one in resolved for seed in tuning.seeds]
    if len({trial.run_id for trial in trials}) < count or {cell_key(one, tuned) for one in resolved} != {key}:
        rule = "each candidate of a cell is another run of the same model; some come out equal or change the model"
        raise UserError(Problem(rule, tuning.place, "tune.axes"))
    levels = candidates[0]
    if selection is not None:
        chosen = choice_for(key, trials, selection).chosen
        levels = next(one for one in candidates if {name: level.value for name, level in one.items()} == chosen)
    finals = final_runs(resolver.resolve({**cell, **levels}, imposed=sweep.final), sweep.seeds, cell=key, trials=count)
    return [*trials, *(finals if selection else (PendingRun(example, tuned) for example in finals))]


def cell_key(resolved: ResolvedCell, tuned: Sequence[str]) -> str:
    """Names a cell by what its trials and final runs share, `vit-p4-d96-1a2b3c4d5e`; cells that resolve to the same are one."""
    identity = resolved.run(seed=0).identity()
    del identity["seed"]
    for section, name in (key.split(".") for key in (*tuned, "train.fit_on", "train.read_test")):
        identity[section].pop(name, None)
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return f"{resolved.backbone}-p{resolved.model.patch_size}-d{resolved.model.dim}-{digest[:10]}"


def choice_for(key: str, trials: Sequence[PlannedRun], selection: Selection) -> Choice:
    """The cell's choice; UserError where the selection was not made from these trials."""
    choice = selection.cells.get(key)
    seen = {trial.run_id for candidate in choice.candidates for trial in candidate.trials} if choice else set()
    if choice is None or seen != {trial.run_id for trial in trials}:
        rule = (f"was made from other trials than this sweep now has for {key}. A selection is never changed: give the sweep "
                "another name (name=...), or move the file away to select anew; recorded trials are used again")
        raise UserError(Problem(rule, place="selection.json"))
    return choice


def architectures(runs: Sequence[PlannedRun]) -> Iterator[PlannedRun]:
    """One run for each distinct architecture, in plan order."""
    seen: set[str] = set()
    for planned in runs:
        if planned.architecture not in seen:
            seen.add(planned.architecture)
            yield planned


def representatives(runs: Sequence[PlannedRun]) -> Iterator[PlannedRun]:
    """Runs that together have every architecture and every recipe of all runs, in plan order.

    Epochs, batch sizes, rates and seeds make no other recipe: no code depends on them.
    """
    seen: set[str] = set()
    for planned in runs:
        run = planned.run
        recipe = run.train.model_dump_json(exclude={"epochs", "warmup_epochs", "batch_size", "lr", "weight_decay"})
        traits = {planned.architecture, recipe, run.augment.model_dump_json(), run.data.digest}
        if not traits <= seen:
            seen |= traits
            yield planned


def verify_plan(plan: Plan, cache: Path) -> int:
    """Holds the closed form of every distinct architecture against a traced forward pass; returns how many were new."""
    return verify((planned.run.model for planned in architectures(plan.runs)), cache=cache)
