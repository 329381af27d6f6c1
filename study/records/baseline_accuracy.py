"""Test accuracies of a linear classifier on a sweep's images, the floor that its cells are compared with."""

import json
from collections.abc import Callable
from pathlib import Path

from study.config.options import ResolvedData
from study.records.sweep_folder import write_new


def baseline_name(data: ResolvedData) -> str:
    """The name of the file for a run's images, in `runs/<sweep>/baselines/`: content, size and subsets."""
    sizes = f"{data.image_size}px-{data.train_images}-{data.test_images}"
    return f"{data.name}-{data.digest[:16]}-{sizes}.json"


def write_baseline(folder: Path, data: ResolvedData, *, fit: Callable[[], object]) -> None:
    """Write the baseline for a run's images; `fit` is called only if the file doesn't exist yet."""
    path = folder / baseline_name(data)
    if not path.exists():
        write_new(path, vars(fit()))


def read_baselines(folder: Path) -> dict[str, float]:
    """The baselines' test accuracies (fractions) by file name."""
    documents = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    return {name: document["baseline_accuracy"] for name, document in documents.items()}
