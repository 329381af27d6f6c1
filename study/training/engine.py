"""From a run and its images to an outcome, from wherever the run was left.

A run's weights are a function of the run and the execution fingerprint. Shuffles and augmentation are keyed by seed, epoch
and image, the learning rate is a function of the step, and everything else is in `TrainingState`; so a training killed at
any step and continued from a checkpoint ends with the bits of an uninterrupted one.

Several small runs of one architecture may train as one stack (`study.training.stacking`): the same loop, with as many
members. A run's bits then depend on how many there are, which is in its fingerprint, and not on who the others are; so a
member whose outcome is known keeps its place until the last one ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from functools import partial

from torch import Tensor

from study.config.run import Run
from study.config.variant import Variant
from study.data.splits import Splits
from study.training.augmentation import Target
from study.training.checkpoint import Checkpoints, newest_common
from study.training.device import DeviceChoice, execution_mode
from study.training.distributed import ALONE, Ranks
from study.training.loop import Ended, trained
from study.training.memory_fallback import fitting_micro_batches, out_of_memory, release
from study.training.model_setup import placed
from study.training.outcome import Interrupted, Outcome, Progress
from study.training.peak_memory import reset_peak
from study.training.session import Member, member
from study.training.stacking import Stack
from study.training.state import ENTRIES
from study.training.step import optimizer_step, sees_whole_batch, stacked_step


class NothingShared(Exception):
    """The runs of a stack can't go on together, though some of them can by themselves."""


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
    was_reset = reset_peak(device.device)
    placing = placed(run, device, variant=variant, ranks=ranks)
    assert micro_batches == 1 or not sees_whole_batch(placing.model), "the plan refuses micro-batches with BatchNorm"
    opened = partial(member, run, splits, device=device, placing=placing, checkpoints=checkpoints, report=report, ranks=ranks)
    only = opened(micro_batches=micro_batches, notes=notes, peak_was_reset=was_reset)
    saved = ranks.same(newest_common([checkpoints], like=ENTRIES) if ranks.rank == 0 else None)
    if saved is not None:
        only.state.restore(saved[0], only.session.fingerprint)

    def step(batches: Sequence[tuple[Tensor, Target]]) -> None:
        session = only.session
        optimizer_step(
            only.state, *batches[0], options=run.train, micro_batches=micro_batches, autocast=session.autocast, ranks=ranks
        )

    outcomes: list[Outcome] = []
    interrupted = trained([only], step, stop=stop, ended=lambda _, outcome: outcomes.append(outcome))
    return interrupted or outcomes[0]


def train_stack(
    runs: Sequence[Run],
    splits: Splits,
    *,
    device: DeviceChoice,
    checkpoints: Sequence[Checkpoints],
    over: Set[str],
    stop: Callable[[], bool],
    report: Callable[[Progress], None],
    ended: Ended,
) -> None:
    """Train runs that `study.launcher.stacks` lets train together, from the newest step of which all have a checkpoint.

    Each outcome is handed to `ended` as soon as it is known; a run that has none on return was interrupted with its state
    saved. Of those `over` by their ids the outcome is known already. Raises Unstackable where the architecture has a part
    that can't be stacked, NothingShared, and whatever torch raises; then those that weren't ended are to be trained one by one.
    """
    with execution_mode(device):
        was_reset = reset_peak(device.device)
        placings = [placed(run, device) for run in runs]
        stack = Stack([placing.model for placing in placings])
        members = [
            member(
                run,
                splits,
                device=device,
                placing=placing,
                checkpoints=own,
                report=report,
                peak_was_reset=was_reset,
                stacked=stack.size,
            )
            for run, placing, own in zip(runs, placings, checkpoints, strict=True)
        ]
        go_on(members, over)
        states, session = [each.state for each in members], members[0].session
        step = partial(stacked_step, states, stack, options=runs[0].train, autocast=session.autocast)
        trained(members, step, stop=stop, ended=ended)


def go_on(members: Sequence[Member], over: Set[str]) -> None:
    """Set the members of a stack to where all those that aren't over have been; the others keep them company from there."""
    for each in members:
        each.over = each.session.run.run_id in over
    left = [each for each in members if not each.over]
    checkpoints = [each.session.checkpoints for each in left]
    saved = newest_common(checkpoints, like=ENTRIES)
    if saved is None and any(each.steps() for each in checkpoints):
        raise NothingShared("the runs of this stack have no readable checkpoint of one step")
    for each, state in zip(left, saved or [], strict=False):
        each.state.restore(state, each.session.fingerprint)
    for each in members:
        each.state.step = left[0].state.step
