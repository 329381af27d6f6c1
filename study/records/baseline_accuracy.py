"""Test accuracies of a linear classifier on a sweep's images, the floor that its cells are compared with."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from study.config.documents import STORED, Accuracy, read_document
from study.config.options import ResolvedData
from study.errors import Problem, UserError
from study.records.sweep_folder import write_new


@dataclass(frozen=True)
class _Baseline:
    __pydantic_config__ = STORED
    baseline_accuracy: Accuracy


def baseline_name(data: ResolvedData) -> str:
    """The name of the file for a run's images, in `runs/<sweep>/baselines/`: content, size and subsets."""
    sizes = f"{data.image_size}px-{data.train_images}-{data.test_images}"
    return f"{data.name}-{data.digest[:16]}-{sizes}.json"


def write_baseline(folder: Path, data: ResolvedData, *, fit: Callable[[], float]) -> None:
    """Write the accuracy that `fit` returns for a run's images; where there is an undamaged file, nothing is fitted."""
    path = folder / baseline_name(data)
    if path.exists() and _read_accuracy(path) is None:
        print(f"{path} is damaged: the baseline is fitted again", file=sys.stderr)
        path.unlink()
    if not path.exists():
        images = data.model_dump(include={"digest", "image_size", "train_images", "test_images"})
        write_new(path, {**images, "baseline_accuracy": fit()})


def read_baselines(folder: Path) -> dict[str, float]:
    """The baselines' test accuracies (fractions) by file name. Raises UserError naming those that are damaged."""
    found = {path: _read_accuracy(path) for path in sorted(folder.glob("*.json"))}
    rule = "this baseline is damaged: launch again, which fits it anew, or remove it"
    if problems := [Problem(rule, place=str(path)) for path, accuracy in found.items() if accuracy is None]:
        raise UserError(*problems)
    return {path.name: accuracy for path, accuracy in found.items() if accuracy is not None}


def _read_accuracy(path: Path) -> float | None:
    """The accuracy in a file; None if it holds none."""
    try:
        return read_document(path, _Baseline, hint="").baseline_accuracy
    except UserError:
        return None
