"""Is the closed form true? Every distinct architecture of a plan is counted by fvcore once, and remembered on disk.

Plans, budgets and tables rest on arithmetic. This compares it with a traced forward pass, and keeps what was found
under a fingerprint of the code that decides it: the backbones, the counting, torch and fvcore. Depth only repeats a
block, so an architecture is counted with two blocks at most, and stands for all of its depths.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch

from study import backbones
from study.backbones import BACKBONES
from study.backbones.specification import BackboneSpec
from study.planning import traced_cost
from study.planning.traced_cost import count_cost
from study.records.sweep_folder import write_whole

BLOCKS = 2


def verify(specs: Iterable[BackboneSpec], *, cache: Path, keep: bool = True) -> int:
    """Counts every architecture that no file in the folder `cache` vouches for; returns how many were counted.

    `keep` adds them to the cache.

    AssertionError naming the specification whose closed form is not what fvcore counts.
    """
    path = cache / f"costs-{fingerprint()}.json"
    known = set(json.loads(path.read_text())) if path.is_file() else set()
    shallow = dict.fromkeys(spec.with_options({"depth": min(spec.depth, BLOCKS)}) for spec in specs)
    new = {key: spec for spec in shallow if (key := spec.backbone + spec.model_dump_json()) not in known}
    with _one_thread():
        for spec in new.values():
            with torch.random.fork_rng(devices=[]):
                model = BACKBONES[spec.backbone].construct(spec)
            counted = count_cost(model, image_size=spec.image_size, in_channels=spec.in_channels)
            assert counted == spec.closed_form(), f"the closed form of {spec.backbone} is wrong for {spec!r}: {counted}"
    if new and keep:
        write_whole(path, json.dumps(sorted(known | new.keys()), indent=0) + "\n")
    return len(new)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for one image: on a busy machine several mostly wait for each other (25 s instead of 5 for 200 models)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def fingerprint() -> str:
    """16 hex digits that change with anything that could change a count."""
    folder = Path(backbones.__file__).parent
    sources = [*sorted(folder.glob("*.py")), Path(traced_cost.__file__)]
    digest = hashlib.sha256(f"{version('torch')} {version('fvcore')}".encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
