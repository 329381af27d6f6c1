"""Scenarios on a real Slurm: what is done to a sweep, side by side, and the undisturbed twin that each must equal.

A scenario mostly waits for Slurm. So the first test that needs one starts all that were collected, each on a rack of its
own, and every test then waits for its own.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import pandas as pd
import pytest
from preloaded_python import preloaded_python
from slurm_cluster import Rack, SlurmCluster, eventually, lease
from typed_commands import Command, start_command, worker_processes

from study.records import load_curves, load_table
from study.records.sweep_folder import SweepFolder, Writer

SWEEP = """\
question: does a disturbed sweep end as an undisturbed one?
device: cpu
data: {{name: digits, train_images: 300}}
model: {{depth: 1, pooling: mean}}
backbones: {{convmixer: {{model: {{kernel_size: 3}}}}}}
train: {{epochs: {epochs}, batch_size: 50, lr: 3e-3}}
augment: {{crop: 1}}
match: {{by: params, target: 6k, head_dim: 8}}
axes: {{backbone: [convmixer, vit], model.patch_size: [2]}}
seeds: {seeds}
"""
PROFILE = {"workers": 1, "gpus_per_node": 0, "cpus_per_task": 1, "mem_gb": 1, "time": 20, "signal_delay_s": 60}
OUTCOME = ["run_id", "status", "val_accuracy", "val_loss", "test_accuracy", "test_loss"]
SLOW_STEPS = """\
import sys, time
if "torch" in sys.modules:
    import torch
    step = torch.optim.AdamW.step
    def slow_step(*words, **more):
        time.sleep(0.02)
        return step(*words, **more)
    torch.optim.AdamW.step = slow_step
"""
"""A sitecustomize.py that makes a run on Slurm long enough to be hit in its middle without using the CPU."""
PATIENCE_S = 400  # seconds; generous, as all scenarios share the machine


def sweep(*, epochs: int, seeds: int = 1) -> str:
    """Two backbones times the seeds; an epoch has six steps and takes about 30 ms, on Slurm at least 120 ms (SLOW_STEPS)."""
    return SWEEP.format(epochs=epochs, seeds=list(range(seeds)))


SHORT = sweep(epochs=2)
LONG = sweep(epochs=30)  # long enough to be hit in the middle, a few seconds a run


# ---- One sweep in one folder, on one rack -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What must not depend on what happened on the way: the table's results and the learning curves."""

    table: pd.DataFrame
    curves: pd.DataFrame

    @staticmethod
    def of(folder: Path) -> Outcome:
        table = load_table(folder)[OUTCOME].sort_values("run_id", ignore_index=True)
        return Outcome(table, load_curves(folder))


@dataclass
class Site:
    """A user's folder with a sweep and a profile, on a rack of a cluster."""

    folder: Path
    rack: Rack
    twins: Twins
    sweep: str = SHORT
    profile: dict[str, Any] = field(default_factory=dict)
    python: str = field(default_factory=preloaded_python)  # of workers and jobs

    def __post_init__(self) -> None:
        slow = self.folder / "slow_steps"
        slow.mkdir()
        (slow / "sitecustomize.py").write_text(SLOW_STEPS)
        self.profile = {"setup": [f"export PYTHONPATH={slow}:$PYTHONPATH"], **self.profile}
        self.write(self.sweep)
        self.set()

    def write(self, sweep: str) -> None:
        self.sweep = sweep
        (self.folder / "sweep.yaml").write_text(sweep)

    def set(self, **keys: Any) -> None:
        """Keys of the profile."""
        self.profile = {**PROFILE, "partition": self.rack.low, **self.profile, **keys}
        (self.folder / "profile.yaml").write_text(json.dumps(self.profile))

    @property
    def runs(self) -> SweepFolder:
        return SweepFolder(self.folder / "runs/sweep")

    def start(self, words: str, *, die_at: int | None = None, **environment: str) -> Command:
        """Types a command; `launch` gets the profile."""
        name, _, rest = words.partition(" ")
        profile = " --profile profile.yaml" if name == "launch" and "--cluster" not in rest else ""
        variables = {**self.rack.cluster.environment, **environment}
        line = f"{name} sweep.yaml{profile} {rest}"
        return start_command(line, folder=self.folder, environment=variables, python=self.python, die_at=die_at)

    def type(self, words: str, *, status: int = 0, **environment: str) -> str:
        """What a command printed that ended with this status."""
        command = self.start(words, **environment)
        assert command.wait() == status, command.printed
        return command.printed

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.type("status --json"))
        return status

    def release(self) -> None:
        """Lets jobs run that were submitted with --hold."""
        for job in {job.partition("_")[0] for job in self.jobs()}:
            self.rack.cluster.run("scontrol", "release", job)

    def jobs(self) -> list[str]:
        """Ids of this rack's tasks that live."""
        return [line.split()[0] for line in self.rack.jobs()]

    def notes(self, event: str = "") -> list[dict[str, Any]]:
        """All lines of all journals, or those of one event, in the order of their writers."""
        paths = sorted(self.runs.journals.glob("*.jsonl"))
        lines = [json.loads(line) for path in paths for line in path.read_text().splitlines() if line.endswith("}")]
        return [line for line in lines if event in ("", line["event"])]

    def lives(self) -> list[Writer]:
        """Every life of every worker that got as far as its journal."""
        return sorted((Writer.parse(path.stem) for path in self.runs.journals.glob("*.jsonl")), key=str)

    def said(self) -> list[dict[str, Any]]:
        """What workers say of the run that they are at."""
        return [json.loads(path.read_text()) for path in self.runs.progress.glob("*.json")]

    def processes(self) -> list[int]:
        """Worker processes of this folder's launches, on whatever node."""
        return worker_processes(self.folder)

    def files(self, *, without: Collection[str] = ()) -> dict[Path, bytes]:
        """What the user's folder holds, but for what commands printed and what lies in folders of these names."""
        return {
            path: path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file() and not path.name.startswith("typed-") and not {*without} & {*path.parts}
        }

    def kill_workers(self) -> None:
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)

    def node(self) -> str:
        """The node on which the only job runs."""
        [line] = self.rack.jobs()
        return line.split()[2]

    # ---- Waiting

    def await_training(self, lives: int = 1) -> None:
        """Until some run is in the middle of its training, in at least so many lives of workers."""

        def training() -> bool:
            begun = len(self.notes("begin")) > len(self.notes("end")) + len(self.notes("stop"))
            return begun and len(list(self.runs.progress.glob("*.json"))) >= lives

        self.eventually(training, what="training")

    def await_jobs_end(self) -> None:
        self.eventually(lambda: not self.rack.jobs(), what="the end of all jobs", every_s=1.0)  # a squeue call costs CPU

    def eventually(self, condition: Callable[[], object], *, what: str, every_s: float = 0.2) -> None:
        try:
            eventually(condition, what=what, seconds=PATIENCE_S, every_s=every_s)
        except AssertionError as error:
            logs = sorted(self.runs.launches.glob("*/jobs/*.err"))
            ends = [f"{log.name}: {log.read_text()[-600:]}" for log in logs]
            raise AssertionError("\n".join([str(error), *self.rack.jobs(), *map(str, self.notes()[-12:]), *ends])) from None

    # ---- The law

    def assert_same_as_undisturbed(self) -> None:
        """Bit for bit the table and curves of the twin; no run is missing and none appears twice."""
        found, expected = Outcome.of(self.runs.path), self.twins.of(self.sweep)
        assert found.table["run_id"].is_unique
        assert (found.table["status"] == "done").all(), found.table
        pd.testing.assert_frame_equal(found.table, expected.table, check_exact=True)
        pd.testing.assert_frame_equal(found.curves, expected.curves, check_exact=True)

    def records(self) -> list[dict[str, Any]]:
        """Every line of every record file."""
        return [
            json.loads(line)
            for path in sorted(self.runs.records.glob("*.jsonl"))
            for line in path.read_text().splitlines()
            if line.endswith("}")
        ]

    def assert_recorded_once(self) -> None:
        """Nothing was trained to its end twice."""
        ids = [record["run_id"] for record in self.records() if record["status"] == "done"]
        assert len(ids) == len(set(ids))


@dataclass
class Twins:
    """The undisturbed local launch of each sweep, with one thread per worker, trained when it is first needed."""

    base: Path
    patience_s: float = PATIENCE_S
    _lock: Lock = field(default_factory=Lock)
    _known: dict[str, Outcome] = field(default_factory=dict)

    def of(self, sweep: str) -> Outcome:
        with self._lock:
            if sweep not in self._known:
                folder = self.base / f"twin{len(self._known)}"
                folder.mkdir()
                (folder / "sweep.yaml").write_text(sweep)
                cores = len(os.sched_getaffinity(0))  # as many workers have one thread each
                words = f"launch sweep.yaml --cluster local --workers {cores}"
                twin = start_command(words, folder=folder, environment=dict(os.environ))
                assert twin.wait(self.patience_s) == 0, twin.printed
                self._known[sweep] = Outcome.of(folder / "runs/sweep")
            return self._known[sweep]


# ---- Side by side -----------------------------------------------------------------------------------------------------

Body = Callable[[Site], None]


def scenario(body: Body) -> Callable[[Callable[[Body], None]], None]:
    """Makes a test of a body that mostly waits: it runs beside all other scenarios, and the test waits for its end."""

    @pytest.mark.xdist_group("scenarios")
    def test(finished: Callable[[Body], None]) -> None:
        finished(body)

    test.__name__, test.__doc__, test.__module__ = body.__name__, body.__doc__, body.__module__
    vars(test)["body"] = body
    return test


def play(body: Body, base: Path, cluster: SlurmCluster, twins: Twins) -> None:
    """One scenario in a folder and on a rack of its own."""
    folder = base / body.__name__
    folder.mkdir()
    with lease(cluster.folder) as number:
        rack = Rack(cluster, number)
        try:
            body(Site(folder, rack, twins))
        finally:
            rack.clear()
