"""Progress reports, at most once a second: only then does the host wait for figures on the device."""

from __future__ import annotations

import time
from collections.abc import Callable

from study.config.run import Run
from study.training.outcome import Progress
from study.training.state import TrainingState

INTERVAL_SECONDS = 1.0


class Reporter:
    """Calls `report` with the `Progress` of `run`'s training."""

    def __init__(self, run: Run, report: Callable[[Progress], None], *, epoch_steps: int):
        self._run, self._report, self._epoch_steps = run, report, epoch_steps
        self._next = 0.0

    def due(self) -> bool:
        return time.monotonic() >= self._next

    def report(self, state: TrainingState, *, epoch: int, lap_seconds: float) -> None:
        """Report the state; `lap_seconds` of training aren't yet in its `train_seconds`. Waits for the device."""
        self._next = time.monotonic() + INTERVAL_SECONDS
        in_epoch = state.step - epoch * self._epoch_steps
        steps = self._run.train.epochs * self._epoch_steps
        step_seconds = (state.train_seconds + lap_seconds) / state.step
        self._report(
            Progress(
                run_id=self._run.run_id,
                epoch=epoch + 1,
                epochs=self._run.train.epochs,
                step=state.step,
                steps=steps,
                train_loss=state.losses[:in_epoch].mean().item(),
                val_accuracy=state.curves["val_accuracy"][-1] if epoch else None,
                images_per_second=self._run.train.batch_size / step_seconds,
                eta_seconds=(steps - state.step) * step_seconds,
                curves=state.curves,
            )
        )
