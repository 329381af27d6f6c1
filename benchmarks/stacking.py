"""Do several small runs train faster as one stacked model than one after the other?

    python -m benchmarks.stacking [CELL ...] [--rounds 9] [--threads 1]

A step is a whole one: batches out of each run's own data path, forward, backward, update with each run's own learning rate. The
engine's own step stands for runs in turn, `benchmarks.stacked` for the stack; first both must come to the same losses. All
contestants live in one process, with the same kernels and the same handling of memory. A gain is K x (a single step / a step of
a stack of K): above 1 the stack is faster.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.circumstances import circumstances
from benchmarks.stacked import Forward, Stack, by_hand, losses, vmapped
from benchmarks.subjects import Subject, facts_of, run_of
from benchmarks.tables import print_table, write_json
from benchmarks.turns import Here, Timing, ratio, take_turns
from study.backbones import build_spec
from study.config.options import AugmentOptions
from study.config.reading import read_sweep
from study.config.run import Run
from study.data import facts
from study.data.noise import noise_splits
from study.data.splits import Splits
from study.planning import make_plan
from study.training.augmentation import Target
from study.training.batches import TrainingBatches
from study.training.device import DeviceChoice, autocast, execution_mode
from study.training.optimizer import set_learning_rate
from study.training.placement import equipped, placed
from study.training.state import initial_state
from study.training.step import optimizer_step

QUICKSTART = Path(__file__).parents[1] / "sweeps" / "quickstart.yaml"
BATCH_SIZE, LEARNING_RATE = 64, 1e-3
SMALL: Mapping[str, Mapping[str, str | int]] = {
    "convmixer": {"dim": 96, "depth": 8, "kernel_size": 5},
    "vit": {"dim": 32, "depth": 6, "heads": 4, "position_embedding": "sincos"},
    "mlp_mixer": {"dim": 40, "depth": 6},
}  # about 100,000 parameters at 32 pixels
CELLS = {
    f"{data}-{backbone}-p{patch_size}": (data, backbone, patch_size)
    for data, sizes in (("digits", (1, 2, 4)), ("cifar", (4, 8)))
    for backbone, patch_size in itertools.product(SMALL, sizes)
}
SIZES = (2, 4, 8)
VMAPPED = 4
STEPS_CHECKED, TOLERANCE = 3, 1e-4
LAP_SECONDS = 0.25

Step = Callable[[], Tensor]  # one optimizer step; the losses it saw, one per run


def cell_of(data: str, backbone: str, patch_size: int) -> tuple[Run, Splits]:
    """A run of the quickstart, or one of the same batch size on images of CIFAR-10's shape; the images are noise."""
    if data == "digits":
        planned = make_plan(read_sweep(QUICKSTART)).runs
        run = next(p.run for p in planned if p.run.backbone == backbone and p.run.model.patch_size == patch_size)
        return run, noise_splits(facts(run.data), images=run.data.train_images)
    subject = Subject(f"{backbone} p{patch_size}", backbone, {**SMALL[backbone], "patch_size": patch_size})
    run = run_of(subject, batch_size=BATCH_SIZE, precision="fp32", images=2048)
    augment = AugmentOptions(flip=True, crop=4, randaugment_n=2, randaugment_m=9)
    return replace(run, augment=augment), noise_splits(facts_of(run), images=run.data.train_images)


def batches(run: Run, splits: Splits, choice: DeviceChoice, layout: torch.memory_format) -> Iterator[tuple[Tensor, Target]]:
    """The run's training batches without end."""
    found = TrainingBatches(run, splits, device=choice.device, layout=layout)
    return (batch for epoch in itertools.count() for batch in found.epoch(epoch))


def single(run: Run, splits: Splits, choice: DeviceChoice) -> Step:
    """The engine's step."""
    placing = placed(run, choice)
    state = initial_state(placing.model, run, device=choice.device, epoch_steps=1000)
    fed, casting = batches(run, splits, choice, placing.layout), autocast(run.train.precision, choice.device)

    def step() -> Tensor:
        at = state.step = state.step % len(state.losses)
        set_learning_rate(state.optimizer, LEARNING_RATE)
        with execution_mode(choice):
            optimizer_step(state, *next(fed), options=run.train, micro_batches=1, autocast=casting)
        return state.losses[at : at + 1]

    return step


def together(run: Run, splits: Splits, choice: DeviceChoice, *, size: int, mapped: bool = False) -> Step:
    """One step of `size` runs that differ in their seeds."""
    runs = seeds(run, size)
    models = [build_spec(each.model, seed=each.seed) for each in runs]
    stack = Stack(models, run.train, learning_rate=LEARNING_RATE)
    forward: Forward = vmapped(models[0], stack) if mapped else by_hand(models[0], stack, choice.extension)
    fed = [batches(each, splits, choice, torch.contiguous_format) for each in runs]

    def step() -> Tensor:
        with execution_mode(choice):
            images, targets = zip(*map(next, fed), strict=True)
            logits = forward(stack.weights, torch.stack(images))
            found = losses(logits, joined(targets), label_smoothing=run.train.label_smoothing)
            found.sum().backward()  # type: ignore[no-untyped-call]
            stack.update()
        return found.detach()

    return step


def seeds(run: Run, size: int) -> list[Run]:
    """The run with `size` seeds."""
    return [replace(run, seed=run.seed + number) for number in range(size)]


def joined(targets: Sequence[Target]) -> Target:
    """One target of all images of all runs."""
    parts = ([getattr(target, name) for target in targets] for name in ("labels", "partners", "weight"))
    return Target(*(None if part[0] is None else torch.cat(part) for part in parts))  # type: ignore[arg-type]


def assert_same(run: Run, splits: Splits, choice: DeviceChoice) -> None:
    """A stack by hand sees the losses of single runs, step after step, within rounding."""
    alone = [single(each, splits, choice) for each in seeds(run, 2)]
    stack = together(run, splits, choice, size=2)
    for number in range(STEPS_CHECKED):
        found, expected = stack(), torch.cat([step() for step in alone])
        assert torch.allclose(found, expected, rtol=TOLERANCE), f"step {number}: {found} stacked, {expected} alone"


@dataclass(frozen=True)
class Measured:
    """One cell's turns; gains by contestant: median over rounds, quartiles, and by processor time."""

    cell: str
    params: int
    timings: dict[str, Timing]
    gains: dict[str, tuple[float, float, float, float]]


def measure(name: str, choice: DeviceChoice, *, rounds: int) -> Measured:
    """All rounds over one cell."""
    run, splits = cell_of(*CELLS[name])
    assert_same(run, splits, choice)
    made: dict[str, tuple[int, Callable[..., Step]]] = {"one": (1, single)}
    made |= {f"{size} by hand": (size, partial(together, size=size)) for size in SIZES}
    made |= {f"{VMAPPED} by vmap": (VMAPPED, partial(together, size=VMAPPED, mapped=True))}
    contestants = {key: Here(lambda make=make: (make(run, splits, choice), "")) for key, (_, make) in made.items()}  # type: ignore[misc]
    steps = max(SIZES) * max(1, round(LAP_SECONDS / contestants["one"].lap(4).seconds / max(SIZES)))
    calls = {key: steps // size for key, (size, _) in made.items()}
    timings = take_turns(contestants, rounds=rounds, calls=calls)
    gains = {key: gain(timings["one"], timings[key], size) for key, (size, _) in made.items() if key != "one"}
    return Measured(name, run.model.closed_form().params, timings, gains)


def gain(one: Timing, stack: Timing, size: int) -> tuple[float, float, float, float]:
    """How many times as fast a stack of `size` trains as runs in turn."""
    wall, cpu = ratio(one, stack), ratio(one, stack, of="cpu_seconds")
    return size * wall.median, size * wall.lower, size * wall.upper, size * cpu.median


def row(measured: Measured) -> list[str]:
    """The table's row of one cell."""
    one = measured.timings["one"]
    shown = [f"{wall:.2f} [{lower:.2f}, {upper:.2f}] {cpu:.2f}" for wall, lower, upper, cpu in measured.gains.values()]
    return [measured.cell, str(measured.params), f"{one.seconds * 1e3:.1f}", f"{one.cpu_seconds * 1e3:.1f}", *shown]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.stacking", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("cells", nargs="*", choices=[*CELLS, []], help="default: all")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/stacking.json"))
    asked = parser.parse_args(argv)
    warnings.filterwarnings("ignore", message=".*batching rule.*")  # of vmap, on operators that it takes run by run
    torch.set_num_threads(asked.threads)
    choice, around = equipped(DeviceChoice("cpu"), os.environ), circumstances("cpu", threads=asked.threads)
    found = []
    for name in asked.cells or CELLS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        found.append(measure(name, choice, rounds=asked.rounds))
    gains = [f"{key}: gain, by cpu time" for key in found[0].gains]
    print_table(["cell", "params", "ms a step", "cpu ms", *gains], [row(each) for each in found])
    content: Mapping[str, Any] = {**around, "arguments": vars(asked), "measured": [asdict(each) for each in found]}
    write_json(asked.out, dict(content))
    print(f"written to {asked.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
