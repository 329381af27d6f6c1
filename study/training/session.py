"""One run's training, opened: its images, where its state is saved, and the state itself, before the next step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from study.config.run import Run
from study.data.splits import Splits
from study.training.batches import EvaluationBatches, TrainingBatches
from study.training.checkpoint import Checkpoints
from study.training.device import DeviceChoice, autocast
from study.training.distributed import ALONE, Ranks
from study.training.fingerprint import Fingerprint, fingerprint
from study.training.memory_layout import LAYOUTS
from study.training.model_setup import Placed
from study.training.optimizer import IMPLEMENTATION
from study.training.outcome import Progress
from study.training.reporter import Reporter
from study.training.state import TrainingState, initial_state


@dataclass(frozen=True)
class Session:
    """What stays the same of one run's training from the first step of an attempt to its last."""

    run: Run
    device: torch.device
    train: TrainingBatches
    val: EvaluationBatches | None  # None where the run is fitted on the validation images too
    test: EvaluationBatches | None  # None where the run may not read the test set
    fingerprint: Fingerprint
    checkpoints: Checkpoints
    reporter: Reporter
    peak_was_reset: bool
    notes: tuple[str, ...]
    ranks: Ranks
    placing: Placed

    @property
    def autocast(self) -> torch.autocast:
        return autocast(self.run.train.precision, self.device)


@dataclass
class Member:
    """One of the runs that train together; most often the only one. `over`: its outcome is known, it only keeps its place."""

    session: Session
    state: TrainingState
    over: bool = False


def member(
    run: Run,
    splits: Splits,
    *,
    device: DeviceChoice,
    placing: Placed,
    checkpoints: Checkpoints,
    report: Callable[[Progress], None],
    peak_was_reset: bool,
    ranks: Ranks = ALONE,
    micro_batches: int = 1,
    notes: tuple[str, ...] = (),
    stacked: int = 1,
) -> Member:
    """A run that is about to take its first step, with the model that was placed for it."""
    where, layout = device.device, placing.layout
    batches = TrainingBatches(run, splits, device=where, layout=layout, ranks=ranks)
    evaluated = partial(EvaluationBatches, facts=splits.info, device=where, layout=layout, ranks=ranks)
    session = Session(
        run=run,
        device=where,
        train=batches,
        val=None if run.train.fit_on == "train+val" else evaluated(splits.val),
        test=evaluated(splits.test) if run.train.read_test else None,
        fingerprint=fingerprint(
            device,
            memory_layout=LAYOUTS[layout],
            optimizer=IMPLEMENTATION,
            micro_batches=micro_batches,
            kernels=placing.kernels,
            compiled=placing.compiled,
            ranks=ranks.size,
            stacked=stacked,
        ),
        checkpoints=checkpoints,
        reporter=Reporter(run, report, epoch_steps=batches.epoch_steps),
        peak_was_reset=peak_was_reset,
        notes=notes,
        ranks=ranks,
        placing=placing,
    )
    return Member(session, initial_state(placing.model, run, device=where, epoch_steps=batches.epoch_steps))
