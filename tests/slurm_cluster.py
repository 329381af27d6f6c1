"""A real Slurm for tests: one cluster per run of the suite, started by the first test that needs it, stopped after the last.

The cluster has racks of two nodes with partitions of their own. A test takes the `rack` fixture and is alone on those
nodes: it may preempt, kill and cancel there while other tests use other racks, in this process or in one of
pytest-xdist's. A test that needs a cluster of another shape (limits on arrays, no accounting) takes `new_slurm_cluster`.

Where Debian's Slurm packages are missing these tests are skipped, and a line at the end says so; with REQUIRE_ALL=1 they
fail.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

DEVCLUSTER = Path(__file__).resolve().parents[1] / "slurm" / "devcluster"
RACKS = 6
NODES_PER_RACK = 2
PREFIX = "study-slurm-"
FOLDER = pytest.StashKey[Path]()
FOREIGN = ("SLURM", "SBATCH", "SRUN")  # variables of a job that the suite itself may run in
SKIPPED = "no Slurm to test on"


# ---- The cluster and its racks ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SlurmCluster:
    """A running cluster; `environment` holds what commands need to find it, and no other variable of Slurm."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        own = {"SLURM_CONF": f"{self.folder}/slurm.conf"}
        return {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)} | own

    def run(self, *command: str, stdin: str = "") -> str:
        """Standard output of a command that succeeds there."""
        done = subprocess.run(command, env=self.environment, input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def submit(self, script: str, *options: str) -> str:
        """The id of a new batch job. `script` is bash; options are sbatch's."""
        return self.run("sbatch", "--parsable", *options, stdin=f"#!/bin/bash\n{script}\n")

    def kill_node(self, node: str, *, noticed: bool = False) -> None:
        """Kills all processes of a node. The controller takes 15 s to notice; `noticed` sets it to down at once."""
        run_devcluster("kill-node", self.folder, node)
        if noticed:
            self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=killed")

    def start_node(self, node: str) -> None:
        """Boots a killed node and waits until it can take jobs."""
        run_devcluster("start-node", self.folder, node)
        taking = ("idle", "mixed", "allocated", "completing")  # a queued job may have started there already
        eventually(lambda: self.node_state(node) in taking, what=f"{node} to be back")

    def node_state(self, node: str) -> str:
        """Its state as sinfo shows it: idle, mixed, allocated, down, ...; a trailing * means that it doesn't answer."""
        return self.run("sinfo", "--noheader", "--partition=low", f"--nodes={node}", "--format=%T")


@dataclass(frozen=True)
class Rack:
    """Two nodes for one test alone, and the partitions over them: jobs in `high` preempt those in `low`."""

    cluster: SlurmCluster
    number: int

    @property
    def low(self) -> str:
        return f"low{self.number}"

    @property
    def high(self) -> str:
        return f"high{self.number}"

    @property
    def nodes(self) -> list[str]:
        first = (self.number - 1) * NODES_PER_RACK + 1
        return [f"n{number}" for number in range(first, first + NODES_PER_RACK)]

    def submit(self, script: str, *options: str) -> str:
        """The id of a new batch job, in `low` unless the options say otherwise."""
        return self.cluster.submit(script, f"--partition={self.low}", *options)

    def jobs(self) -> list[str]:
        """What squeue shows of both partitions, a line per task: id, state, node."""
        partitions = f"--partition={self.low},{self.high}"
        return self.cluster.run("squeue", "--noheader", "--array", partitions, "--format=%i %T %N").splitlines()

    def clear(self) -> None:
        """Restore the state before the test: no jobs, both nodes up."""
        self.cluster.run("scancel", f"--partition={self.low}")
        self.cluster.run("scancel", f"--partition={self.high}")
        for node in self.nodes:
            if not (self.cluster.folder / "run" / node).exists():
                self.cluster.start_node(node)
        eventually(lambda: not self.jobs(), what=f"the end of all jobs on {self.nodes}")


def eventually(condition: Callable[[], object], *, what: str, seconds: float = 60, every_s: float = 0.2) -> None:
    """Waits until the condition holds; a test fails with `what` after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(every_s)


# ---- Fixtures --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def slurm_cluster(request: pytest.FixtureRequest) -> SlurmCluster:
    """The suite's cluster, with accounting; whichever process asks first starts it, the main one stops it at the end.

    Tests that run jobs on it take `rack` instead.
    """
    folder = request.config.stash[FOLDER]
    with locked(folder.with_suffix(".lock")):
        if not folder.exists():
            stop_left_behind(folder.parent)
            start_cluster(folder, f"--nodes={RACKS * NODES_PER_RACK}", f"--racks={RACKS}")
    return SlurmCluster(folder)


@pytest.fixture
def rack(slurm_cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rack]:
    """Two nodes for this test alone; SLURM_CONF is set, so that commands run in this process find them too."""
    set_slurm_conf(slurm_cluster, monkeypatch)
    with lease(slurm_cluster.folder) as number:
        taken = Rack(slurm_cluster, number)
        yield taken
        taken.clear()


@pytest.fixture
def new_slurm_cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., SlurmCluster]]:
    """Starts a cluster for this test with options of devcluster, e.g. ("--max-array-size=11", "--no-accounting")."""
    base = request.config.stash[FOLDER]
    folders: list[Path] = []

    def start(*options: str) -> SlurmCluster:
        folders.append(base.with_name(f"{base.name}-{uuid.uuid4().hex[:6]}"))
        start_cluster(folders[-1], *options)
        set_slurm_conf(SlurmCluster(folders[-1]), monkeypatch)
        return SlurmCluster(folders[-1])

    yield start
    for folder in folders:
        stop_cluster(folder)


def set_slurm_conf(cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])


@contextlib.contextmanager
def lease(folder: Path) -> Iterator[int]:
    """Reserve a rack that no other test uses, waiting for one if necessary; yields its number."""
    with contextlib.ExitStack() as held:
        free: list[int] = []
        while not free:
            for number in range(1, RACKS + 1):
                with contextlib.suppress(BlockingIOError):
                    held.enter_context(locked(folder / f"rack{number}.lock", wait=False))
                    free.append(number)
                    break
            else:
                time.sleep(0.2)
        yield free[0]


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock among all processes; the kernel releases it when its holder dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


# ---- Starting and stopping -------------------------------------------------------------------------------------------


def devcluster_error(command: str, folder: Path, *more: str) -> str:
    """The error message of a devcluster command; empty if it succeeds."""
    line = [sys.executable, str(DEVCLUSTER), command, str(folder), *more]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    return (done.stderr.strip() or f"status {done.returncode}") if done.returncode else ""


def run_devcluster(command: str, folder: Path, *more: str) -> None:
    if message := devcluster_error(command, folder, *more):
        pytest.fail(message)


def start_cluster(folder: Path, *options: str) -> None:
    """Start a cluster, or skip or fail the test with the last lines of the logs and remove the folder."""
    message = devcluster_error("up", folder, *options)
    if "packages are missing" in message and os.environ.get("REQUIRE_ALL") != "1":
        pytest.skip(f"{SKIPPED}: {message}")
    if message:
        ends = [f"{log.name}: {log.read_text()[-500:]}" for log in sorted(folder.glob("log/*.out"))]
        stop_cluster(folder)
        pytest.fail("\n".join([message, *ends]))


def stop_cluster(folder: Path) -> None:
    if folder.exists():
        run_devcluster("down", folder)


def stop_left_behind(parent: Path) -> None:
    """Stop the clusters of suites that were killed; a folder's name contains the pid of its suite."""
    for folder in parent.glob(f"{PREFIX}*/"):
        pid = folder.name.removeprefix(PREFIX).split("-")[0]
        if folder.stat().st_uid == os.geteuid() and not Path("/proc", pid).exists():
            stop_cluster(folder)
            folder.with_suffix(".lock").unlink(missing_ok=True)


def memory_or_disk() -> Path:
    """/dev/shm if it has room (a container may have 64 MB there, a cluster takes 110), else the temporary folder."""
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 29
    return memory if has_room else Path(tempfile.gettempdir())


# ---- The suite's beginning and end -----------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Set the cluster's folder, the same in xdist's workers as in the main process."""
    folder = getattr(config, "workerinput", {}).get(PREFIX)
    config.stash[FOLDER] = Path(folder) if folder else memory_or_disk() / f"{PREFIX}{os.getpid()}"


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Called by xdist in the main process for each worker that it is about to start."""
    node.workerinput[PREFIX] = str(node.config.stash[FOLDER])


def pytest_unconfigure(config: pytest.Config) -> None:
    """The main process ends last and stops the clusters of all."""
    if hasattr(config, "workerinput"):
        return
    folder = config.stash[FOLDER]
    for started in folder.parent.glob(f"{folder.name}*/"):
        stop_cluster(started)
    folder.with_suffix(".lock").unlink(missing_ok=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = [str(report.longrepr[2]) for report in terminalreporter.getreports("skipped")]
    slurm = [reason for reason in reasons if SKIPPED in reason]
    if slurm:
        terminalreporter.write_line(f"!!!! {len(slurm)} tests were SKIPPED: {slurm[0]}", red=True, bold=True)
