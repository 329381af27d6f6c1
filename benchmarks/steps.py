"""Training steps on a GPU: this project's in both layouts, eager and compiled, against peer (b) in all of its variants."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks import limits
from benchmarks.gpu_size import Request, Scale
from benchmarks.ours import our_input, our_step
from benchmarks.peers import MEMORY_FORMATS, PRECISIONS, timm_step
from benchmarks.subjects import SUBJECTS, run_of
from benchmarks.turns import Contestant, LocalContestant, Prepare, Timing, ratio, take_turns
from study.config.options import Variant

COMPILING_S = 75.0  # remaining time needed to start compiling two models
OURS, INPUT = "ours", "data and augmentation"


def eager_steps(request: Request) -> list[dict[str, Any]]:
    """Every subject, eager, with the share of data and augmentation and of the machine's limits."""
    found = []
    machine = measured_limits(request.scale)
    for name in request.scale.subjects:
        timings = timed(request, {key: LocalContestant(prepare) for key, prepare in eager(request.scale, name).items()})
        run = run_of(SUBJECTS[name], batch_size=request.scale.batch_size, precision=request.scale.precision)
        bytes_each = PRECISIONS[request.scale.precision].itemsize
        arithmetic, memory = machine.step_seconds(run.model, request.scale.batch_size, element_bytes=bytes_each)
        mine, feeding = timings[OURS].seconds, timings.pop(INPUT).seconds
        for row in rows(name, timings):
            found.append({**row, "input_share": feeding / mine, "arithmetic_ms": arithmetic * 1e3, "memory_ms": memory * 1e3})
    return found


def compiled_steps(request: Request) -> list[dict[str, Any]]:
    """Subjects under torch.compile, peers and ours, as long as there is time; subjects that are left out have a row."""
    found: list[dict[str, Any]] = []
    for name in request.scale.compiled:
        if request.left() < COMPILING_S:
            found.append({"model": SUBJECTS[name].name, "left_out": "no time left to compile it"})
            continue
        variants = dict(compiled(request, name))
        ready = {"ours": LocalContestant(functools.partial(ours, request.scale, name)), **variants}
        found += rows(name, timed(request, ready))
        torch.compiler.reset()
    return found


def eager(scale: Scale, name: str) -> dict[str, Prepare]:
    """Variants that need no compiler, by name."""
    given = functools.partial
    found: dict[str, Prepare] = {f"timm {layout}": given(peer, scale, name, layout=layout) for layout in MEMORY_FORMATS}
    for layout in MEMORY_FORMATS:
        found[f"ours {layout}"] = given(ours, scale, name, variant=Variant(memory_layout=layout))
    return {**found, OURS: given(ours, scale, name), INPUT: given(fed, scale, name)}


def compiled(request: Request, name: str) -> Iterator[tuple[str, Contestant]]:
    """Compiled variants, each built only if there is time for it."""
    for layout in MEMORY_FORMATS:
        if request.left() < COMPILING_S:
            return
        yield (
            f"timm {layout} compiled",
            LocalContestant(functools.partial(peer, request.scale, name, layout=layout, compiled=True)),
        )
        variant = Variant(memory_layout=layout, compiled="default")
        yield f"ours {variant.label}", LocalContestant(functools.partial(ours, request.scale, name, variant=variant))
        if request.scale.kind == "cuda":
            variant = Variant(memory_layout=layout, compiled="reduce-overhead")
            yield f"ours {variant.label}", LocalContestant(functools.partial(ours, request.scale, name, variant=variant))


def ours(scale: Scale, name: str, *, variant: Variant | None = None) -> tuple[Any, str]:
    """The engine's step."""
    run = run_of(SUBJECTS[name], batch_size=scale.batch_size, precision=scale.precision)
    return our_step(run, scale.choice, variant=variant)


def fed(scale: Scale, name: str) -> tuple[Any, str]:
    """The data path alone."""
    return our_input(run_of(SUBJECTS[name], batch_size=scale.batch_size, precision=scale.precision), scale.choice)


def peer(scale: Scale, name: str, *, layout: str, compiled: bool = False) -> tuple[Any, str]:
    """Peer (b)."""
    step = timm_step(
        SUBJECTS[name],
        layout=layout,
        compiled=compiled,
        batch_size=scale.batch_size,
        device=scale.device,
        precision=scale.precision,
    )
    return step, f"{layout}, {'compiled' if compiled else 'eager'}"


def timed(request: Request, contestants: dict[str, Contestant]) -> dict[str, Timing]:
    """All rounds."""
    return take_turns(contestants, rounds=request.scale.rounds, others=request.scale.calls)


def rows(name: str, timings: dict[str, Timing]) -> list[dict[str, Any]]:
    """One row per contestant, with its ratio to the engine's step."""
    mine = timings[OURS]
    return [
        {
            "model": SUBJECTS[name].name,
            "contestant": contestant,
            "ms": timing.seconds * 1e3,
            "x_ours": str(ratio(timing, mine)),
            "details": timing.description,
        }
        for contestant, timing in timings.items()
    ]


def measured_limits(scale: Scale) -> limits.Limits:
    """The rates of this machine at the scale's precision."""
    ready: dict[str, Contestant] = {
        "product": LocalContestant(functools.partial(limits.product, scale.kind, PRECISIONS[scale.precision])),
        "copy": LocalContestant(functools.partial(limits.copying, scale.kind)),
    }
    timings = take_turns(ready, rounds=scale.rounds, others=scale.calls)
    return limits.Limits(
        operations=limits.product_operations(scale.kind) / timings["product"].seconds,
        bytes=limits.copied_bytes(scale.kind) / timings["copy"].seconds,
    )
