"""What `study.probe` measured of trained networks, `probes/<run_id>.json` for each run, and `probes/similarity.json`.

A measure has a name and, as far as it has them, a layer (0 is the stem, then each block), a head and an `at`: a radius or share
that it belongs to. Correctness per image on other test images is kept as in a record (`study.records.correctness`).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from study.config.documents import MAX_COUNT, STORED, Name, read_document
from study.config.formats import FORMAT
from study.records.correctness import decode_correctness, unpack_correctness
from study.records.sweep_folder import SweepFolder, write_whole

if TYPE_CHECKING:
    import pandas as pd

REPAIR_PROBE = "remove it, and probe again"
SIMILARITY = "similarity.json"
CLEAN = "clean"
"""The test set as it is, evaluated beside its changed forms."""

_Place = Annotated[int, Field(ge=0, le=MAX_COUNT)]


@dataclass(frozen=True)
class Measure:
    """One number that was measured of a network."""

    __pydantic_config__ = STORED
    name: str
    value: float
    layer: _Place | None = None
    head: _Place | None = None
    at: float | None = None


@dataclass(frozen=True)
class Correctness:
    """Which of the images of one further test were classified correctly, as from `pack_correctness`."""

    __pydantic_config__ = STORED
    images: _Place
    packed: str


@dataclass(frozen=True)
class ProbeFile:
    """What was measured of one run: over `images` test images, but for `tests`, which have all."""

    __pydantic_config__ = STORED
    run_id: Name
    weights: str  # SHA-256 of their file
    images: int
    measures: tuple[Measure, ...]
    tests: Mapping[str, Correctness] = field(default_factory=dict)


@dataclass(frozen=True)
class Similarity:
    """CKA of the outputs of two runs' layers at the same fraction of their depth; `layer` is the first run's."""

    __pydantic_config__ = STORED
    run_id: Name
    other: Name
    layer: _Place
    value: float


@dataclass(frozen=True)
class SimilarityFile:
    """Similarities between runs, over so many test images."""

    __pydantic_config__ = STORED
    images: int
    pairs: tuple[Similarity, ...]


def write_probe(folder: SweepFolder, found: ProbeFile) -> None:
    """Write what was measured of a run, in place of what was before."""
    text = json.dumps({"format": FORMAT, **asdict(found)}, allow_nan=False)
    write_whole(folder.probes / f"{found.run_id}.json", text + "\n")


def write_similarity(folder: SweepFolder, found: SimilarityFile) -> None:
    """Write the similarities between runs, in place of those before."""
    write_whole(folder.probes / SIMILARITY, json.dumps({"format": FORMAT, **asdict(found)}, allow_nan=False) + "\n")


def read_probe(folder: SweepFolder, run_id: str) -> ProbeFile | None:
    """What was measured of a run; None if nothing was. UserError where the file is damaged."""
    path = folder.probes / f"{run_id}.json"
    return read_document(path, ProbeFile, hint=REPAIR_PROBE) if path.exists() else None


def load_probes(folder: str | Path) -> "pd.DataFrame":
    """All that `study.probe` measured of the runs in `runs/<sweep>`: one row per run, measure, layer, head and place.

    Columns: run_id, measure, layer, head, at, other, value, images. Layer 0 is the stem. `measure` is

    - `field_radius`: pixels around the central token that hold the share `at` of its effective receptive field;
    - `attention_distance` (pixels) and `attention_entropy` (nats), by head;
    - `kernel_energy`: share of the energy of depthwise kernels within `at` tokens; `kernel_distance`: in pixels;
    - `cka`: similarity to layer `at` of the same run, or to the same fraction of the depth of the run `other`.
    """
    import pandas as pd

    place = SweepFolder(Path(folder))
    found = [read_document(path, ProbeFile, hint=REPAIR_PROBE) for path in _list_files(place)]
    rows: list[tuple[object, ...]] = [
        (each.run_id, one.name, one.layer, one.head, one.at, None, one.value, each.images)
        for each in found
        for one in each.measures
    ]
    path = place.probes / SIMILARITY
    if path.exists():
        between = read_document(path, SimilarityFile, hint=REPAIR_PROBE)
        rows += [(one.run_id, "cka", one.layer, None, None, one.other, one.value, between.images) for one in between.pairs]
    types = {"run_id": "string", "measure": "string", "layer": "Int64", "head": "Int64", "at": "Float64", "other": "string"}
    return pd.DataFrame(rows, columns=[*types, "value", "images"]).astype({**types, "value": "Float64", "images": "Int64"})


def load_further_tests(folder: str | Path) -> "pd.DataFrame":
    """Which images of further tests each probed run classified correctly: run_id, split (the test's name), images, correct.

    As from `load_correctness`; the test `clean` is the run's own test set.
    """
    import pandas as pd

    found = [read_document(path, ProbeFile, hint=REPAIR_PROBE) for path in _list_files(SweepFolder(Path(folder)))]
    rows = [
        (each.run_id, name, own.images, decode_correctness(own.packed, own.images))
        for each in found
        for name, own in each.tests.items()
    ]
    return pd.DataFrame(rows, columns=["run_id", "split", "images", "correct"])


def compute_accuracy(found: Correctness) -> float:
    """The share of the images that were classified correctly."""
    return float(unpack_correctness(decode_correctness(found.packed, found.images), found.images).mean())


def _list_files(place: SweepFolder) -> list[Path]:
    return [path for path in sorted(place.probes.glob("*.json")) if path.name != SIMILARITY]
