"""One run of a plan: fully resolved, with its cost, how it met its budget, and its role in tuning."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.backbones.closed_form import Cost
from study.config.run import Run
from study.config.sweep import CHANGE
from study.planning.width import BudgetMatch
from study.records.columns import spell_level
from study.records.plan_file import PlannedEntry
from study.records.record import Stage


@dataclass(frozen=True)
class PlannedRun:
    """One run with its cost and its budget. `levels` are its levels on the sweep's axes, tuned ones included.

    In a tuned sweep `cell` names what a final run shares with its trials, and `trials` counts these; where each seed tunes for
    itself, trials have the final seed that they choose `for_seed`. The options `pending`
    of a final run have yet to be selected: until then they have the levels of some candidate. `fit` says how the weights that
    it starts from were fitted to its model.
    """

    run: Run
    cost: Cost
    match: BudgetMatch
    levels: Mapping[str, Any]
    stage: Stage = "final"
    cell: str | None = None
    trials: int | None = None
    for_seed: int | None = None
    pending: tuple[str, ...] = ()
    fit: str = ""

    @property
    def run_id(self) -> str:
        """The run's identity; a pending run has a name that no record will have, for all but its pending options."""
        label = self.run.run_id.rpartition("-")[0]
        return f"{label}-pending-{self.run.digest(without=self.pending)}" if self.pending else self.run.run_id

    @property
    def change(self) -> str | None:
        """The run's change of the baseline; None in a sweep without `ablate`. No part of its identity."""
        return self.levels.get(CHANGE)

    @property
    def data_set(self) -> str | None:
        """Its label; else, where the sweep has several: the data set's name, or that of its folder, without the path."""
        if self.run.data.label or not {"data.name", "data.root"} & self.levels.keys():
            return self.run.data.label
        return Path(self.run.data.root).name if self.run.data.name == "folder" else self.run.data.name

    @property
    def images(self) -> str:
        """The data set with its numbers of images: "digits at 8 px (1,018 train, 180 val, 599 test)"."""
        data = self.run.data
        split = f"{data.train_images:,} train, {data.val_images:,} val, {data.test_images:,} test"
        if self.run.train.fit_on == "train+val":
            split = f"{self.run.fitted_images:,} train + val, {data.test_images:,} test"
        return f"{self.data_set or data.name} at {data.image_size} px ({split})"

    @property
    def image_passes(self) -> int:
        """Images seen in training, in full batches, each counted as often as it is seen."""
        train = self.run.train
        return train.count_steps(self.run.fitted_images // train.batch_size) * train.batch_size

    @property
    def training_flops(self) -> int:
        """Two FLOPs per MAC, for each training image as `training_macs` counts them, without validation."""
        return 2 * self.training_macs * self.image_passes

    @property
    def training_macs(self) -> int:
        """For one image: three forward passes; with a frozen body one, and the gradient of the classifier's weights."""
        if self.run.train.freeze == "body":
            return self.cost.macs + self.run.model.dim * self.run.model.num_classes
        return self.cost.training_macs

    @property
    def architecture(self) -> str:
        """Equal for runs that share one compiled model."""
        return self.run.backbone + self.run.model.model_dump_json()

    @property
    def label(self) -> str:
        """The architecture by its options: `vit patch_size=2 depth=6 dim=96`."""
        varied = {key.rpartition(".")[2]: spell_level(value) for key, value in self.levels.items() if key.startswith("model.")}
        named = {"patch_size": self.run.model.patch_size, **varied, "dim": self.run.model.dim}
        return " ".join([self.run.backbone, *(f"{name}={value}" for name, value in named.items())])

    @property
    def entry(self) -> PlannedEntry:
        """What a worker and the table need; pending options are None."""
        run = self.run.to_json()
        for section, _, name in (key.partition(".") for key in self.pending):
            run[section][name] = None
        totals = ("params", "frozen_params", "macs", "activation_elements", "padding_macs")
        cost = {"tokens": self.run.model.tokens} | {name: getattr(self.cost, name) for name in totals}
        for name, part in self.cost.parts.items():
            cost |= {f"params_{name}": part.params, f"macs_{name}": part.macs}
        place = (self.stage, self.cell, self.trials, self.for_seed, self.change, self.data_set)
        return PlannedEntry(self.run_id, run, cost, vars(self.match), *place)


def representatives(runs: Sequence[PlannedRun]) -> Iterator[PlannedRun]:
    """Runs that together have every architecture and every recipe of all runs, in plan order.

    Recipes that differ in epochs, batch size, rates or seed run the same code and count as one.
    """
    seen: set[str] = set()
    for planned in runs:
        run = planned.run
        recipe = run.train.model_dump_json(exclude={"epochs", "warmup_epochs", "batch_size", "lr", "weight_decay"})
        traits = {planned.architecture, recipe, run.augment.model_dump_json(), run.data.digest}
        if not traits <= seen:
            seen |= traits
            yield planned


def describe_size(runs: Sequence[PlannedRun]) -> str:
    """Image passes and FLOPs of training, each in its largest unit."""

    def in_units(number: int, units: Mapping[str, float]) -> str:
        """The number in its largest unit, with a space before it: `1.11 P`, `200 `."""
        return next((f"{number / size:,.2f} {name}" for name, size in units.items() if number >= size), f"{number:,} ")

    passes = in_units(sum(planned.image_passes for planned in runs), {"M ": 1e6})
    flops = in_units(sum(planned.training_flops for planned in runs), {"P": 1e15, "T": 1e12, "G": 1e9, "M": 1e6})
    return f"{passes}image passes, {flops}FLOPs"
