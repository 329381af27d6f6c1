"""The plan: every run of a sweep, fully resolved, or every reason why not; all of it before a second of GPU time.

The cells of the grid are resolved (`study.cells`), then crossed with the seeds, and runs that came out equal (an axis that a
backbone does not have) are merged.
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
from study.cells import Matched, Resolver
from study.config.run import Run
from study.config.sweep import Sweep
from study.errors import Problem, UserError
from study.verification import verify


@dataclass(frozen=True)
class PlannedRun:
    """One run with its cost and its match. `levels` are its levels on the sweep's axes."""

    run: Run
    cost: Cost
    match: Matched
    levels: Mapping[str, Any]

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
        }


@dataclass(frozen=True)
class Plan:
    """A sweep with its runs, in file order, seeds innermost."""

    sweep: Sweep
    runs: tuple[PlannedRun, ...]
    merged: int  # runs that came out equal to another one

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
            "match": {"by": match.by, "target": match.target},
            "sweep_yaml": self.sweep.text,
            "overrides": list(self.sweep.overrides),
        }
        return {"study": study, "device": self.sweep.device, "runs": [planned.to_json() for planned in self.runs]}

    @property
    def digest(self) -> str:
        """Names the plan by its content; 16 hex digits."""
        return hashlib.sha256(json.dumps(self.document, sort_keys=True).encode()).hexdigest()[:16]


def cost_columns(model: BackboneSpec, cost: Cost) -> dict[str, int]:
    """The columns of the table that follow from the architecture alone."""
    columns = {"tokens": model.tokens, "params": cost.params, "frozen_params": cost.frozen_params, "macs": cost.macs,
               "activation_elements": cost.activation_elements, "padding_macs": cost.padding_macs}
    for name, part in cost.parts.items():
        columns |= {f"params_{name}": part.params, f"macs_{name}": part.macs}
    return columns


def make_plan(sweep: Sweep) -> Plan:
    """The whole plan, or a UserError with every problem of every cell."""
    resolver = Resolver(sweep)
    resolved = [resolver.resolve(cell) for cell in sweep.cells()]
    if resolver.problems:
        raise UserError(*resolver.problems)
    if not resolved:
        raise UserError(Problem("the exclusions leave no run", place=sweep.path, key="exclude"))
    runs: dict[str, PlannedRun] = {}
    asked = 0
    for cell in resolved:
        assert cell is not None  # else its problems were raised above
        for seed in sweep.seeds:
            planned = PlannedRun(cell.run(seed), cost=cell.cost, match=cell.match, levels=cell.levels)
            runs.setdefault(planned.run_id, planned)
            asked += 1
    return Plan(sweep, tuple(runs.values()), merged=asked - len(runs))


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
