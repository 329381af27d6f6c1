"""The weights that a run saves with `train.keep: last`, and all that is needed to use them.

A safetensors file of the weights that were evaluated. Its metadata hold the run, so that the model can be built, and the mean
and standard deviation that images were normalized with.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from study.atomic_io import whole_file
from study.config.formats import FORMAT, upgrade
from study.config.run import Run
from study.data import DatasetInfo
from study.errors import add_location


@dataclass(frozen=True)
class SavedWeights:
    """The metadata of saved weights."""

    run: Run
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]


def save_weights(path: Path, run: Run, *, weights: Mapping[str, Tensor], facts: DatasetInfo, writer: str) -> None:
    """Write the file as a whole or not at all; `writer` keeps the drafts of two workers apart."""
    document = {"format": FORMAT, **run.to_json()}
    noted = {"run": document, "mean": facts.mean, "std": facts.std, "class_names": facts.class_names}
    metadata = {name: json.dumps(value) for name, value in noted.items()}
    with whole_file(path, draft=path.with_name(f".{path.stem}.{writer}")) as draft:
        draft.write_bytes(save({name: tensor.contiguous() for name, tensor in weights.items()}, metadata=metadata))


def read_saved_weights(path: Path) -> SavedWeights | None:
    """The metadata that `save_weights` wrote; None for every other file."""
    try:
        with safe_open(path, "pt") as file:
            noted = file.metadata() or {}
    except (SafetensorError, OSError):
        return None
    if not {"run", "mean", "std", "class_names"} <= noted.keys():
        return None
    values = {name: tuple(json.loads(noted[name])) for name in ("mean", "std", "class_names")}
    with add_location(str(path)):
        run = upgrade(json.loads(noted["run"]))
    return SavedWeights(Run.from_json(run), **values)
