"""One run of a plan: resolved, with what it costs and how it met its budget; or waiting for what its trials will choose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from study.backbones.closed_form import Cost
from study.backbones.specification import BackboneSpec
from study.config.run import Run
from study.planning.width import Matched
from study.records.record import Stage


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
        """Stands for the identity that the run will have, of which all but the tuned options is known; no record has it."""
        return f"{self.example.run_id.rpartition('-')[0]}-pending-{self.example.run.digest(without=self.tuned)}"

    def to_json(self) -> dict[str, Any]:
        """The planned run's document, the tuned options null."""
        document = {**self.example.to_json(), "run_id": self.run_id}
        for section, name in (key.split(".") for key in self.tuned):
            document["run"][section][name] = None
        return document


def cost_columns(model: BackboneSpec, cost: Cost) -> dict[str, int]:
    """The columns of the table that follow from the architecture alone."""
    columns = {
        "tokens": model.tokens,
        "params": cost.params,
        "frozen_params": cost.frozen_params,
        "macs": cost.macs,
        "activation_elements": cost.activation_elements,
        "padding_macs": cost.padding_macs,
    }
    for name, part in cost.parts.items():
        columns |= {f"params_{name}": part.params, f"macs_{name}": part.macs}
    return columns


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
