"""A valid specimen of every kind of file that the program reads, and the ways in which each can be damaged.

`write_specimens` writes a sweep's folder and a report's. `WHOLE` is done to a file, `WRONG` replaces values of its document.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import example_sweeps
import numpy as np

from study.analysis.report_files import read_report_folder, write_tables
from study.backbones import build_backbone, specify
from study.backbones.weight_files import load_weights, read_weights_file
from study.config.options import ResolvedData
from study.config.sweep_file import read_sweep
from study.data import describe_dataset
from study.launcher.assignment import write_plan
from study.planning.sweep_plan import make_plan
from study.records import load_correctness, load_curves, load_predictions, load_table, load_trials
from study.records.baseline_accuracy import write_baseline
from study.records.benchmark_file import newest_benchmark
from study.records.correctness import pack_correctness
from study.records.journal import Journal, read_journals
from study.records.ledger import (
    Execution,
    Launch,
    ShareEntry,
    cancel_runs,
    read_all_assignees,
    read_cancelled,
    read_launches,
    read_share,
    write_launch,
)
from study.records.plan_file import load_plan
from study.records.predictions import write_predictions
from study.records.progress_file import WorkerProgress, read_progress, write_progress
from study.records.rank_failures import RankFailure, read_rank_failures, write_rank_failure
from study.records.record import Measurements, Record, Result, read_records
from study.records.selection import read_selection
from study.records.sweep_folder import JsonLinesWriter, SweepFolder, Writer
from study.training.saved_weights import read_saved_weights, save_weights

KEPT = Path(__file__).parent / "records/kept_v1/runs/renamed"
LAUNCH = "20260101t000000x0000"
WRITER = Writer(LAUNCH, 0, 0)
SWEEP = """\
question: is every damage told?
device: cpu
data: {name: digits, train_images: 100}
model: {depth: 1, dim: 8, patch_size: 4}
train: {epochs: 1, batch_size: 50}
axes: {backbone: [vit, mlp_mixer]}
seeds: [0, 1]
"""


def write_specimens(place: Path) -> None:
    """`sweep.yaml`, its folder `runs/sweep` with one file of each kind, and `report` with the tables of another sweep."""
    (place / "sweep.yaml").write_text(SWEEP, encoding="utf-8")
    folder, plan = SweepFolder(place / "runs/sweep"), make_plan(read_sweep(place / "sweep.yaml"))
    entries = [planned.entry for planned in plan.runs]
    write_plan(plan, folder)
    execution = Execution("cpu", 1, None)
    launch = Launch(LAUNCH, "local", plan.digest, "0f", 1, 1, device="cpu", provenance={"commit": None}, execution=execution)
    write_launch(folder, launch, [[ShareEntry(entry) for entry in entries]])
    cancel_runs(folder, LAUNCH, [entries[-1].run_id])
    with closing(JsonLinesWriter(folder.records / f"{WRITER}.jsonl")) as lines:
        for entry in entries[:2]:
            images = entry.run["data"]["test_images"]
            record = Record(
                entry.run_id,
                "done",
                entry.run,
                entry.cost,
                entry.match,
                result=Result(val_accuracy=0.5, val_loss=1.0, test_accuracy=0.25, test_loss=2.0),
                curves={"epoch": [1], "train_loss": [1.5], "val_accuracy": [0.5], "val_loss": [1.0]},
                correct={"test": pack_correctness(np.arange(images) % 4 == 0)},
                measured=Measurements(1.0, 2.0, 3.0),
                fingerprint={"device": "cpu", "threads": 1},
                provenance={"launch": LAUNCH, "exact": True},
            )
            lines.append(record.to_json())
    with closing(Journal(folder, WRITER)) as journal:
        journal.write("start", log="worker.log")
        journal.write("begin", run_id=entries[2].run_id)
    progress = WorkerProgress(entries[2].run_id, 1.0, "cpu", 1, 2, 3, 8, 0.5, 0.25, 10.0, 4.0)
    write_progress(folder, WRITER, progress)
    write_rank_failure(folder, WRITER, RankFailure(entries[2].run_id, 1, 2, host="n", reason="r", log="l", time=0.0))
    write_baseline(folder.baselines, ResolvedData(**entries[0].run["data"]), fit=lambda: 0.5)
    shutil.copytree(KEPT / "benchmarks", folder.benchmarks)
    shutil.copy(KEPT / "selection.json", folder.selection)
    one = np.zeros(4)
    write_predictions(folder, WRITER, run_id=entries[0].run_id, image=one, label=one, predicted=one, probability=one)
    run = plan.runs[0].run
    facts = describe_dataset(run.data)
    save_weights(folder.weights / "w.safetensors", run, weights=build_backbone(run.model).state_dict(), facts=facts, writer="w")
    write_tables(example_sweeps.tuned().tables, place / "report")


def _load_all(place: Path) -> None:
    for load in (load_table, load_trials, load_curves, load_correctness):
        load(place / "runs/sweep")


def load_kept(path: Path) -> None:
    """Kept weights as `study.evaluate` reads them: their run, then their tensors, which are of no such model."""
    saved = read_saved_weights(path)
    load_weights(read_weights_file(path), saved.run.model if saved else specify("vit_tiny_patch16", {}))


def _of(reader: Callable[[SweepFolder], object]) -> Callable[[Path], object]:
    return lambda place: reader(SweepFolder(place / "runs/sweep"))


@dataclass(frozen=True)
class Kind:
    """One kind of file: where its specimen is, and what reads it. `optional`: a damaged one is passed over, not refused."""

    path: str
    read: Callable[[Path], object]
    optional: bool = False


KINDS: Mapping[str, Kind] = {
    "plan": Kind("runs/sweep/plans/*.json", _of(load_plan)),
    "launch": Kind(f"runs/sweep/launches/{LAUNCH}/launch.json", _of(read_launches)),
    "launch of a table": Kind(f"runs/sweep/launches/{LAUNCH}/launch.json", _load_all),
    "share": Kind(f"runs/sweep/launches/{LAUNCH}/shares/0.json", _of(lambda folder: read_share(folder, (LAUNCH, 0)))),
    "runs": Kind(f"runs/sweep/launches/{LAUNCH}/runs.json", _of(lambda folder: read_all_assignees(folder, {"a"}))),
    "cancelled": Kind(f"runs/sweep/launches/{LAUNCH}/withdrawn/0.json", _of(lambda folder: read_cancelled(folder, LAUNCH))),
    "failure": Kind(f"runs/sweep/launches/{LAUNCH}/failures/0-0-1.json", _of(lambda folder: read_rank_failures(folder, set()))),
    "journal": Kind(f"runs/sweep/journals/{WRITER}.jsonl", _of(read_journals)),
    "journal of a table": Kind(f"runs/sweep/journals/{WRITER}.jsonl", _load_all),
    "progress": Kind(f"runs/sweep/progress/{WRITER}.json", _of(lambda folder: read_progress(folder, WRITER)), optional=True),
    "record": Kind(f"runs/sweep/records/{WRITER}.jsonl", _of(lambda folder: read_records(folder.records))),
    "record of a table": Kind(f"runs/sweep/records/{WRITER}.jsonl", _load_all),
    "selection": Kind("runs/sweep/selection.json", _of(read_selection)),
    "baseline": Kind("runs/sweep/baselines/*.json", _load_all),
    "benchmark": Kind("runs/sweep/benchmarks/*.json", _of(lambda folder: newest_benchmark(folder.benchmarks))),
    "predictions": Kind(f"runs/sweep/predictions/{WRITER}.parquet", lambda place: load_predictions(place / "runs/sweep")),
    "weights": Kind("runs/sweep/weights/w.safetensors", lambda place: load_kept(place / "runs/sweep/weights/w.safetensors")),
    "trials.csv": Kind("report/trials.csv", lambda place: read_report_folder(place / "report")),
    "study.json": Kind("report/study.json", lambda place: read_report_folder(place / "report")),
    "runs.csv": Kind("report/runs.csv", lambda place: read_report_folder(place / "report")),
    "curves": Kind("report/curves.parquet", lambda place: read_report_folder(place / "report")),
}


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _link(target: str) -> Callable[[Path], None]:
    def link(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return link


def _large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(8 << 30)


def _cut(path: Path) -> None:
    """In the middle, as after a full disk; of lines, the first one."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3] + b"\n")


WHOLE: Mapping[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b"\n" if path.suffix == ".jsonl" else b""),
    "cut": _cut,
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 20 + b"\n"),
    "UTF-16": lambda path: path.write_bytes(path.read_bytes().decode(errors="replace").encode("utf-16") + b"\n"),
    "zeros": lambda path: path.write_bytes(bytes(len(path.read_bytes())) + b"\n"),
    "null": lambda path: path.write_text("null\n"),
    "list": lambda path: path.write_text("[]\n") if path.name not in ("0.json", "runs.json") else path.write_text("[[], 1]\n"),
    "mapping": lambda path: path.write_text("{}\n"),
    "text": lambda path: path.write_text('"text"\n'),
    "number": lambda path: path.write_text("5\n"),
    "not a number": lambda path: path.write_text("NaN\n"),
    "nested": lambda path: path.write_text("[" * 100_000 + "\n"),
    "digits": lambda path: path.write_text("9" * 5000 + "\n"),
    "later version": lambda path: path.write_text('{"format": 99}\n'),
    "no version": lambda path: path.write_text('{"format": "new"}\n'),
    "page": lambda path: path.write_text("<html>Not found</html>\n"),
    "folder": _folder,
    "pipe": _pipe,
    "device": _link("/dev/zero"),
    "loop": lambda path: _link(path.name)(path),
    "large": _large,
}
WRONG: tuple[Any, ...] = (None, "text", -1, 1.5, True, [], {}, 10**30, "../../x", "\x1b[31m", 1e308, [[{}]])


def list_places(document: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths of a document's values; of lists, those of the first entry."""
    entries = document.items() if isinstance(document, dict) else enumerate(document[:1]) if isinstance(document, list) else ()
    for key, value in entries:
        yield (*path, key)
        yield from list_places(value, (*path, key))


def replace_value(document: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """A copy of the document with another value at a path."""
    made = node = copy.deepcopy(document)
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return made


def read_specimen(path: Path) -> Any:
    """The document of a JSON specimen, of lines the last one's; None for other files."""
    if path.suffix not in (".json", ".jsonl"):
        return None
    return json.loads(path.read_text().splitlines()[-1] if path.suffix == ".jsonl" else path.read_text())


def write_document(path: Path, document: Any) -> None:
    """In place of the specimen's; a line replaces the last one."""
    text = json.dumps(document)
    lines = path.read_text().splitlines()[:-1] if path.suffix == ".jsonl" else []
    path.write_text("".join(f"{line}\n" for line in [*lines, text]))
