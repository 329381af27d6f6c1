"""The costs of a run on this CPU besides its training steps: the start of the next run, images, checkpoints.

    python -m benchmarks.fixed

Between runs: workers of a real launch train several runs of the same shapes; the time from the end of one to the beginning of
the next is taken from their journals, and the time from there to the end of the first step is measured in the engine. Images:
the data path of ConvMixer's 25-epoch recipe against the engine's step, in turns. Checkpoints: writing one of the same model, as
in training, against the time between two.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, astuple
from itertools import pairwise
from pathlib import Path

import torch

from benchmarks.circumstances import circumstances
from benchmarks.cpu import fed, ours
from benchmarks.subjects import SUBJECTS, run_of
from benchmarks.tables import print_table, write_json
from benchmarks.turns import Lap, Ratio, ratio, start_processes, take_turns
from study.config.run import Run
from study.config.sweep_file import read_sweep
from study.data import describe_dataset
from study.data.splits import Splits, make_random_splits
from study.planning.sweep_plan import make_plan
from study.records.journal import read_journals
from study.records.sweep_folder import SweepFolder
from study.training.checkpoint import LEAST_INTERVAL_SECONDS, SHARE_OF_TIME, Checkpoints
from study.training.device import DeviceChoice
from study.training.engine import train
from study.training.fingerprint import make_fingerprint
from study.training.memory_layout import LAYOUT_NAMES
from study.training.model_setup import prepare_model, with_cpu_kernels
from study.training.state import initial_state

ROOT = Path(__file__).parents[1]
SUBJECT, BATCH_SIZE = "convmixer_k5", 128
RUNS = 8  # of the launch, one seed each
SWEEP = """\
question: how long is the gap between two runs of the same shapes?
device: cpu
data: {{name: digits}}
model: {{depth: 2, patch_size: 2}}
backbone: convmixer
train: {{epochs: 3, batch_size: 64, lr: 3e-3}}
augment: {{mixup: 0.3}}
match: {{by: params, target: 30k, head_dim: 8}}
seeds: {seeds}
"""
TARGETS = {"from run to run": 1.0, "data and augmentation": 0.10, "checkpoints": SHARE_OF_TIME}  # seconds; shares


def between_runs() -> list[float]:
    """Seconds from the end of each run to the beginning of its worker's next."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "sweep.yaml")
        path.write_text(SWEEP.format(seeds=list(range(RUNS))))
        command = [sys.executable, "-m", "study.launch", path.name, "--cluster", "local"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run(command, cwd=place, env=environment, check=True, stdout=subprocess.DEVNULL)
        entries = [entry for entry in read_journals(SweepFolder(Path(place, "runs", "sweep"))) if entry.run_id]
    workers = {entry.worker for entry in entries}
    pairs = [pair for worker in workers for pair in pairwise(entry for entry in entries if entry.worker == worker)]
    return [later.time - earlier.time for earlier, later in pairs if earlier.event == "end"]


def first_steps(*, rounds: int) -> list[Lap]:
    """From the call of the engine to the end of the first step, wall-clock and CPU time; the first run is a warm-up."""
    path = ROOT / "sweeps" / "quickstart.yaml"
    plan = make_plan(read_sweep(path, ["backbone=convmixer", "model.patch_size=2", f"seeds={list(range(rounds + 1))}"]))
    runs = [planned.run for planned in plan.runs]
    splits = make_random_splits(describe_dataset(runs[0].data), images=runs[0].data.train_images)
    choice = with_cpu_kernels(DeviceChoice("cpu"), os.environ)
    with tempfile.TemporaryDirectory() as place:
        return [first_step(run, splits, choice, folder=Path(place)) for run in runs][1:]


def first_step(run: Run, splits: Splits, choice: DeviceChoice, *, folder: Path) -> Lap:
    """Start a training and stop it after the first step."""
    ends: list[tuple[float, float]] = []

    def stop() -> bool:
        ends.append((time.perf_counter(), time.process_time()))
        return True

    clock, cpu = time.perf_counter(), time.process_time()
    checkpoints = Checkpoints(folder, run.run_id, "benchmark")
    train(run, splits, device=choice, checkpoints=checkpoints, stop=stop, report=lambda *_: None)
    return Lap(ends[0][0] - clock, ends[0][1] - cpu)


def input_share(*, rounds: int, threads: int) -> Ratio:
    """The time of the data path relative to a training step on images that are already loaded."""
    prepared = {"step": functools.partial(ours, SUBJECT, BATCH_SIZE), "images": functools.partial(fed, SUBJECT, BATCH_SIZE)}
    with start_processes(prepared, threads=threads) as started:
        timings = take_turns(started, rounds=rounds, calls={"images": 32})
    return ratio(timings["images"], timings["step"])


def checkpoint_seconds(*, rounds: int) -> list[float]:
    """Seconds to write a checkpoint, once per round."""
    run, choice = run_of(SUBJECTS[SUBJECT], batch_size=BATCH_SIZE, precision="fp32"), DeviceChoice("cpu")
    prepared = prepare_model(run, choice)
    state = initial_state(prepared.model, run, device=choice.device, epoch_steps=run.data.train_images // BATCH_SIZE)
    for parameter in prepared.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.optimizer.step()  # the optimizer has its moments from the first step on
    execution = make_fingerprint(choice, memory_layout=LAYOUT_NAMES[prepared.layout], micro_batches=1)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as place:  # as runs/ would be: on this disk, not in memory
        checkpoints = Checkpoints(Path(place), run.run_id, "benchmark")
        return [time_save(checkpoints, state.export(execution), step=step) for step in range(rounds)]


def time_save(checkpoints: Checkpoints, state: dict[str, object], *, step: int) -> float:
    started = time.perf_counter()
    checkpoints.save(state, step=step)
    return time.perf_counter() - started


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.fixed", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/fixed.json"))
    arguments = parser.parse_args(argv)
    around = circumstances("cpu", threads=arguments.threads)
    torch.set_num_threads(arguments.threads)
    gaps, starts, saves = between_runs(), first_steps(rounds=arguments.rounds), checkpoint_seconds(rounds=arguments.rounds)
    images = input_share(rounds=arguments.rounds, threads=arguments.threads)
    begun, stepped, cpu = (statistics.median(found) for found in (gaps, *zip(*map(astuple, starts), strict=True)))
    interval = [max(LEAST_INTERVAL_SECONDS, seconds / SHARE_OF_TIME) for seconds in saves]
    shares = [seconds / (seconds + pause) for seconds, pause in zip(saves, interval, strict=True)]
    figures = {
        "from run to run": (begun + stepped, f"s: {begun:.3f} to begin, {stepped:.3f} to its first step's end ({cpu:.3f} cpu)"),
        "data and augmentation": (images.median, f"of a step, quartiles {images.lower:.4f} to {images.upper:.4f}"),
        "checkpoints": (statistics.median(shares), f"of the time: {statistics.median(saves):.3f} s each"),
    }
    rows = [
        [name, f"{figure:.4f}", words, f"{TARGETS[name]}: {'reached' if figure <= TARGETS[name] else 'MISSED'}"]
        for name, (figure, words) in figures.items()
    ]
    print_table(["", "median", "details", "target, at most"], rows)
    measured = {"gaps": gaps, "starts": list(map(asdict, starts)), "saves": saves, "images": vars(images)}
    write_json(arguments.out, {**around, "arguments": vars(arguments), **measured})
    print(f"written to {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
