"""One training loop for CPU and GPU: from a run and its images to an outcome, from wherever the run was left.

A run's weights are a function of the run and the execution fingerprint. Shuffles and augmentation are keyed by seed, epoch
and image, the learning rate is a function of the step, and everything else is in `TrainingState`; so a training killed at
any step and continued from a checkpoint ends with the bits of an uninterrupted one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from study.backbones import build_spec
from study.config.options import TrainOptions
from study.config.run import Run
from study.data.splits import Splits
from study.training.batches import Batches, Target
from study.training.checkpoint import Checkpoints
from study.training.device import DeviceChoice, execution_mode
from study.training.divergence import first_nonfinite, hopeless
from study.training.evaluation import Evaluation, evaluate
from study.training.fingerprint import Fingerprint, fingerprint
from study.training.layout import memory_format
from study.training.memory import peak_mib, reset_peak
from study.training.optimizer import IMPLEMENTATION, set_learning_rate
from study.training.outcome import Interrupted, Outcome, Progress
from study.training.progress import Reporter
from study.training.schedule import learning_rate, steps_per_epoch
from study.training.state import ENTRIES, TrainingState, initial_state

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Session:
    """What stays the same from the first step of an attempt to its last."""

    run: Run
    batches: Batches
    epoch_steps: int
    autocast: torch.autocast
    fingerprint: Fingerprint
    checkpoints: Checkpoints
    stop: Callable[[], bool]
    reporter: Reporter
    peak_was_reset: bool


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
    epoch_steps = steps_per_epoch(run.data.train_images, run.train.batch_size)
    with execution_mode(device):
        was_reset = reset_peak(device.device)
        model = build_spec(run.model, seed=run.seed)
        layout = memory_format(model)
        model.to(device=device.device, memory_format=layout)
        assert run.train.accumulate == 1 or not has_batch_statistics(model), "BatchNorm sees the whole batch"
        session = Session(
            run=run,
            batches=Batches(run, splits, device=device.device, layout=layout),
            epoch_steps=epoch_steps,
            autocast=autocast_for(run.train, device.device),
            fingerprint=fingerprint(
                device, memory_layout=str(layout), optimizer=IMPLEMENTATION, micro_batches=run.train.accumulate
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
        order = session.batches.order(epoch)
        lap = time.perf_counter()
        for index in range(state.step - epoch * epoch_steps, epoch_steps):
            images, target = session.batches.train(order, epoch=epoch, index=index)
            set_learning_rate(state.optimizer, learning_rate(state.step, run.train, epoch_steps=epoch_steps))
            state.losses[index], state.hits[index] = optimizer_step(state, images, target, session)
            state.step += 1
            stopping = session.stop()
            if stopping or session.checkpoints.due():
                state.train_seconds += time.perf_counter() - lap
                save(state, session)
                lap = time.perf_counter()
            if stopping:
                return Interrupted(state.step)
            if session.reporter.due():
                session.reporter.tell(state, epoch=epoch, lap_seconds=time.perf_counter() - lap)
                if first_nonfinite(state.losses[: index + 1]) is not None:
                    break
        broken = first_nonfinite(state.losses[: state.step - epoch * epoch_steps])
        state.train_seconds += time.perf_counter() - lap
        if broken is not None:
            return diverged(state, session, step=epoch * epoch_steps + broken + 1)
        close_epoch(state, session, epoch=epoch)
        if hopeless(state.curves, run.data.num_classes):
            return diverged(state, session, step=state.step)
    return done(state, session)


def optimizer_step(state: TrainingState, images: Tensor, target: Target, session: Session) -> tuple[Tensor, Tensor]:
    """One optimizer step on images `b c h w`; the mean loss and the number of images classified right, on the device."""
    train, model = session.run.train, state.model
    state.optimizer.zero_grad()
    loss, hits = images.new_zeros(()), images.new_zeros(())
    for part, part_target in zip(images.chunk(train.accumulate), target.chunk(train.accumulate), strict=True):
        with session.autocast:
            logits = model(part)
        part_loss = cross_entropy(logits.float(), part_target, label_smoothing=train.label_smoothing) / train.accumulate
        state.scaler.scale(part_loss).backward()
        loss += part_loss.detach()
        hits += (logits.detach().argmax(dim=1) == part_target.labels).sum()
    if train.grad_clip is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), train.grad_clip)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.average is not None:
        state.average.update(model, state.step)
    return loss, hits


def cross_entropy(logits: Tensor, target: Target, *, label_smoothing: float) -> Tensor:
    raise NotImplementedError
