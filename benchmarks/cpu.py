"""python -m benchmarks.cpu [SUBJECT ...]: training steps on this machine's CPU against peer (b) and the machine's limits.

Peer (b) is timm's model with a plain step (`benchmarks.peers`). Each contestant has its own process; they take turns, one step
each. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import limits
from benchmarks.circumstances import circumstances
from benchmarks.ours import our_input, our_step
from benchmarks.peers import timm_step
from benchmarks.subjects import SUBJECTS, Subject, run_of, timm_model
from benchmarks.tables import print_table, write_json
from benchmarks.turns import Prepare, Timing, cores, ratio, start_processes, take_turns
from study.backbones import build_backbone
from study.training.device import DeviceChoice
from study.training.model_setup import with_cpu_kernels

CPU = torch.device("cpu")
OURS, PEER = "ours", "timm contiguous"
TARGETS = {"convmixer_k5": 1.9, "convmixer_k9": 3.0, "vit": 1.15, "mlp_mixer": 1.15}
INPUT_CALLS = 32  # batches of augmentation per turn


@dataclass(frozen=True)
class Measured:
    """All contestants over one subject, and the machine's limits in the same rounds."""

    subject: str
    batch_size: int
    timings: dict[str, Timing]
    limits: limits.Limits
    arithmetic_seconds: float
    memory_seconds: float


def ours(name: str, batch_size: int, *, kernel: bool = True, memory: bool = True) -> tuple[Callable[[], object], str]:
    """The engine's step as a worker takes it, or without compiled kernels or memory settings."""
    run = run_of(SUBJECTS[name], batch_size=batch_size, precision="fp32")
    plain = DeviceChoice("cpu")
    choice = with_cpu_kernels(plain, os.environ) if memory else with_kernel_alone(plain)
    return our_step(run, choice if kernel else replace(choice, extension=None))


def with_kernel_alone(choice: DeviceChoice) -> DeviceChoice:
    """The choice with the compiled kernel and default memory settings."""
    from study.cpu_kernels.extension import load_extension

    return replace(choice, extension=load_extension(os.environ))


def fed(name: str, batch_size: int) -> tuple[Callable[[], object], str]:
    """The data path alone."""
    return our_input(
        run_of(SUBJECTS[name], batch_size=batch_size, precision="fp32"), with_cpu_kernels(DeviceChoice("cpu"), os.environ)
    )


def peer(name: str, batch_size: int, *, layout: str, compiled: bool) -> tuple[Callable[[], object], str]:
    """Peer (b)."""
    subject = SUBJECTS[name]
    step = timm_step(subject, layout=layout, compiled=compiled, batch_size=batch_size, device=CPU, precision="fp32")
    return step, f"{layout}, {'compiled' if compiled else 'eager'}"


def contestants(name: str, batch_size: int, *, compiled: bool, parts: bool) -> dict[str, Prepare]:
    """The contestants of one subject, by name."""
    given = functools.partial
    convolves = SUBJECTS[name].backbone == "convmixer"
    found: dict[str, Prepare] = {PEER: given(peer, name, batch_size, layout="contiguous", compiled=False)}
    if convolves:
        found["timm channels_last"] = given(peer, name, batch_size, layout="channels_last", compiled=False)
    if compiled:
        found["timm compiled"] = given(peer, name, batch_size, layout="contiguous", compiled=True)
    if compiled and convolves:
        found["timm channels_last compiled"] = given(peer, name, batch_size, layout="channels_last", compiled=True)
    if parts and convolves:
        found["ours without kernels"] = given(ours, name, batch_size, kernel=False)
    if parts:
        found["ours without memory"] = given(ours, name, batch_size, memory=False)
    return {
        **found,
        OURS: given(ours, name, batch_size),
        "data and augmentation": given(fed, name, batch_size),
        "matrix product": given(limits.product, "cpu"),
        "copy": given(limits.copying, "cpu"),
    }


def measure(name: str, arguments: argparse.Namespace) -> Measured:
    """Run all rounds of one subject."""
    batch_size = arguments.batch_size
    assert_same_model(SUBJECTS[name])
    calls = {"data and augmentation": INPUT_CALLS, "matrix product": 8, "copy": 8}
    prepared = contestants(name, batch_size, compiled=arguments.compiled, parts=arguments.parts)
    with start_processes(prepared, threads=arguments.threads) as started:
        timings = take_turns(started, rounds=arguments.rounds, calls=calls)
    found = limits.Limits(
        operations=limits.product_operations("cpu") / timings["matrix product"].seconds,
        bytes=limits.copied_bytes("cpu") / timings["copy"].seconds,
    )
    spec = run_of(SUBJECTS[name], batch_size=batch_size, precision="fp32").model
    return Measured(name, batch_size, timings, found, *found.step_seconds(spec, batch_size))


def assert_same_model(subject: Subject) -> None:
    """Raise unless the peer's model has exactly as many parameters."""
    spec = run_of(subject, batch_size=1, precision="fp32").model
    sizes = [sum(weight.numel() for weight in model.parameters()) for model in (build_backbone(spec), timm_model(subject))]
    assert sizes[0] == sizes[1], f"{subject.name}: {sizes[0]} parameters against timm's {sizes[1]}"


def rows(measured: Measured) -> list[list[str]]:
    """The table's rows of one subject."""
    timings, batch = measured.timings, measured.batch_size
    mine = timings[OURS]
    found = []
    for name, timing in timings.items():
        if name in ("data and augmentation", "matrix product", "copy"):
            continue
        against = "" if name == OURS else str(ratio(timing, mine))
        cpu = "" if name == OURS else f"{ratio(timing, mine, of='cpu_seconds').median:.2f}"
        shown = [f"{timing.seconds * 1e3:.0f}", f"{batch / timing.seconds:.0f}", against, cpu, timing.description]
        found.append([SUBJECTS[measured.subject].name, name, *shown])
    return found


def summary(measured: Measured) -> str:
    """One line on target, data path and limits."""
    timings = measured.timings
    mine = timings[OURS].seconds
    feeding = timings["data and augmentation"].seconds
    reached = ratio(timings[PEER], timings[OURS]).median
    wanted = TARGETS.get(measured.subject)
    target = f", target {wanted}: {'reached' if reached >= wanted else 'MISSED'}" if wanted else ""
    bound = max(measured.arithmetic_seconds, measured.memory_seconds)
    return (
        f"{SUBJECTS[measured.subject].name}: {reached:.2f} x peer (b) contiguous eager{target}; "
        f"data and augmentation {feeding / mine:.1%} of a step; {bound / mine:.0%} of the machine's limit "
        f"(arithmetic {measured.arithmetic_seconds * 1e3:.0f} ms at {measured.limits.operations / 1e9:.0f} GFLOP/s, "
        f"memory {measured.memory_seconds * 1e3:.0f} ms at {measured.limits.bytes / 1e9:.1f} GB/s)"
    )


def as_json(measured: Measured) -> dict[str, Any]:
    """Everything that was measured, and the ratios."""
    mine = measured.timings[OURS]
    ratios = {name: asdict(ratio(timing, mine)) for name, timing in measured.timings.items() if name != OURS}
    return {**asdict(measured), "ratios_to_ours": ratios}


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="benchmarks.cpu", description=__doc__.split("\n\n")[0])
    found.add_argument("subjects", nargs="*", choices=[*SUBJECTS, []], help=f"default: {' '.join(TARGETS)}")
    found.add_argument("--batch-size", type=int, default=128)
    found.add_argument("--rounds", type=int, default=7)
    found.add_argument("--threads", type=int, default=cores())
    found.add_argument("--compiled", action="store_true", help="also timm under torch.compile (10-50 s more for each)")
    found.add_argument("--parts", action="store_true", help="also this project without each of its parts")
    found.add_argument("--out", type=Path, default=Path("benchmarks/results/cpu.json"))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    around = circumstances("cpu", threads=arguments.threads)
    measured = []
    for name in arguments.subjects or TARGETS:
        print(f"{SUBJECTS[name].name} ...", file=sys.stderr, flush=True)
        measured.append(measure(name, arguments))
    heads = ["model", "contestant", "ms/step", "images/s", "x ours [quartiles]", "CPU time x ours", "details"]
    print_table(heads, [row for found in measured for row in rows(found)])
    for found in measured:
        print(summary(found))
    write_json(arguments.out, {**around, "arguments": vars(arguments), "measured": list(map(as_json, measured))})
    print(f"written to {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
