"""The supported trackers; each needs a package that the project's extra of the same name installs."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from study.errors import Problem, UserError
from study.tracking.tracking_thread import Tracker

OpenTracker = Callable[[], Tracker]


def require_trackers(names: Sequence[str], *, place: str) -> None:
    """Raise UserError for trackers whose library isn't installed, with the command that installs it."""
    absent = [name for name in names if find_spec(name) is None]
    if absent:
        rule = f"not installed here: run pip install 'patch-or-attention[{','.join(absent)}]'"
        raise UserError(Problem(rule, place=place, key="track", value=list(absent)))


def select_trackers(names: Sequence[str], *, folder: Path, study: str) -> Mapping[str, OpenTracker]:
    """The function that opens each tracker: only then is its library imported, which may take seconds or fail."""

    def open_tensorboard() -> Tracker:
        from study.tracking.tensorboard import TensorBoard

        return TensorBoard(folder / "tensorboard")

    def open_wandb() -> Tracker:
        from study.tracking.wandb import WeightsAndBiases

        return WeightsAndBiases(folder, study=study)

    def open_mlflow() -> Tracker:
        from study.tracking.mlflow import MLflow

        return MLflow(study=study)

    supported = {"tensorboard": open_tensorboard, "wandb": open_wandb, "mlflow": open_mlflow}
    return {name: supported[name] for name in names}
