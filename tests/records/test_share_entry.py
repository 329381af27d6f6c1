"""Shares, progress and last states are read back as they were written, also those of version 0.1, which stacked runs."""

from __future__ import annotations

import json
from dataclasses import replace

from specimens import RUN

from study.config.options import Variant
from study.records.journal import Journal, find_last_states, read_journals
from study.records.ledger import Launch, ShareEntry, read_share, write_launch
from study.records.plan_file import PlannedEntry
from study.records.progress_file import WorkerProgress, read_latest_progress, write_progress
from study.records.sweep_folder import SweepFolder, Writer

PLANNED = PlannedEntry(
    "vit-s0",
    run={**RUN, "train": {"lr": None, "epochs": 1, "batch_size": 64}},
    cost={"macs": 3},
    match={"by": "none"},
    stage="trial",
    trials=2,
)
PROGRESS = WorkerProgress(
    "vit-s0",
    time=1.0,
    device="cpu",
    epoch=1,
    epochs=2,
    step=3,
    steps=8,
    train_loss=0.5,
    val_accuracy=None,
    images_per_second=10.0,
    eta_seconds=4.0,
)


def test_a_share_survives_its_file(tmp_path):
    """Reading gives what was written, the variant included."""
    variant = Variant(memory_layout="channels_last", compiled="default")
    share = [
        ShareEntry(PLANNED, retry=True, variant=variant, device_name="some GPU"),
        ShareEntry(replace(PLANNED, run_id="vit-s1")),
    ]
    launch = Launch("launch", "slurm", plan="p", code="c", tasks=1, tasks_per_job=1, device="cpu", provenance={})
    write_launch(SweepFolder(tmp_path), launch, [share])
    assert read_share(SweepFolder(tmp_path), ("launch", 0)) == share


def test_a_stacked_entry_of_version_0_1_is_a_single_run():
    """Its stack is ignored, and what plans lacked before there were trials has its default."""
    old = {"run_id": "vit-s0", "run": RUN, "cost": {}, "match": {}, "stack": {"runs": ["vit-s0", "vit-s1"]}, "variant": None}
    assert ShareEntry.from_json(old) == ShareEntry(PlannedEntry("vit-s0", run=RUN, cost={}, match={}))


def test_the_newest_process_of_a_worker_counts(tmp_path):
    """Restart 10 is newer than restart 9; entries that version 0.1 added are ignored."""
    folder = SweepFolder(tmp_path)
    write_progress(folder, Writer("launch", 0, 9), PROGRESS)
    write_progress(folder, Writer("launch", 0, 10), replace(PROGRESS, step=5))
    path = folder.progress / "launch-0-10.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "together": ["vit-s0", "vit-s1"]}))
    assert read_latest_progress(folder) == {("launch", 0): replace(PROGRESS, step=5)}


def test_open_runs_are_those_of_the_newest_process(tmp_path):
    """Version 0.1 may have begun several runs at once; a restarted worker has none of its predecessor's."""
    folder = SweepFolder(tmp_path)
    first, second = Journal(folder, Writer("launch", 0, 0)), Journal(folder, Writer("launch", 1, 0))
    for journal in (first, second):
        journal.write("start", log="log")
        journal.write("begin", run_id="a")
        journal.write("begin", run_id="b")
    second.write("end", run_id="a")
    restarted = Journal(folder, Writer("launch", 0, 1))
    restarted.write("start", log="other log")
    for journal in (first, second, restarted):
        journal.close()
    states = find_last_states(read_journals(folder))
    assert (states["launch", 0].open_runs, states["launch", 0].entry.log) == ((), "other log")
    assert states["launch", 1].open_runs == ("b",)
