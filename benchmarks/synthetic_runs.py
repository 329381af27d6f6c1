"""Sweeps of any size with made-up outcomes, to measure what is done with many runs without training one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from study.config.sweep_file import read_sweep
from study.launcher.assignment import write_plan
from study.planning.sweep_plan import Plan, make_plan
from study.records.correctness import pack_correctness
from study.records.ledger import Launch, ShareEntry, write_launch
from study.records.plan_file import PlannedEntry
from study.records.record import Measurements, Record, Result
from study.records.sweep_folder import SweepFolder
from study.rng import stream

SWEEP = """\
question: how long does it take?
data: {{name: {data}}}
model: {{kernel_size: {kernel}}}
train: {{epochs: 5, batch_size: 32}}
match: {{by: params, target: {target}}}
axes:
  backbone: [vit, convmixer, mlp_mixer, convnext, metaformer]
  model.patch_size: [{patches}]
  model.depth: {depths}
  train.lr: {rates}
seeds: {seeds}
"""
DEPTHS, RATES = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12), (1e-3, 2e-3, 3e-3, 4e-3, 5e-3)
SIZES = {100: (1, 1, 5), 1_000: (5, 1, 10), 10_000: (10, 1, 50), 100_000: (10, 5, 100)}
"""Depths, learning rates and seeds by number of runs, next to five backbones and four patch sizes."""

BEGAN = 1_790_000_000.0  # seconds since 1970
EPOCHS = 5


def write_sweep(
    path: Path, runs: int, *, data: str = "cifar10", target: str = "600k", patches: str = "2, 4, 8, 16", kernel: int = 3
) -> Path:
    """The file of a sweep of so many runs."""
    depths, rates, seeds = SIZES[runs]
    lists = {"depths": [*DEPTHS[:depths]], "rates": [*RATES[:rates]], "seeds": seeds}
    path.write_text(SWEEP.format(data=data, target=target, patches=patches, kernel=kernel, **lists), encoding="utf-8")
    return path


def make_synthetic_sweep(place: Path, runs: int, *, workers: int) -> tuple[Plan, SweepFolder]:
    """A sweep of so many runs in `place`, planned and launched by nobody, every run recorded by one of the workers."""
    plan = make_plan(read_sweep(write_sweep(place / "sweep.yaml", runs)))
    folder = SweepFolder(place / "runs" / "sweep")
    launch_synthetically(plan, folder, workers=workers)
    return plan, folder


def launch_synthetically(plan: Plan, folder: SweepFolder, *, workers: int) -> None:
    """A launch of the plan, with the files that its workers would leave."""
    write_plan(plan, folder)
    launch = Launch("20261127t000000x0000", "local", plan.digest, "0" * 16, workers, 1, "cpu", {})
    shares = [[ShareEntry(planned.entry) for planned in plan.runs[worker::workers]] for worker in range(workers)]
    write_launch(folder, launch, shares)
    for worker, share in enumerate(shares):
        record_share(folder, f"{launch.id}-{worker}-0", [entry.planned for entry in share])


def record_share(folder: SweepFolder, writer: str, share: Sequence[PlannedEntry]) -> None:
    """The records and the journal of a worker that has finished its share, every run in ten seconds."""
    for place in (folder.records, folder.journals):
        place.mkdir(parents=True, exist_ok=True)
    _write_lines(folder.records / f"{writer}.jsonl", (make_record(entry).to_json() for entry in share))
    event = {"step": 0, "reason": "", "log": ""}
    events = [{**event, "event": "start", "run_id": "", "time": BEGAN, "log": f"{writer}.log"}]
    for number, entry in enumerate(share):
        for kind, seconds in (("begin", 10.0 * number), ("end", 10.0 * number + 10)):
            events.append({**event, "event": kind, "run_id": entry.run_id, "time": BEGAN + seconds})
    _write_lines(folder.journals / f"{writer}.jsonl", events)


def _write_lines(path: Path, documents: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(document, sort_keys=True, allow_nan=False) + "\n" for document in documents)


def make_record(entry: PlannedEntry) -> Record:
    """A finished run: accuracy by depth and chance, correctness of every test image, curves of five epochs."""
    rng = stream(0, "synthetic record", entry.run_id)
    images = entry.run["data"]["test_images"]
    correct = rng.random(images) < 0.6 + 0.01 * entry.run["model"]["depth"] + 0.02 * rng.random()
    accuracy = float(correct.mean())
    epochs = [*range(1, EPOCHS + 1)]
    return Record(
        entry.run_id,
        "done",
        entry.run,
        entry.cost,
        entry.match,
        Result(val_accuracy=accuracy, val_loss=1.0, test_accuracy=accuracy, test_top5=(1 + accuracy) / 2, test_loss=1.0),
        curves={
            "epoch": epochs,
            "train_loss": [2 / epoch for epoch in epochs],
            "val_accuracy": [accuracy * epoch / EPOCHS for epoch in epochs],
            "val_loss": [2.1 / epoch for epoch in epochs],
            "lr": [entry.run["train"]["lr"]] * EPOCHS,
        },
        correct={"test": pack_correctness(correct)},
        measured=Measurements(train_seconds=10 * float(rng.random()), images_per_second=5000.0, peak_memory_mib=300.0),
        fingerprint={"device": "cpu", "device_name": "none", "threads": 1, "ranks": 1, "deterministic": True},
        provenance={"commit": "0" * 40, "dirty": False, "code": "0" * 16, "exact": True},
    )
