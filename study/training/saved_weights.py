"""The weights that a run saves with `train.keep: last`, and all that is needed to use them.

A safetensors file of the weights that were evaluated. Its metadata hold the run, so that the model can be built, and the mean
and standard deviation that images were normalized with.
"""

import json
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from study.atomic_io import whole_file
from study.config.documents import parse_document
from study.config.formats import FORMAT
from study.config.run import Run
from study.data import DatasetInfo
from study.errors import Problem, UserError, add_location
from study.records.record import StoredRun

Metadata = TypeVar("Metadata")


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
    """The metadata that `save_weights` wrote; None for every other file. UserError where they are damaged."""
    if not path.is_file():  # a pipe would hang
        return None
    try:
        with safe_open(path, "pt") as file:
            noted = file.metadata() or {}
    except (SafetensorError, OSError):
        return None
    if not {"run", "mean", "std", "class_names"} <= noted.keys():
        return None

    def read(name: str, kind: type[Metadata]) -> Metadata:
        place = str(path) if name == "run" else f"{path}: {name}"
        hint = "its metadata are damaged or someone else's"
        return parse_document(noted[name].encode(errors="replace"), kind, place=place, hint=hint)

    document, names = read("run", StoredRun), read("class_names", tuple[str, ...])
    mean, std = read("mean", tuple[float, ...]), read("std", tuple[Annotated[float, Field(gt=0)], ...])
    with add_location(str(path)):
        run = Run.from_json(document)
        counts: dict[str, tuple[Sized, int]] = {"mean": (mean, run.data.channels), "std": (std, run.data.channels)}
        counts["class_names"] = names, run.model.num_classes
        for name, (values, expected) in counts.items():
            if len(values) != expected:
                raise UserError(Problem(f"{len(values)} values where its run has {expected}", key=name))
    return SavedWeights(run, mean, std, names)
