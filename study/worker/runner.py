"""From a share's entry to its record: the border between the cluster's side and the training engine.

A trainer lives as long as its worker: it chooses the device once and keeps data sets loaded, so that the next run starts at
once.
"""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from typing import Any

import torch

from study.config.options import Variant
from study.config.run import Run
from study.data import describe_dataset
from study.data.splits import Splits, StoredImages
from study.errors import UserError, describe_refusal
from study.records.columns import planned_columns
from study.records.correctness import pack_correctness
from study.records.ledger import Launch, ShareEntry
from study.records.progress_file import WorkerProgress, write_progress
from study.records.record import Measurements, Record, Result, Status, pick
from study.records.sweep_folder import SweepFolder, Writer
from study.tracking.libraries import select_trackers
from study.tracking.tracking_thread import Tracking
from study.training.checkpoint import Checkpoints
from study.training.device import DeviceChoice, choose_device
from study.training.engine import train
from study.training.fingerprint import device_name
from study.training.model_setup import with_cpu_kernels
from study.training.outcome import Curves, Outcome, ProgressReport
from study.training.saved_weights import save_weights
from study.worker.process_group import ProcessGroup

VERSIONS = ("torch", "torchvision", "numpy", "fvcore", "submitit", "pandas")
MAX_COMPILED = 7  # architectures; torch compiles one piece of code for at most 8 shapes
PROGRESS_INTERVAL_S = {"local": 1.0, "slurm": 15.0}


@dataclass
class Trainer:
    """Trains the runs of one share on one device."""

    folder: SweepFolder
    writer: Writer
    launch: Launch
    device: DeviceChoice
    tracking: Tracking
    group: ProcessGroup
    _images: dict[str, StoredImages] = field(default_factory=dict)  # by the options that chose them
    _compiled: set[str] = field(default_factory=set)  # the architectures whose compiled code torch holds
    _next_progress: float = float("-inf")

    @staticmethod
    def open(
        folder: SweepFolder,
        writer: Writer,
        launch: Launch,
        *,
        share: Sequence[ShareEntry],
        environment: Mapping[str, str],
        group: ProcessGroup,
    ) -> "Trainer":
        """Choose the device and load the data of the whole share. Raises UserError if either is unavailable."""
        torch.set_num_threads(launch.threads)
        with group.setup():
            device = with_cpu_kernels(
                choose_device(launch.device, environment, deterministic=launch.deterministic),
                environment,
                compiled=launch.execution is None or launch.execution.kernels is not False,
            )
            tracking = Tracking(select_trackers(launch.track, folder=folder.trackers, study=folder.path.name))
            trainer = Trainer(folder, writer, launch, device, tracking, group)
            for entry in share:
                trainer._load(Run.from_json(entry.planned.run))
        group.connect(device)
        return trainer

    def train(self, entry: ShareEntry, *, stop: Callable[[], bool], log: str | None) -> Record | None:
        """Train a run; its record, or None if `stop` interrupted it and its state is saved."""
        self.tracking.begin_run(entry.run_id, planned_columns(entry.planned))
        self._next_progress = float("-inf")
        run, outcome = self._train(entry, stop=stop, report=self._report)
        if outcome is None:
            self.tracking.end_run(entry.run_id, "stopped", metrics={})
            return None
        self.tracking.log_curves(entry.run_id, outcome.curves)
        # The record comes last: what a recorded run was asked to leave must be on disk.
        if run.train.keep == "last" and outcome.weights:
            path = self.folder.weights / f"{run.run_id}.safetensors"
            save_weights(path, run, weights=outcome.weights, facts=self._load(run).info, writer=str(self.writer))
        if run.data.predictions and outcome.predictions is not None:
            from study.records.predictions import write_predictions  # imports pandas and pyarrow

            image, found = self._load(run).test.indices.numpy(), outcome.predictions
            write_predictions(self.folder, self.writer, run_id=run.run_id, image=image, **vars(found))
        return self._make_record(entry, outcome, log)

    def assist(self, entry: ShareEntry, *, stop: Callable[[], bool]) -> None:
        """Train a run as a nonzero rank; rank 0 records its outcome."""
        self._train(entry, stop=stop, report=lambda *_: None)

    def _train(self, entry: ShareEntry, *, stop: Callable[[], bool], report: ProgressReport) -> tuple[Run, Outcome | None]:
        run = Run.from_json(entry.planned.run)
        assert run.run_id == entry.run_id, "the code that plans and the code that trains differ in identities"
        with self.group.training(entry, describe=self.describe) as ranks:
            outcome = train(
                run,
                self._load(run),
                device=self.device,
                checkpoints=self._checkpoints(run.run_id),
                stop=stop,
                report=report,
                variant=self._choose_variant(entry, run),
                ranks=ranks,
            )
        return run, outcome

    def _report(self, progress: WorkerProgress, curves: Curves) -> None:
        self.tracking.log_curves(progress.run_id, curves)
        if time.monotonic() >= self._next_progress:
            self._next_progress = time.monotonic() + PROGRESS_INTERVAL_S[self.launch.cluster]
            try:
                write_progress(self.folder, self.writer, progress)
            except OSError as error:  # only a display: status shows an older state
                print(describe_refusal(error), file=sys.stderr, flush=True)

    def _choose_variant(self, entry: ShareEntry, run: Run) -> Variant | None:
        """The fastest variant, if it was measured on a device like this one."""
        variant = entry.variant
        if variant is None or entry.device_name != device_name(self.device):
            return None
        architecture = run.backbone + run.model.model_dump_json()
        if variant.compiled and architecture not in self._compiled:
            if len(self._compiled) == MAX_COMPILED:  # at its limit, torch would silently stop compiling
                torch.compiler.reset()
                self._compiled.clear()
            self._compiled.add(architecture)
        return variant

    def _load(self, run: Run) -> Splits:
        key = run.data.model_dump_json()
        if key not in self._images:
            self._images[key] = StoredImages.open(run.data, describe_dataset(run.data))
        return self._images[key].divide(run.data.split, run.seed)

    def saved_step(self, run_id: str) -> int:
        """The step that a run would resume from; 0 if it would start over."""
        return max(self._checkpoints(run_id).steps(), default=0)

    def remove_checkpoints(self, run_id: str) -> None:
        """Remove the checkpoints of a run whose record is on disk."""
        self._checkpoints(run_id).discard()

    def _checkpoints(self, run_id: str) -> Checkpoints:
        return Checkpoints(self.folder.checkpoints, run_id, str(self.writer))

    def describe(self, error: Exception) -> str:
        """An exception in one line, as the record's reason."""
        if isinstance(error, torch.OutOfMemoryError):
            return f"out of memory: {str(error).splitlines()[0]}"
        if isinstance(error, UserError):
            return error.summary()
        return f"{type(error).__name__}: {error}".splitlines()[0]

    def make_failure(self, entry: ShareEntry, *, reason: str, log: str | None) -> Record:
        """The record of a run that could not be trained."""
        notes = self.tracking.end_run(entry.run_id, "failed", metrics={})
        return replace(self._draft_record(entry, "failed", {"notes": notes}), reason=reason, log=log)

    def _make_record(self, entry: ShareEntry, outcome: Outcome, log: str | None) -> Record:
        figures = {name: _finite(value) for name, value in vars(outcome).items() if isinstance(value, int | float)}
        result, measured = pick(Result, figures), pick(Measurements, figures)
        untracked = self.tracking.end_run(entry.run_id, outcome.status, metrics={**asdict(result), **asdict(measured)})
        resumes = [asdict(resume) for resume in outcome.resumes]
        changes = self._changes()
        notes = (*outcome.notes, *untracked, *(f"executed otherwise than the sweep's first runs: {each}" for each in changes))
        provenance = {"exact": outcome.exact and not changes, "resumes": resumes, "notes": notes}
        return replace(
            self._draft_record(entry, outcome.status, provenance),
            result=result,
            curves={name: [_finite(value) for value in values] for name, values in outcome.curves.items()},
            correct={split: pack_correctness(images) for split, images in outcome.correct.items()},
            measured=measured,
            fingerprint=outcome.fingerprint,
            reason=f"the loss diverged at step {outcome.diverged_step}" if outcome.status == "diverged" else None,
            log=log,
        )

    def _changes(self) -> tuple[str, ...]:
        """How this worker executes its runs otherwise than the sweep's first launch decided."""
        decided, cannot = self.launch.execution, self.device.kind == "cpu" and self.device.extension is None
        lost = decided is not None and decided.kernels and cannot
        return (*self.launch.changes, *(["kernels: compiled -> plain"] if lost else []))

    def _draft_record(self, entry: ShareEntry, status: Status, provenance: Mapping[str, Any]) -> Record:
        """What the records of finished and failed runs have in common."""
        planned = entry.planned
        versions = {f"{name}_version": metadata.version(name) for name in VERSIONS}
        whole = {
            **self.launch.provenance,
            **versions,
            "python_version": ".".join(map(str, sys.version_info[:3])),
            "code": self.launch.code,
            "launch": self.launch.id,
            "task": self.writer.task,
            "restart": self.writer.restart,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **provenance,
        }
        return Record(entry.run_id, status, run=planned.run, cost=planned.cost, match=planned.match, provenance=whole)


def _finite(value: float | None) -> float | None:
    """The value, or None if it overflowed: JSON has no infinities, and a missing measurement is missing, never 0."""
    return value if value is None or math.isfinite(value) else None
