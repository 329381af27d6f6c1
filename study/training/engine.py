"""Train one run: model, data, optimizer, epochs, evaluation, outcome, from wherever the run was interrupted.

A run's weights are a function of the run and the execution fingerprint: shuffles and augmentation are keyed by seed, epoch and
image, the learning rate is a function of the step, and everything else is in `TrainingState`. So a training that is killed at
any step and resumed from a checkpoint ends with the same bits as an uninterrupted one.
"""

import math
import time
from collections.abc import Callable
from functools import partial

from study.config.options import Variant
from study.config.run import Run
from study.data.splits import Splits
from study.records.progress_file import WorkerProgress
from study.training.batches import EvaluationBatches, TrainingBatches, find_input_permutation
from study.training.checkpoint import Checkpoints
from study.training.device import DeviceChoice, autocast, execution_mode, read_peak_mib, reset_peak_memory
from study.training.distributed import SINGLE_RANK, Ranks
from study.training.evaluation import Evaluation, evaluate
from study.training.fingerprint import make_fingerprint
from study.training.memory_fallback import find_micro_batches, is_out_of_memory, release_memory
from study.training.memory_layout import LAYOUT_NAMES
from study.training.model_setup import eager_mode, prepare_model
from study.training.optimizer import learning_rate, set_learning_rate
from study.training.outcome import Curves, Outcome, ProgressReport
from study.training.state import TrainingState, clone_views, initial_state
from study.training.step import optimizer_step, sees_whole_batch

REPORT_INTERVAL_SECONDS = 1.0  # at least, as the host waits for the device to report
# A training ends early at a loss of a step or an evaluation that isn't finite, and after two epochs in a row with too high a
# mean loss. Both rules are functions of the losses alone, so of the run alone.
DIVERGED_LOSS = 10.0  # in units of that of uniform predictions
DIVERGED_EPOCHS = 2


class Session:
    """What stays the same from the first step of one attempt at a run to its last, and when progress is reported next."""

    def __init__(
        self,
        run: Run,
        splits: Splits,
        *,
        choice: DeviceChoice,
        checkpoints: Checkpoints,
        report: ProgressReport,
        variant: Variant | None,
        ranks: Ranks,
        micro_batches: int,
        notes: tuple[str, ...] = (),
    ):
        self.run, self.checkpoints, self.report, self.ranks = run, checkpoints, report, ranks
        self.micro_batches, self.notes = micro_batches, notes
        self.next_report = 0.0  # of time.monotonic
        self.device = device = choice.device
        self.autocast = autocast(run.train.precision, device)
        self.peak_was_reset = reset_peak_memory(device)
        self.prepared = prepare_model(run, choice, variant=variant, ranks=ranks)
        # BatchNorm would see a micro-batch's statistics instead of the batch's.
        assert micro_batches == 1 or not sees_whole_batch(self.prepared.model), "the plan refuses micro-batches with BatchNorm"
        layout = self.prepared.layout
        self.train = TrainingBatches(run, splits, device=device, layout=layout, ranks=ranks)
        permutation = find_input_permutation(run, device)
        evaluation = partial(
            EvaluationBatches, facts=splits.info, device=device, layout=layout, ranks=ranks, permutation=permutation
        )
        self.val = None if run.train.fit_on == "train+val" else evaluation(splits.val)
        self.test = evaluation(splits.test) if run.train.read_test else None
        self.fingerprint = make_fingerprint(
            choice,
            memory_layout=LAYOUT_NAMES[layout],
            micro_batches=micro_batches,
            kernels=self.prepared.kernels,
            compiled=self.prepared.compiled,
            ranks=ranks.size,
            optimizer=run.train.optimizer,
        )


def train(
    run: Run,
    splits: Splits,
    *,
    device: DeviceChoice,
    checkpoints: Checkpoints,
    stop: Callable[[], bool],
    report: ProgressReport,
    variant: Variant | None = None,
    ranks: Ranks = SINGLE_RANK,
) -> Outcome | None:
    """Train `run` from its newest checkpoint, or from the start, to its outcome; None where `stop()` has interrupted it.

    `stop()` is called after each step; an interrupted training has saved its state. A single process that runs out of memory
    tries once more with smaller micro-batches; several ranks don't, as the others would wait in the middle of a step. Raises
    UserError where the images don't fill one batch, OutOfMemory where no micro-batch fits, PeerLost where another rank ended,
    and what torch raises.
    """
    session = partial(Session, run, splits, choice=device, checkpoints=checkpoints, report=report, variant=variant, ranks=ranks)
    with execution_mode(device):
        try:
            return run_session(session(micro_batches=run.train.accumulate), stop)
        except RuntimeError as error:
            if ranks.size > 1 or not is_out_of_memory(error):
                raise
        # Outside the except block, where the error's traceback would still hold the tensors that didn't fit.
        release_memory(device.device)
        micro_batches = find_micro_batches(run, device)
        note = f"a batch of {run.train.batch_size} didn't fit into memory: trained as {micro_batches} micro-batches"
        return run_session(session(micro_batches=micro_batches, notes=(note,)), stop)


def run_session(session: Session, stop: Callable[[], bool]) -> Outcome | None:
    run, ranks = session.run, session.ranks
    epoch_steps = session.train.epoch_steps
    state = initial_state(session.prepared.model, run, device=session.device, epoch_steps=epoch_steps, ranks=ranks)
    # Rank 0 alone reads: ranks that each took their newest readable file could resume from different steps.
    start = state.export(session.fingerprint)
    saved = ranks.broadcast(session.checkpoints.newest(like=start) if ranks.rank == 0 else None)
    if saved is not None:
        state.restore(saved, session.fingerprint)

    validation = None
    for epoch in range(
        state.epochs_done, math.ceil(session.train.steps / epoch_steps)
    ):  # the last epoch at least: nothing is saved after its validation
        if not train_epoch(state, session, epoch=epoch, stop=stop):
            return None
        validation, diverged_step = validate(state, session, epoch=epoch)
        if diverged_step is not None:
            return make_outcome(state, session, diverged_step=diverged_step)

    test = None if session.test is None else evaluate_split(state, session, session.test)
    diverged = test is not None and not math.isfinite(test.loss)
    return make_outcome(state, session, validation=validation, test=test, diverged_step=state.step if diverged else None)


def train_epoch(state: TrainingState, session: Session, *, epoch: int, stop: Callable[[], bool]) -> bool:
    """Take the steps of an epoch that are left; False, with the state saved, where `stop()` or another rank asked to stop."""
    run, ranks, checkpoints = session.run, session.ranks, session.checkpoints
    epoch_steps = session.train.epoch_steps
    lap = time.perf_counter()
    for images, target in session.train.epoch(epoch, first=state.step - epoch * epoch_steps):
        set_learning_rate(state.optimizer, learning_rate(state.step, run.train, epoch_steps=epoch_steps))
        optimizer_step(
            state,
            images,
            target,
            options=run.train,
            micro_batches=session.micro_batches,
            autocast=session.autocast,
            ranks=ranks,
        )
        # All ranks must stop, save and report after the same step; rank 0 decides when to save and report.
        leads = ranks.rank == 0
        report_due = time.monotonic() >= session.next_report
        stopping, saving, reporting = ranks.any_rank(stop(), leads and checkpoints.due(), leads and report_due)
        if stopping or saving:
            state.train_seconds += time.perf_counter() - lap
            if leads:  # the state is the same on all ranks
                record_peak_memory(state, session)
                checkpoints.save(state.export(session.fingerprint), step=state.step)
            lap = time.perf_counter()
        if stopping:
            return False
        if reporting:
            report_progress(state, session, epoch=epoch, lap_seconds=time.perf_counter() - lap)
            # The report has waited for the device, so looking at the losses costs nothing here.
            if first_nonfinite_step(state, epoch=epoch, epoch_steps=epoch_steps) is not None:
                break
    state.train_seconds += time.perf_counter() - lap
    return True


def report_progress(state: TrainingState, session: Session, *, epoch: int, lap_seconds: float) -> None:
    """Report the state; `lap_seconds` of training aren't yet in its `train_seconds`. Waits for the device."""
    session.next_report = time.monotonic() + REPORT_INTERVAL_SECONDS
    run, epoch_steps, steps = session.run, session.train.epoch_steps, session.train.steps
    step_seconds = (state.train_seconds + lap_seconds) / state.step
    session.report(
        WorkerProgress(
            run_id=run.run_id,
            time=time.time(),
            device=session.device.type,
            epoch=epoch + 1,
            epochs=math.ceil(steps / epoch_steps),
            step=state.step,
            steps=steps,
            train_loss=state.losses[: state.step - epoch * epoch_steps].mean().item(),
            val_accuracy=state.curves["val_accuracy"][-1] if epoch else None,
            images_per_second=run.train.batch_size / step_seconds,
            eta_seconds=(steps - state.step) * step_seconds,
        ),
        state.curves,
    )


def validate(state: TrainingState, session: Session, *, epoch: int) -> tuple[Evaluation | None, int | None]:
    """Validate after an epoch and extend the curves; also the step at which the training has diverged, or None.

    Nothing is added to the curves where a training loss of the epoch, or the validation loss, isn't finite.
    """
    run, epoch_steps = session.run, session.train.epoch_steps
    nonfinite_step = first_nonfinite_step(state, epoch=epoch, epoch_steps=epoch_steps)
    if nonfinite_step is not None:
        return None, nonfinite_step
    validation = None if session.val is None else evaluate_split(state, session, session.val)
    if validation is not None and not math.isfinite(validation.loss):
        return validation, state.step
    steps = state.step - epoch * epoch_steps
    hits = state.hits[:steps].double().sum().item() / (steps * run.train.batch_size)
    row = {
        "epoch": epoch + 1,
        "train_loss": state.losses[:steps].double().mean().item(),
        "train_accuracy": None if session.train.mixes_labels(epoch) else hits,
        "val_accuracy": None if validation is None else validation.accuracy,
        "val_loss": None if validation is None else validation.loss,
        "lr": learning_rate(state.step - 1, run.train, epoch_steps=epoch_steps),
    }
    for name, value in row.items():
        state.curves[name].append(value)
    choices = 2 if run.train.loss == "bce" else run.data.num_classes
    return validation, state.step if has_diverged(state.curves, choices) else None


def first_nonfinite_step(state: TrainingState, *, epoch: int, epoch_steps: int) -> int | None:
    """The first step of the epoch, counted from 1 over all epochs, whose loss wasn't finite. Waits for the device."""
    before = epoch * epoch_steps
    nonfinite = (~state.losses[: state.step - before].isfinite()).nonzero()
    return before + int(nonfinite[0]) + 1 if len(nonfinite) else None


def has_diverged(curves: Curves, choices: int) -> bool:
    """Whether the mean training loss of the two latest epochs was more than ten times that of uniform predictions, ln(choices):
    one of all classes, or yes and no for each of them (`bce`).

    One such epoch is allowed, since high learning rates do overshoot at first and recover.
    """
    latest = curves["train_loss"][-DIVERGED_EPOCHS:]
    limit = DIVERGED_LOSS * math.log(max(choices, 2))
    return len(latest) == DIVERGED_EPOCHS and all(loss is not None and loss > limit for loss in latest)


def evaluate_split(state: TrainingState, session: Session, batches: EvaluationBatches) -> Evaluation:
    """The figures of the weights that `train.evaluate` names, on one split."""
    with eager_mode(session.prepared):
        return evaluate(state.evaluated_model, batches, autocast=session.autocast, ranks=session.ranks)


def record_peak_memory(state: TrainingState, session: Session) -> None:
    """Keep the maximum over all attempts."""
    peak = read_peak_mib(session.device, was_reset=session.peak_was_reset)
    state.peak_memory_mib = max(filter(None, (peak, state.peak_memory_mib)), default=None)


def make_outcome(
    state: TrainingState,
    session: Session,
    *,
    validation: Evaluation | None = None,
    test: Evaluation | None = None,
    diverged_step: int | None = None,
) -> Outcome:
    """The outcome of a training that has ended, by divergence where `diverged_step` is given."""
    record_peak_memory(state, session)
    outcome = partial(
        Outcome,
        curves=state.curves,
        fingerprint=session.fingerprint,
        train_seconds=state.train_seconds,
        images_per_second=state.step * session.run.train.batch_size / state.train_seconds,
        peak_memory_mib=state.peak_memory_mib,
        resumes=state.resumes,
        notes=(*session.notes, *session.checkpoints.notes),
    )
    if diverged_step is not None:
        return outcome(status="diverged", diverged_step=diverged_step)
    judged = {"val": validation, "test": test} if session.run.data.correctness else {}
    return outcome(
        status="done",
        val_accuracy=state.curves["val_accuracy"][-1],
        val_loss=state.curves["val_loss"][-1],
        test_accuracy=None if test is None else test.accuracy,
        test_top5=None if test is None else test.top5,
        test_loss=None if test is None else test.loss,
        predictions=None if test is None else test.predictions,
        correct={split: found.predictions.correct for split, found in judged.items() if found is not None},
        weights={name: tensor.cpu() for name, tensor in clone_views(state.evaluated_model.state_dict()).items()},
    )
