"""One training loop for CPU and GPU: from a run and its images to an outcome, from wherever the run was left.

A run's weights are a function of the run and the execution fingerprint. Shuffles and augmentation are keyed by seed, epoch
and image, the learning rate is a function of the step, and everything else is in `TrainingState`; so a training killed at
any step and continued from a checkpoint ends with the bits of an uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from study.config.execution import Variant
from study.config.run import Run
from study.data.splits import Splits
from study.training.batches import EvaluationBatches, TrainingBatches
from study.training.checkpoint import Checkpoints
from study.training.device import DeviceChoice, autocast, execution_mode
from study.training.divergence import first_nonfinite, hopeless
from study.training.evaluation import Evaluation, evaluate
from study.training.fingerprint import Fingerprint, fingerprint
from study.training.fitting import fitting_micro_batches, out_of_memory, release
from study.training.layout import LAYOUTS
from study.training.memory import peak_mib, reset_peak
from study.training.optimizer import IMPLEMENTATION, set_learning_rate
from study.training.outcome import Interrupted, Outcome, Progress
from study.training.placement import Placed, as_written, placed
from study.training.progress import Reporter
from study.training.ranks import ALONE, Ranks
from study.training.schedule import learning_rate
from study.training.state import ENTRIES, TrainingState, initial_state
from study.training.step import optimizer_step, sees_whole_batch


@dataclass(frozen=True)
class Session:
    """What stays the same from the first step of an attempt to its last."""

    run: Run
    micro_batches: int
    device: torch.device
    train: TrainingBatches
    val: EvaluationBatches | None  # None where the run is fitted on the validation images too
    test: EvaluationBatches | None  # None where the run may not read the test set
    fingerprint: Fingerprint
    checkpoints: Checkpoints
    stop: Callable[[], bool]
    reporter: Reporter
    peak_was_reset: bool
    notes: tuple[str, ...]
    ranks: Ranks
    placing: Placed

    @property
    def autocast(self) -> torch.autocast:
        return autocast(self.run.train.precision, self.device)

    def due(self) -> tuple[bool, ...]:
        """Whether now is the time to stop, to save and to tell, as all ranks have agreed; asked once after each step."""
        leads = self.ranks.rank == 0
        return self.ranks.agreed(self.stop(), leads and self.checkpoints.due(), leads and self.reporter.due())


def train(
    run: Run,
    splits: Splits,
    *,
    device: DeviceChoice,
    checkpoints: Checkpoints,
    stop: Callable[[], bool],
    report: Callable[[Progress], None],
    variant: Variant | None = None,
    ranks: Ranks = ALONE,
) -> Outcome | Interrupted:
    """Train `run` from its newest checkpoint, or from the start, to its outcome, or until `stop()`, asked after each step.

    An interrupted training has saved its state. Out of memory, it's tried once more in smaller parts of a batch, but not by
    several ranks, as the others wait amid the step. Raises UserError where the data can't fill a batch, OutOfMemory where no
    part would do, PeerLost where another rank has ended, and whatever torch raises otherwise.
    """
    attempt = partial(
        attempted, run, splits, device=device, checkpoints=checkpoints, stop=stop, report=report, variant=variant, ranks=ranks
    )
    with execution_mode(device):
        try:
            return attempt(micro_batches=run.train.accumulate)
        except RuntimeError as error:
            if ranks.size > 1 or not out_of_memory(error):
                raise
        # Outside the except block, where the error's traceback would still hold the tensors that didn't fit.
        release(device.device)
        micro_batches = fitting_micro_batches(run, device=device.device)
        note = f"a batch of {run.train.batch_size} didn't fit into memory: trained as {micro_batches} micro-batches"
        return attempt(micro_batches=micro_batches, notes=(note,))


def attempted(
    run: Run,
    splits: Splits,
    *,
    device: DeviceChoice,
    variant: Variant | None,
    checkpoints: Checkpoints,
    stop: Callable[[], bool],
    report: Callable[[Progress], None],
    ranks: Ranks,
    micro_batches: int,
    notes: tuple[str, ...] = (),
) -> Outcome | Interrupted:
    """`train` with each batch in `micro_batches` parts, and `notes` for the outcome."""
    where, was_reset = device.device, reset_peak(device.device)
    placing = placed(run, device, variant=variant, ranks=ranks)
    model, layout = placing.model, placing.layout
    assert micro_batches == 1 or not sees_whole_batch(model), "the plan refuses micro-batches with BatchNorm"
    batches = TrainingBatches(run, splits, device=where, layout=layout, ranks=ranks)
    evaluated = partial(EvaluationBatches, facts=splits.facts, device=where, layout=layout, ranks=ranks)
    session = Session(
        run=run,
        micro_batches=micro_batches,
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
        ),
        checkpoints=checkpoints,
        stop=stop,
        reporter=Reporter(run, report, epoch_steps=batches.epoch_steps),
        peak_was_reset=was_reset,
        notes=notes,
        ranks=ranks,
        placing=placing,
    )
    state = initial_state(model, run, device=where, epoch_steps=batches.epoch_steps)
    saved = ranks.same(checkpoints.latest(like=ENTRIES) if ranks.rank == 0 else None)
    if saved is not None:
        state.restore(saved, session.fingerprint)
    return trained(state, session)


def trained(state: TrainingState, session: Session) -> Outcome | Interrupted:
    """Take the steps that are left, validate after each epoch, and read the test set once at most, at the end."""
    run, epoch_steps = session.run, session.train.epoch_steps
    step = partial(
        optimizer_step,
        options=run.train,
        micro_batches=session.micro_batches,
        autocast=session.autocast,
        ranks=session.ranks,
    )
    for epoch in range(state.epochs_done, run.train.epochs):
        before = epoch * epoch_steps
        lap = time.perf_counter()
        for images, target in session.train.epoch(epoch, first=state.step - before):
            set_learning_rate(state.optimizer, learning_rate(state.step, run.train, epoch_steps=epoch_steps))
            step(state, images, target)
            stopping, saving, telling = session.due()
            if stopping or saving:
                state.train_seconds += time.perf_counter() - lap
                save(state, session)
                lap = time.perf_counter()
            if stopping:
                return Interrupted(state.step)
            if telling:
                session.reporter.tell(state, epoch=epoch, lap_seconds=time.perf_counter() - lap)
                if first_nonfinite(state.losses[: state.step - before]) is not None:
                    break
        broken = first_nonfinite(state.losses[: state.step - before])
        state.train_seconds += time.perf_counter() - lap
        if broken is not None:
            return diverged(state, session, step=before + broken + 1)
        if not close_epoch(state, session, epoch=epoch) or hopeless(state.curves, run.data.num_classes):
            return diverged(state, session, step=state.step)
    return done(state, session)


def close_epoch(state: TrainingState, session: Session, *, epoch: int) -> bool:
    """Validate the weights that are judged and add the epoch to the curves; False, and nothing is added, where the
    validation loss isn't finite."""
    epoch_steps, batch_size = session.train.epoch_steps, session.run.train.batch_size
    validation = None if session.val is None else judged(state, session, session.val)
    if validation is not None and not math.isfinite(validation.loss):
        return False
    hits = state.hits.double().sum().item() / (epoch_steps * batch_size)
    row = {
        "epoch": epoch + 1,
        "train_loss": state.losses.double().mean().item(),
        "train_accuracy": None if session.train.mixes_labels else hits,
        "val_accuracy": None if validation is None else validation.accuracy,
        "val_loss": None if validation is None else validation.loss,
        "lr": learning_rate(state.step - 1, session.run.train, epoch_steps=epoch_steps),
    }
    for name, value in row.items():
        state.curves[name].append(value)
    return True


def judged(state: TrainingState, session: Session, batches: EvaluationBatches) -> Evaluation:
    """The figures of the weights that `train.evaluate` names."""
    with as_written(session.placing):
        return evaluate(state.judged, batches, autocast=session.autocast, ranks=session.ranks)


def save(state: TrainingState, session: Session) -> None:
    """Make the state durable, with the peak of memory up to here; the leader does, as it is the same on all ranks."""
    if session.ranks.rank == 0:
        note_peak(state, session)
        session.checkpoints.save(state.exported(session.fingerprint), step=state.step)


def note_peak(state: TrainingState, session: Session) -> None:
    """Keep the greatest peak of all attempts."""
    peak = peak_mib(session.device, was_reset=session.peak_was_reset)
    state.peak_memory_mib = max(filter(None, (peak, state.peak_memory_mib)), default=None)


def done(state: TrainingState, session: Session) -> Outcome:
    """The outcome of a finished training."""
    test = None if session.test is None else judged(state, session, session.test)
    if test is not None and not math.isfinite(test.loss):
        return diverged(state, session, step=state.step)
    ended = dataclasses.replace(
        outcome(state, session, status="done"),
        val_accuracy=state.curves["val_accuracy"][-1],
        val_loss=state.curves["val_loss"][-1],
        weights={name: tensor.cpu() for name, tensor in state.judged.state_dict().items()},
    )
    if test is None:
        return ended
    return dataclasses.replace(
        ended, test_accuracy=test.accuracy, test_top5=test.top5, test_loss=test.loss, predictions=test.predictions
    )


def diverged(state: TrainingState, session: Session, *, step: int) -> Outcome:
    """The outcome of a training that `study.training.divergence` gave up at `step`."""
    return dataclasses.replace(outcome(state, session, status="diverged"), diverged_step=step)


def outcome(state: TrainingState, session: Session, *, status: Literal["done", "diverged"]) -> Outcome:
    """What every outcome holds."""
    note_peak(state, session)
    return Outcome(
        status=status,
        curves=state.curves,
        fingerprint=session.fingerprint,
        train_seconds=state.train_seconds,
        images_per_second=state.step * session.run.train.batch_size / state.train_seconds,
        peak_memory_mib=state.peak_memory_mib,
        resumes=state.resumes,
        notes=(*session.notes, *session.checkpoints.notes),
    )
