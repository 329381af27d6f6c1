"""Where it is noted what a linear model on pixels reaches on the images of a sweep; nothing here imports torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from study.records.sweep_folder import write_new


def baseline_name(data: Mapping[str, Any]) -> str:
    """The file name in `runs/<sweep>/baselines/` that stands for a run's images: content, size and subsets."""
    sizes = f"{data['image_size']}px-{data['train_images']}-{data['test_images']}"
    return f"{data['name']}-{data['digest'][:16]}-{sizes}.json"


def note_baseline(folder: Path, data: Mapping[str, Any], *, fit: Callable[[], object]) -> None:
    """Writes the baseline that `fit` finds for a run's images into the folder; it isn't asked where one is there."""
    path = folder / baseline_name(data)
    if not path.exists():
        write_new(path, vars(fit()))


def read_baselines(folder: Path) -> dict[str, float]:
    """The baseline's test accuracy, a fraction, by file name."""
    documents = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    return {name: document["baseline_accuracy"] for name, document in documents.items()}
