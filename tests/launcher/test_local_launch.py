"""A sweep on this machine, killed in every way: the same command again finishes it with the same bits.

The oracle is an undisturbed twin: the same sweep launched once, with as many threads per worker.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typed_commands import Command, start_command, wait_until, worker_processes

from study.launch import main
from study.launcher.liveness import check_liveness
from study.launcher.local_launch import LocalWorkers, block_interrupts
from study.records import load_curves, load_table
from study.records.ledger import read_share
from study.records.record import Record
from study.records.sweep_folder import JsonLinesWriter, SweepFolder

SWEEP = """\
question: does a killed sweep end as an undisturbed one?
data: {name: digits, train_images: 300}
model: {depth: 1}
train: {epochs: 3, batch_size: 50, lr: 3e-3}
augment: {crop: 1}
match: {by: params, target: 6k, head_dim: 8}
axes:
  backbone: [convmixer, vit]
  model.patch_size: [2]
seeds: [0, 1]
"""
OUTCOME = ["run_id", "status", "val_accuracy", "val_loss", "test_accuracy", "test_loss"]


def start(folder: Path, *words: str) -> Command:
    """A launch in a process group of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "sweep.yaml").write_text(SWEEP)
    line = " ".join(["launch sweep.yaml --cluster local --workers 2", *words])
    return start_command(line, folder=folder, environment=dict(os.environ))


def finish(folder: Path, *words: str) -> str:
    launch = start(folder, *words)
    assert launch.wait() == 0, launch.printed
    return launch.printed


def journals(folder: Path) -> list[dict]:
    paths = sorted((folder / "runs/sweep/journals").glob("*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines() if line.endswith("}")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The twin's table and curves."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(folder)
    return outcome(folder)


def outcome(folder: Path):
    table = load_table(folder / "runs/sweep")[OUTCOME].sort_values("run_id", ignore_index=True)
    return table, load_curves(folder / "runs/sweep")


def assert_same_as(folder: Path, undisturbed) -> None:
    table, curves = outcome(folder)
    assert table.equals(undisturbed[0])
    assert curves.equals(undisturbed[1])
    lines = [line for path in (folder / "runs/sweep/records").glob("*.jsonl") for line in path.read_text().splitlines()]
    assert len(lines) == len(table), "a run was recorded twice"


@pytest.mark.xdist_group("launch")
def test_asking_twice_runs_once(tmp_path, undisturbed):
    """A second launch of a finished sweep trains nothing and says so; more seeds train only what is new."""
    finish(tmp_path)
    assert_same_as(tmp_path, undisturbed)
    assert "Nothing is left to start" in finish(tmp_path)
    assert "2 to train, 4 recorded" in finish(tmp_path, "seeds=[0,1,2]")
    assert load_table(tmp_path / "runs/sweep")["status"].eq("done").sum() == 6
    assert not list((tmp_path / "runs/sweep/checkpoints").glob("*"))


@pytest.mark.xdist_group("launch")
def test_a_killed_worker_is_started_again(tmp_path, undisturbed):
    """kill -9 of a worker in the middle of a run: the launch starts it anew and the sweep ends with the same bits."""
    process = start(tmp_path)
    wait_until(lambda: any(line["event"] == "begin" for line in journals(tmp_path)))
    os.kill(worker_processes(tmp_path)[0], signal.SIGKILL)
    assert process.wait() == 0, process.printed
    assert_same_as(tmp_path, undisturbed)
    assert any(path.stem.endswith("-1") for path in SweepFolder(tmp_path / "runs/sweep").journals.glob("*.jsonl"))


@pytest.mark.xdist_group("launch")
def test_a_killed_launch_is_finished_by_the_next(tmp_path, undisturbed):
    """kill -9 of the launch and its workers at once: the same command finishes what is left."""
    process = start(tmp_path)
    wait_until(lambda: any(line["event"] == "begin" for line in journals(tmp_path)))
    process.kill_group(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not check_liveness(SweepFolder(tmp_path / "runs/sweep")).alive)
    finish(tmp_path)
    assert_same_as(tmp_path, undisturbed)


@pytest.mark.xdist_group("launch")
def test_workers_of_a_killed_launch_save_and_leave(tmp_path):
    """kill -9 of the launch alone, in runs of minutes: its workers notice, save their states and end."""
    process = start(tmp_path, "train.epochs=1000")
    wait_until(lambda: sum(line["event"] == "begin" for line in journals(tmp_path)) == 2)
    os.kill(process.process.pid, signal.SIGKILL)
    wait_until(lambda: not worker_processes(tmp_path))
    assert [line["reason"] for line in journals(tmp_path) if line["event"] == "exit"] == ["SIGHUP", "SIGHUP"]
    assert len(list((tmp_path / "runs/sweep/checkpoints").iterdir())) == 2
    assert not check_liveness(SweepFolder(tmp_path / "runs/sweep")).alive


@pytest.mark.xdist_group("launch")
def test_an_interrupted_launch_saves_first(tmp_path, undisturbed):
    """Ctrl-C reaches the whole group: the workers save and leave in order, and the next launch goes on from there."""
    process = start(tmp_path)
    wait_until(lambda: any(line["event"] == "begin" for line in journals(tmp_path)))
    process.kill_group(signal.SIGINT)
    assert process.wait() == 130
    assert not worker_processes(tmp_path)
    assert [line["reason"] for line in journals(tmp_path) if line["event"] == "exit"]
    finish(tmp_path)
    assert_same_as(tmp_path, undisturbed)


@pytest.mark.xdist_group("launch")
def test_a_worker_that_is_asked_to_stop_leaves_its_runs_to_the_next_launch(tmp_path, undisturbed):
    """SIGTERM to one worker: the launch says so and ends with status 1, not as finished; the next one resumes."""
    process = start(tmp_path)
    wait_until(lambda: any(line["event"] == "begin" for line in journals(tmp_path)))
    os.kill(worker_processes(tmp_path)[0], signal.SIGTERM)
    assert process.wait() == 1
    assert "was stopped by SIGTERM; the same command again resumes its runs" in " ".join(process.printed.split())
    finish(tmp_path)
    assert_same_as(tmp_path, undisturbed)


@pytest.mark.xdist_group("launch")
def test_two_launches_at_once_train_nothing_twice(tmp_path, undisturbed):
    """Started in the same moment, one gets the runs and the other finds them owned."""
    processes = [start(tmp_path), start(tmp_path)]
    assert [process.wait() for process in processes] == [0, 0], processes[0].printed + processes[1].printed
    assert_same_as(tmp_path, undisturbed)


def test_the_rest_of_a_sweep_is_executed_as_its_beginning(tmp_path, undisturbed):
    """However few runs are left, they get the threads of the first launch, and so its bits; other threads are not exact."""
    finish(tmp_path, "--limit", "3")
    finish(tmp_path)
    assert_same_as(tmp_path, undisturbed)
    table = load_table(tmp_path / "runs/sweep")
    (threads,) = set(table["threads"])
    assert table["exact"].all()
    printed = finish(tmp_path, "seeds=3", "--limit", "1", "--threads", str(threads + 1))
    assert f"threads: {threads} -> {threads + 1}" in printed and "not exact" in printed
    table = load_table(tmp_path / "runs/sweep")
    done = table[table["status"] == "done"]
    assert list(done.loc[done["seed"] == 2, "threads"]) == [threads + 1]
    assert (done["exact"] == (done["seed"] < 2)).all()


def test_what_the_disk_refuses_is_no_outcome(tmp_path, undisturbed):
    """Workers that can't write records end with the reason and status 1; the next launch trains the same bits."""
    sweep = tmp_path / "runs/sweep"
    sweep.mkdir(parents=True)
    for place in ("records", "progress"):  # each is a file, so nothing can be written in it
        (sweep / place).touch()
    launch = start(tmp_path)
    assert launch.wait() == 1
    assert "records" in launch.printed and "Not a directory" in launch.printed and "Traceback" not in launch.printed
    assert {entry["reason"] for entry in journals(tmp_path) if entry["event"] == "end"} == set()
    for place in ("records", "progress"):
        (sweep / place).unlink()
    finish(tmp_path)
    assert_same_as(tmp_path, undisturbed)


def test_a_launch_whose_runs_failed_says_so(tmp_path, monkeypatch, capsys):
    """With its status, the number of runs and the reason of one; a script that goes on after it would report nothing."""

    def fail(workers: LocalWorkers, _update: object) -> list[str]:
        records = JsonLinesWriter(workers.folder.records / f"{workers.launch.id}-0-0.jsonl")
        for entry in read_share(workers.folder, (workers.launch.id, 0)):
            planned = entry.planned
            records.append(Record(entry.run_id, "failed", planned.run, planned.cost, planned.match, reason="no luck").to_json())
        records.close()
        return []

    (tmp_path / "sweep.yaml").write_text(SWEEP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LocalWorkers, "run", fail)
    assert main(["sweep.yaml", "--cluster", "local", "--workers", "1"]) == 1
    assert re.search(r"4 of 4 runs failed, e\.g\. \S+: no luck", capsys.readouterr().out)


def test_an_interrupt_while_a_worker_starts_is_heard_afterwards():
    """It is raised when the start is over, and what was started meanwhile has never heard of it."""
    child = None
    with pytest.raises(KeyboardInterrupt), block_interrupts():  # noqa: PT012
        child = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(1); print('undisturbed')"], stdout=subprocess.PIPE, text=True
        )
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(child.pid, signal.SIGINT)
        started = True
    assert started and child is not None
    assert child.communicate()[0] == "undisturbed\n" and child.returncode == 0
