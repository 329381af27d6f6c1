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
from typing import Literal

import torch
from torch import Tensor, nn

from study.backbones import build_spec
from study.config.run import Run
from study.data.splits import Splits
from study.training.augmentation import Target
from study.training.batches import EvaluationBatches, TrainingBatches
from study.training.checkpoint import Checkpoints
from study.training.device import DeviceChoice, autocast, execution_mode
from study.training.divergence import first_nonfinite, hopeless
from study.training.evaluation import Evaluation, evaluate
from study.training.fingerprint import Fingerprint, fingerprint
from study.training.layout import LAYOUTS, memory_format
from study.training.loss import cross_entropy
from study.training.memory import peak_mib, reset_peak
from study.training.optimizer import IMPLEMENTATION, set_learning_rate
from study.training.outcome import Interrupted, Outcome, Progress
from study.training.progress import Reporter
from study.training.schedule import learning_rate, steps_per_epoch
from study.training.state import ENTRIES, TrainingState, initial_state


@dataclass(frozen=True)
class Session:
    """What stays the same from the first step of an attempt to its last."""

    run: Run
    epoch_steps: int
    device: torch.device
    train: TrainingBatches
    val: EvaluationBatches
    test: EvaluationBatches
    fingerprint: Fingerprint
    checkpoints: Checkpoints
    stop: Callable[[], bool]
    reporter: Reporter
    peak_was_reset: bool

    @property
    def autocast(self) -> torch.autocast:
        return autocast(self.run.train.precision, self.device)


def train(
    run: Run,
    splits: Splits,
    *,
    device: DeviceChoice,
    checkpoints: Checkpoints,
    stop: Callable[[], bool],
    report: Callable[[Progress], None],
) -> Outcome | Interrupted:
    """Train `run` from its newest checkpoint, or from the start, to its outcome, or until `stop()`, asked after each step.

    An interrupted training has saved its state. Raises UserError where the data can't fill a batch, and whatever torch raises
    (out of memory) otherwise.
    """
    with execution_mode(device):
        was_reset = reset_peak(device.device)
        epoch_steps = steps_per_epoch(run.data.train_images, run.train.batch_size)
        model = build_spec(run.model, seed=run.seed)
        layout = memory_format(model)
        model.to(device=device.device).to(memory_format=layout)  # type: ignore[call-overload]
        assert run.train.accumulate == 1 or not sees_whole_batch(model), "the plan refuses micro-batches with BatchNorm"
        session = Session(
            run=run,
            epoch_steps=epoch_steps,
            device=device.device,
            train=TrainingBatches(run, splits, device=device.device, layout=layout),
            val=EvaluationBatches(splits, "val", device=device.device, layout=layout),
            test=EvaluationBatches(splits, "test", device=device.device, layout=layout),
            fingerprint=fingerprint(
                device, memory_layout=LAYOUTS[layout], optimizer=IMPLEMENTATION, micro_batches=run.train.accumulate
            ),
            checkpoints=checkpoints,
            stop=stop,
            reporter=Reporter(run, report, epoch_steps=epoch_steps),
            peak_was_reset=was_reset,
        )
        state = initial_state(model, run.train, device=device.device, epoch_steps=epoch_steps)
        saved = checkpoints.latest(like=ENTRIES)
        if saved is not None:
            state.restore(saved, session.fingerprint)
        return trained(state, session)


def trained(state: TrainingState, session: Session) -> Outcome | Interrupted:
    """Take the steps that are left, validate after each epoch, and read the test set once, at the end."""
    run, epoch_steps = session.run, session.epoch_steps
    for epoch in range(state.epochs_done, run.train.epochs):
        before = epoch * epoch_steps
        lap = time.perf_counter()
        for images, target in session.train.epoch(epoch, first=state.step - before, count=epoch_steps):
            set_learning_rate(state.optimizer, learning_rate(state.step, run.train, epoch_steps=epoch_steps))
            optimizer_step(state, images, target, session)
            stopping = session.stop()
            if stopping or session.checkpoints.due():
                state.train_seconds += time.perf_counter() - lap
                save(state, session)
                lap = time.perf_counter()
            if stopping:
                return Interrupted(state.step)
            if session.reporter.due():
                session.reporter.tell(state, epoch=epoch, lap_seconds=time.perf_counter() - lap)
                if first_nonfinite(state.losses[: state.step - before]) is not None:
                    break
        broken = first_nonfinite(state.losses[: state.step - before])
        state.train_seconds += time.perf_counter() - lap
        if broken is not None:
            return diverged(state, session, step=before + broken + 1)
        validation = close_epoch(state, session, epoch=epoch)
        if hopeless(state.curves, run.data.num_classes) or not math.isfinite(validation.loss):
            return diverged(state, session, step=state.step)
    return done(state, session)


def optimizer_step(state: TrainingState, images: Tensor, target: Target, session: Session) -> None:
    """One step of the optimizer on images `b c h w`; its mean loss and hits are noted on the device, nothing is waited for."""
    options, at = session.run.train, state.step % session.epoch_steps
    state.losses[at], state.hits[at] = 0.0, 0.0
    state.optimizer.zero_grad()
    for part, goal in zip(images.chunk(options.accumulate), target.chunk(options.accumulate), strict=True):
        with session.autocast:
            logits = state.model(part)
        loss = cross_entropy(logits.float(), goal, label_smoothing=options.label_smoothing) / options.accumulate
        state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        state.losses[at] += loss.detach()
        state.hits[at] += (logits.detach().argmax(dim=1) == goal.labels).sum()
    if options.grad_clip is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), options.grad_clip)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.average is not None:
        state.average.update(state.model, state.step)
    state.step += 1


def close_epoch(state: TrainingState, session: Session, *, epoch: int) -> Evaluation:
    """Validate the weights that are judged, and add the epoch to the curves."""
    train = session.run.train
    validation = judged(state, session, session.val)
    last_rate = learning_rate(state.step - 1, train, epoch_steps=session.epoch_steps)
    hits = state.hits.double().sum().item() / (session.epoch_steps * train.batch_size)
    row = {
        "epoch": epoch + 1,
        "train_loss": state.losses.double().mean().item(),
        "train_accuracy": None if session.train.mixes_labels else hits,
        "val_accuracy": validation.accuracy,
        "val_loss": validation.loss,
        "lr": last_rate,
    }
    if math.isfinite(validation.loss):
        for name, value in row.items():
            state.curves[name].append(value)
    return validation


def sees_whole_batch(model: nn.Module) -> bool:
    """Whether an image's logits depend on its batch, so that micro-batches would train another model."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def judged(state: TrainingState, session: Session, batches: EvaluationBatches) -> Evaluation:
    """The figures of the weights that `train.evaluate` names."""
    return evaluate(state.judged, batches, autocast=session.autocast)


def save(state: TrainingState, session: Session) -> None:
    """Make the state durable, with the peak of memory up to here."""
    note_peak(state, session)
    session.checkpoints.save(state.exported(session.fingerprint), step=state.step)


def note_peak(state: TrainingState, session: Session) -> None:
    """Keep the greatest peak of all attempts."""
    peak = peak_mib(session.device, was_reset=session.peak_was_reset)
    state.peak_memory_mib = max(filter(None, (peak, state.peak_memory_mib)), default=None)


def done(state: TrainingState, session: Session) -> Outcome:
    """The outcome of a finished training."""
    test = judged(state, session, session.test)
    if not math.isfinite(test.loss):
        return diverged(state, session, step=state.step)
    return dataclasses.replace(
        outcome(state, session, status="done"),
        val_accuracy=state.curves["val_accuracy"][-1],
        val_loss=state.curves["val_loss"][-1],
        test_accuracy=test.accuracy,
        test_top5=test.top5,
        test_loss=test.loss,
        weights={name: tensor.cpu() for name, tensor in state.judged.state_dict().items()},
        predictions=test.predictions,
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
        notes=tuple(session.checkpoints.notes),
    )
