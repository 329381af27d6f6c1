"""The plan: every run of a sweep, fully resolved, or every reason why not; all of it before a second of GPU time.

The cells of the grid are resolved (`resolver`), then crossed with the seeds, and runs that came out equal (an axis that a
backbone does not have) are merged. In a sweep with `tune:` every cell has its trials first: all combinations of the tuned
levels with all seeds of `tune.seeds`. Its final runs are pending until a selection says which levels they get.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from study.config.formats import FORMAT
from study.config.sweep import Cell, Sweep, Tuning
from study.config.sweep_file import read_draft
from study.config.yaml_source import MISSING
from study.data import NotPrepared
from study.errors import Problem, UserError, sort_by_line
from study.planning.cost_check import verify
from study.planning.planned_run import PendingRun, PlannedRun, architectures
from study.planning.resolver import ResolvedCell, Resolver
from study.records.record import Stage
from study.records.selection import Choice, Selection

NO_RUN = "the exclusions leave no run"


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
            "format": FORMAT,
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


def read_to_plan(path: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """The sweep of a file, or a UserError with all mistakes at once: of its form, and of what it would be without them."""
    draft = read_draft(Path(path), overrides)
    problems = list(draft.problems)
    if problems and draft.sweep is not None:
        try:
            make_plan(draft.sweep)
        except UserError as error:
            problems += [problem for problem in error.problems if not (draft.lost and problem.rule in (MISSING, NO_RUN))]
    if problems:
        raise UserError(*sort_by_line(problems))
    assert draft.sweep is not None
    return draft.sweep


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
        raise UserError(*sort_by_line([*resolver.problems, *resolver.unprepared]))
    if resolver.unprepared:
        raise NotPrepared(*resolver.unprepared)
    if not asked:
        raise UserError(Problem(NO_RUN, place=sweep.path, key="exclude"))
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
    return PlannedRun(
        resolved.run(seed),
        cost=resolved.cost,
        match=resolved.match,
        levels=resolved.levels,
        stage=stage,
        cell=cell,
        trials=trials,
    )


def tuned_runs(cell: Cell, resolver: Resolver, *, tuning: Tuning, selection: Selection | None) -> list[PlannedRun | PendingRun]:
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
        resolver.tell(Problem(rule, tuning.place, "tune.axes"))
        return []
    levels = candidates[0]
    if selection is not None:
        chosen = choice_for(key, trials, selection).chosen
        levels = next(one for one in candidates if {name: level.value for name, level in one.items()} == chosen)
    finals = final_runs(resolver.resolve({**cell, **levels}, imposed=sweep.final), sweep.seeds, cell=key, trials=count)
    return [*trials, *(finals if selection else (PendingRun(example, tuned) for example in finals))]


def cell_key(resolved: ResolvedCell, tuned: Sequence[str]) -> str:
    """Names a cell by what its trials and final runs share, `vit-p4-d96-1a2b3c4d5e`; cells that resolve to the same are one."""
    digest = resolved.run(seed=0).digest(without=("seed", *tuned, "train.fit_on", "train.read_test"))
    return f"{resolved.backbone}-p{resolved.model.patch_size}-d{resolved.model.dim}-{digest}"


def choice_for(key: str, trials: Sequence[PlannedRun], selection: Selection) -> Choice:
    """The cell's choice; UserError where the selection was not made from these trials."""
    choice = selection.cells.get(key)
    seen = {trial.run_id for candidate in choice.candidates for trial in candidate.trials} if choice else set()
    if choice is None or seen != {trial.run_id for trial in trials}:
        rule = (
            f"was made from other trials than this sweep now has for {key}. A selection is never changed: give the sweep "
            "another name (name=...), or move the file away to select anew; recorded trials are used again"
        )
        raise UserError(Problem(rule, place="selection.json"))
    return choice


def verify_plan(plan: Plan, cache: Path, *, keep: bool = True) -> int:
    """Holds the closed form of every distinct architecture against a traced forward pass; returns how many were new.

    What was found is remembered in the cache, if it is to be kept.
    """
    return verify((planned.run.model for planned in architectures(plan.runs)), cache=cache, keep=keep)
