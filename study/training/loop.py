"""The one training loop, for CPU and GPU, for a run and for several that train together: from a state to an outcome."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor

from study.config.run import Run
from study.training.augmentation import Target
from study.training.batches import EvaluationBatches
from study.training.checkpoint import save
from study.training.divergence import first_nonfinite, hopeless
from study.training.evaluation import Evaluation, evaluate
from study.training.model_setup import as_written
from study.training.optimizer import set_learning_rate
from study.training.outcome import Interrupted, Outcome
from study.training.peak_memory import peak_mib
from study.training.schedule import learning_rate
from study.training.session import Member, Session
from study.training.state import TrainingState, own

Step = Callable[[Sequence[tuple[Tensor, Target]]], None]  # the next batch of each member
Ended = Callable[[Run, Outcome], None]


def trained(members: Sequence[Member], step: Step, *, stop: Callable[[], bool], ended: Ended) -> Interrupted | None:
    """Take the steps that are left, validate after each epoch, and read the test set once at most, at the end."""
    left = [each for each in members if not each.over]
    first, epoch_steps = left[0], left[0].session.train.epoch_steps
    for epoch in range(first.state.epochs_done, first.session.run.train.epochs):
        before, lap = epoch * epoch_steps, time.perf_counter()
        epochs = (each.session.train.epoch(epoch, first=each.state.step - before) for each in members)
        for batches in zip(*epochs, strict=True):
            for each in members:
                rate = learning_rate(each.state.step, each.session.run.train, epoch_steps=epoch_steps)
                set_learning_rate(each.state.optimizer, rate)
            step(batches)
            stopping, saving, telling = due(left, stop)
            if stopping or saving:
                add_time(left, since=lap)
                save_all(left)
                lap = time.perf_counter()
            if stopping:
                return Interrupted(first.state.step)
            if telling:
                seconds = (time.perf_counter() - lap) / len(left)
                for each in left:
                    each.session.reporter.tell(each.state, epoch=epoch, lap_seconds=seconds, together=len(left))
                if all(broken_at(each.state, before) is not None for each in left):
                    break
        add_time(left, since=lap)
        for each in left:
            outcome = close_epoch(each.state, each.session, epoch=epoch)
            if outcome is not None:
                each.over = True
                ended(each.session.run, outcome)
        left = [each for each in left if not each.over]
        if not left:
            return None
    for each in left:
        ended(each.session.run, done(each.state, each.session))
    return None


def due(members: Sequence[Member], stop: Callable[[], bool]) -> tuple[bool, ...]:
    """Whether now is the time to stop, to save and to tell, as all ranks have agreed; asked once after each step."""
    sessions, ranks = [each.session for each in members], members[0].session.ranks
    leads = ranks.rank == 0
    saving, telling = [each.checkpoints.due() for each in sessions], [each.reporter.due() for each in sessions]
    return ranks.agreed(stop(), leads and any(saving), leads and any(telling))


def add_time(members: Sequence[Member], *, since: float) -> None:
    """Each of the members has its share of the time."""
    seconds = (time.perf_counter() - since) / len(members)
    for each in members:
        each.state.train_seconds += seconds


def broken_at(state: TrainingState, before: int) -> int | None:
    """The step, counted from 1, whose loss was the first of the epoch that wasn't finite; `before` it were so many."""
    broken = first_nonfinite(state.losses[: state.step - before])
    return None if broken is None else before + broken + 1


def close_epoch(state: TrainingState, session: Session, *, epoch: int) -> Outcome | None:
    """Validate what was trained and add it to the curves; the outcome of a training that has diverged by now."""
    broken = broken_at(state, epoch * session.train.epoch_steps)
    if broken is not None:
        return diverged(state, session, step=broken)
    if not validated(state, session, epoch=epoch) or hopeless(state.curves, session.run.data.num_classes):
        return diverged(state, session, step=state.step)
    return None


def validated(state: TrainingState, session: Session, *, epoch: int) -> bool:
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


def save_all(members: Sequence[Member]) -> None:
    """Make the states durable, with the peak of memory up to here; the leader does, as they are the same on all ranks."""
    if members[0].session.ranks.rank == 0:
        for each in members:
            note_peak(each.state, each.session)
        states = [(each.session.checkpoints, each.state.exported(each.session.fingerprint)) for each in members]
        save(states, step=members[0].state.step)


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
        weights={name: tensor.cpu() for name, tensor in own(state.judged.state_dict()).items()},
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
