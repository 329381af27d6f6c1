"""Which trackers there are and what each needs: a package that comes with an extra of the project's own name for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from study.errors import Problem, UserError

Figures = Mapping[str, float]


class Tracker(Protocol):
    """One library, holding any number of open runs by their run ids. It may raise whatever it likes."""

    def open(self, run_id: str, facts: Mapping[str, Any]) -> int:
        """Begins a run, or goes on with one that was begun before; returns how many of its epochs are there already."""
        ...

    def log(self, run_id: str, epoch: int, figures: Figures) -> None:
        """The learning curves at the end of an epoch, counted from 1."""
        ...

    def close(self, run_id: str, status: str, figures: Figures) -> None:
        """Final figures; status `stopped` means that the run will go on some other time."""
        ...


def require_trackers(names: Sequence[str], *, place: str) -> None:
    """Raises UserError for trackers whose library isn't installed, with the command that installs it."""
    absent = [name for name in names if find_spec(name) is None]
    if absent:
        command = f"pip install 'patch-or-attention[{','.join(absent)}]'"
        rule = f"not installed here: {command} installs what is missing"
        raise UserError(Problem(rule, place=place, key="track", value=list(absent)))


def trackers_named(names: Sequence[str], *, folder: Path, study: str) -> dict[str, Callable[[], Tracker]]:
    """What opens each tracker: its library is imported only then, which may take seconds or fail."""
    known: dict[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: tensorboard(folder / "tensorboard"),
        "wandb": lambda: wandb(folder, study=study),
        "mlflow": lambda: mlflow(study=study),
    }
    return {name: known[name] for name in names}


def tensorboard(folder: Path) -> Tracker:
    from study.tracking.tensorboard import TensorBoard

    return TensorBoard(folder)


def wandb(folder: Path, *, study: str) -> Tracker:
    from study.tracking.wandb import WeightsAndBiases

    return WeightsAndBiases(folder, study=study)


def mlflow(*, study: str) -> Tracker:
    from study.tracking.mlflow import MLflow

    return MLflow(study=study)
