"""Checks the closed-form costs: every distinct architecture of a plan is traced once, and listed on disk as verified.

The list's name is a fingerprint of the code that decides a count: the backbones, the tracing, torch and fvcore. Depth only
repeats a block, so an architecture is traced with at most two blocks and represents all of its depths.
"""

import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import torch

from study import backbones
from study.backbones import BACKBONES
from study.backbones.specification import BackboneSpec
from study.planning import traced_cost
from study.planning.traced_cost import count_cost
from study.records.sweep_folder import write_whole

TRACED_BLOCKS = 2


def verify_costs(specs: Iterable[BackboneSpec], *, cache: Path) -> int:
    """Trace every architecture that the folder `cache` doesn't list as verified; the number traced is returned.

    Raises AssertionError naming the specification whose closed form is not what fvcore counts.
    """
    path = cache / f"costs-{_fingerprint()}.json"
    known = set(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else set()
    shallow = {spec.with_options({"depth": min(spec.depth, TRACED_BLOCKS)}) for spec in set(specs)}
    new = {key: spec for spec in shallow if (key := spec.backbone + spec.model_dump_json()) not in known}
    threads = torch.get_num_threads()
    torch.set_num_threads(
        1
    )  # on a busy machine, threads for one image mostly wait for each other (25 s, not 5, for 200 models)
    try:
        for spec in new.values():
            with torch.random.fork_rng(devices=[]):
                model = BACKBONES[spec.backbone].construct(spec)
            traced = count_cost(model, image_size=spec.image_size, in_channels=spec.in_channels)
            assert traced == spec.closed_form(), f"the closed form of {spec.backbone} is wrong for {spec!r}: {traced}"
    finally:
        torch.set_num_threads(threads)
    if new:
        write_whole(path, json.dumps(sorted(known | new.keys()), indent=0) + "\n")
    return len(new)


def _fingerprint() -> str:
    """16 hex digits that change with anything that could change a count."""
    sources = [*sorted(Path(backbones.__file__).parent.glob("*.py")), Path(traced_cost.__file__)]
    versions = f"{version('torch')} {version('fvcore')}".encode()
    return hashlib.sha256(versions + b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
