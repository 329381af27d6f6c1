"""From a planned run to its record: the border between the cluster's side and the training engine.

One trainer lives as long as its worker: the device is chosen once, data sets stay loaded over runs, so that the second run
starts at once. Before any run is touched it makes sure that the device works and that the data are what was planned.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

import torch

from study.config.options import ResolvedData
from study.config.run import Run
from study.config.variant import Variant
from study.data import describe_dataset
from study.data.splits import Splits, load_splits
from study.errors import UserError
from study.records.columns import planned_columns
from study.records.ledger import Launch
from study.records.progress_file import ProgressFile
from study.records.record import Record
from study.records.sweep_folder import SweepFolder, Writer
from study.tracking.libraries import select_trackers
from study.tracking.tracking_thread import Tracking
from study.training.checkpoint import Checkpoints
from study.training.device import DeviceChoice, choose_device
from study.training.engine import train
from study.training.evaluation import Predictions
from study.training.fingerprint import device_name
from study.training.model_setup import with_cpu_kernels
from study.training.outcome import Interrupted, Outcome, Progress
from study.training.saved_weights import save_weights
from study.worker.process_group import Crew

VERSIONS = ("torch", "torchvision", "numpy", "fvcore", "submitit", "pandas")
COMPILED_AT_ONCE = 7  # architectures; torch's limit on the shapes of one piece of code is 8
RESULTS = ("val_accuracy", "val_loss", "test_accuracy", "test_top5", "test_loss", "diverged_step")
MEASURED = ("train_seconds", "images_per_second", "peak_memory_mib")


@dataclass
class Trainer:
    """Trains planned runs of one share on one device."""

    folder: SweepFolder
    writer: Writer
    launch: Launch
    device: DeviceChoice
    tracking: Tracking
    crew: Crew
    _splits: dict[str, Splits] = field(default_factory=dict)
    _compiled: set[str] = field(default_factory=set)  # the architectures whose compiled code torch holds

    @staticmethod
    def open(
        folder: SweepFolder,
        writer: Writer,
        launch: Launch,
        *,
        share: list[dict[str, Any]],
        threads: int,
        environment: Mapping[str, str],
        crew: Crew,
    ) -> Trainer:
        """Chooses and equips the device and loads the data of the whole share; raises UserError where either can't be had."""
        torch.set_num_threads(threads)
        with crew.opening():
            device = with_cpu_kernels(
                choose_device(launch.device, environment, deterministic=launch.deterministic), environment
            )
            tracking = Tracking(select_trackers(launch.track, folder=folder.trackers, study=folder.path.name))
            trainer = Trainer(folder, writer, launch, device, tracking, crew)
            for planned in share:
                trainer._load(Run.from_json(planned["run"]).data)
        crew.join(device)
        return trainer

    def close(self) -> None:
        """Ends the training of this share, on all ranks."""
        self.crew.dismiss()

    def train(self, planned: dict[str, Any], *, stop: Callable[[], bool], log: str | None) -> Record | None:
        """Trains a run to its record; None where `stop()` interrupted it, with its state saved."""
        run = Run.from_json(planned["run"])
        assert run.run_id == planned["run_id"], "the code that plans and the code that trains differ in identities"
        self.tracking.begin_run(run.run_id, planned_columns(planned))
        progress_file = ProgressFile(self.folder, self.writer, self.launch.cluster, device=self.device.kind)

        def report(progress: Progress) -> None:
            progress_file.update({name: value for name, value in vars(progress).items() if name != "curves"})
            self.tracking.log_curves(run.run_id, progress.curves)

        outcome = self._trained(planned, stop=stop, report=report)
        if isinstance(outcome, Interrupted):
            self.tracking.end_run(run.run_id, "stopped", metrics={})
            return None
        return self._kept(planned, run, outcome, log)

    def _kept(self, planned: dict[str, Any], run: Run, outcome: Outcome, log: str | None) -> Record:
        """The record of an outcome, after all that the run was asked to leave is left."""
        self.tracking.log_curves(run.run_id, outcome.curves)
        if run.train.keep == "last" and outcome.weights:
            self._keep(run, outcome)
        if run.data.predictions and outcome.predictions is not None:
            self._keep_predictions(run, outcome.predictions)
        return self._recorded(planned, outcome, log)

    def assist(self, planned: dict[str, Any], *, stop: Callable[[], bool]) -> None:
        """A further rank's part in a training: its outcome is the first one's to record."""
        self._trained(planned, stop=stop, report=lambda _: None)

    def _trained(
        self, planned: dict[str, Any], *, stop: Callable[[], bool], report: Callable[[Progress], None]
    ) -> Outcome | Interrupted:
        run = Run.from_json(planned["run"])
        with self.crew.training(planned, reason=self.reason) as ranks:
            return train(
                run,
                self._load(run.data),
                device=self.device,
                checkpoints=self._checkpoints(run.run_id),
                stop=stop,
                report=report,
                variant=self._variant(planned, run),
                ranks=ranks,
            )

    def _variant(self, planned: dict[str, Any], run: Run) -> Variant | None:
        """The variant that was the fastest where it was measured, if that was on a device like this one.

        torch compiles one piece of code for a few shapes and then gives up, so all are forgotten before that.
        """
        measured = dict(planned.get("variant") or {})
        if measured.pop("device_name", None) != device_name(self.device):
            return None
        variant = Variant.model_validate(measured)
        architecture = run.backbone + run.model.model_dump_json()
        if variant.compiled and architecture not in self._compiled:
            if len(self._compiled) == COMPILED_AT_ONCE:
                torch.compiler.reset()
                self._compiled.clear()
            self._compiled.add(architecture)
        return variant

    def failure(self, planned: dict[str, Any], *, reason: str, log: str | None) -> Record:
        """The record of a run that could not be trained: the reason, no outcome."""
        return Record(
            run_id=planned["run_id"],
            status="failed",
            run=planned["run"],
            cost=planned["cost"],
            match=planned["match"],
            provenance=self._provenance() | {"notes": self.tracking.end_run(planned["run_id"], "failed", metrics={})},
            reason=reason,
            log=log,
        )

    def reason(self, error: Exception) -> str:
        """An exception in one line, with the words a user looks for."""
        if isinstance(error, torch.OutOfMemoryError):
            return f"out of memory: {str(error).splitlines()[0]}"
        if isinstance(error, UserError):
            return error.summary()
        return f"{type(error).__name__}: {error}".splitlines()[0]

    def saved_step(self, run_id: str) -> int:
        """The step that the run would resume from; 0 where it would start over."""
        return max(self._checkpoints(run_id).steps(), default=0)

    def forget(self, run_id: str) -> None:
        """Removes the checkpoints of a run whose record is on disk."""
        self._checkpoints(run_id).discard()

    def _checkpoints(self, run_id: str) -> Checkpoints:
        return Checkpoints(self.folder.checkpoints, run_id, str(self.writer))

    def _load(self, data: ResolvedData) -> Splits:
        key = data.model_dump_json()
        if key not in self._splits:
            self._splits[key] = load_splits(data, describe_dataset(data))
        return self._splits[key]

    def _keep(self, run: Run, outcome: Outcome) -> None:
        path = self.folder.weights / f"{run.run_id}.safetensors"
        save_weights(path, run, weights=outcome.weights, facts=self._load(run.data).info, writer=str(self.writer))

    def _keep_predictions(self, run: Run, found: Predictions) -> None:
        from study.records.predictions import keep_predictions  # loads pandas and pyarrow

        image = self._load(run.data).test.indices.numpy()
        keep_predictions(
            self.folder,
            self.writer,
            run_id=run.run_id,
            image=image,
            label=found.label,
            predicted=found.predicted,
            probability=found.probability,
        )

    def _recorded(self, planned: dict[str, Any], outcome: Outcome, log: str | None) -> Record:
        step = outcome.diverged_step
        resumes = [asdict(resume) for resume in outcome.resumes]
        result = {name: finite(getattr(outcome, name)) for name in RESULTS}
        measured = {name: finite(getattr(outcome, name)) for name in MEASURED}
        untracked = self.tracking.end_run(planned["run_id"], outcome.status, metrics={**result, **measured})
        return Record(
            run_id=planned["run_id"],
            status=outcome.status,
            run=planned["run"],
            cost=planned["cost"],
            match=planned["match"],
            result=result,
            curves={name: [finite(value) for value in values] for name, values in outcome.curves.items()},
            measured=measured,
            fingerprint=outcome.fingerprint,
            provenance=self._provenance() | {"exact": outcome.exact, "resumes": resumes, "notes": (*outcome.notes, *untracked)},
            reason=f"the loss diverged at step {step}" if outcome.status == "diverged" else None,
            log=log,
        )

    def _provenance(self) -> dict[str, Any]:
        versions = {f"{name}_version": metadata.version(name) for name in VERSIONS}
        return {
            **self.launch.provenance,
            **versions,
            "python_version": ".".join(map(str, sys.version_info[:3])),
            "code": self.launch.code,
            "launch": self.launch.id,
            "task": self.writer.task,
            "restart": self.writer.restart,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }


def finite(value: float | None) -> float | None:
    """The value, or None where it overflowed: JSON knows no infinities, and a missing measurement is missing, never 0."""
    return value if value is None or math.isfinite(value) else None
