"""make soak: hundreds of runs under a random storm of preemptions, requeues, kills, cancellations and node deaths.

    python tests/launcher/soak.py --runs 500 --minutes 10

It starts a Slurm of its own, launches, and lets the storm blow until its time is over or everything is recorded. Then the calm:
what is left is launched until nothing is missing, and the table is held against that of an undisturbed local launch. Prints its
figures; exit status 1 where a record is lost, doubled or different.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests"), str(REPOSITORY / "tests/launcher")]

from scenarios import Outcome, Site, Twins, sweep  # noqa: E402
from slurm_cluster import NODES_PER_RACK, Rack, SlurmCluster, memory_or_disk  # noqa: E402

from study.rng import stream  # noqa: E402

T = TypeVar("T")

WORKERS = 6
EPOCHS = 20
PAUSE_S = 6.0  # between two blows, on average
BACKBONES = 2


class Storm:
    """Blows that fall on a site at random; a seed gives the same sequence, though not the same moments."""

    def __init__(self, site: Site, generator: np.random.Generator):
        self.site, self.generator = site, generator
        self.fallen: Counter[str] = Counter()
        self.dead: dict[str, float] = {}  # nodes, and when they return

    def blow(self) -> None:
        """One blow, if there is something to hit."""
        blows: list[tuple[str, float, Callable[[], bool]]] = [
            ("preemption", 0.3, self.preempt),
            ("requeue", 0.25, self.requeue),
            ("kill -9", 0.25, self.kill),
            ("node death", 0.12, self.kill_node),
            ("scancel", 0.08, self.scancel),
        ]
        chance = np.array([weight for _, weight, _ in blows])
        name, _, strike = blows[self.generator.choice(len(blows), p=chance / chance.sum())]
        self.fallen[name] += strike()

    def preempt(self) -> bool:
        node = self.any_of([node for node in self.site.rack.nodes if node not in self.dead])
        seconds = self.generator.integers(1, 6)
        self.site.rack.submit(
            f"sleep {seconds}",
            f"--partition={self.site.rack.high}",
            f"--nodelist={node}",
            "--exclusive",
            "--output=/dev/null",
            "--job-name=guest",
        )
        return True

    def requeue(self) -> bool:
        return self.tell_slurm("scontrol", "requeue")

    def scancel(self) -> bool:
        return self.tell_slurm("scancel")

    def kill(self) -> bool:
        processes = self.site.processes()
        if processes:
            os.kill(self.any_of(processes), signal.SIGKILL)
        return bool(processes)

    def kill_node(self) -> bool:
        if self.dead:  # one at a time, as the rest must hold the preempting jobs too
            return False
        node = self.any_of(self.site.rack.nodes)
        self.site.rack.cluster.kill_node(node, noticed=bool(self.generator.integers(2)))
        self.dead[node] = time.monotonic() + 20
        return True

    def boot_nodes(self, *, all_of_them: bool = False) -> None:
        """Boot killed nodes after a while, or all of them."""
        for node, at in list(self.dead.items()):
            if all_of_them or time.monotonic() > at:
                self.site.rack.cluster.start_node(node)
                del self.dead[node]

    def tell_slurm(self, *command: str) -> bool:
        """A command about one running task of the sweep; it may have ended meanwhile."""
        lines = self.site.rack.cluster.run("squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i %j").splitlines()
        running = [line.split()[0] for line in lines if line.split()[1].startswith("study.")]
        if not running:
            return False
        done = subprocess.run([*command, self.any_of(running)], env=self.site.rack.cluster.environment, capture_output=True)
        return done.returncode == 0

    def any_of(self, things: list[T]) -> T:
        return things[self.generator.integers(len(things))]


def soak(site: Site, *, runs: int, minutes: float, seed: int) -> int:
    """Storm, calm, judgement; the exit status."""
    site.write(sweep(epochs=EPOCHS, seeds=-(-runs // BACKBONES)))
    site.set(workers=WORKERS, gpus_per_node=1)
    storm, generator = Storm(site, stream(seed, "storm")), stream(seed, "pauses")
    launches = 1
    site.type("launch")
    started = time.monotonic()
    while time.monotonic() - started < minutes * 60 and len(done(site)) < runs:
        time.sleep(generator.exponential(PAUSE_S))
        storm.blow()
        storm.boot_nodes()
        if len(site.jobs()) < WORKERS // 2:  # scancel thins them out; a user would launch again
            launches += 1
            site.type("launch --settled")
    blown = time.monotonic() - started
    storm.boot_nodes(all_of_them=True)
    site.rack.cluster.run("scancel", "--name=guest")
    in_storm = len(done(site))
    print(
        f"storm: {blown / 60:.1f} min, {', '.join(f'{count} x {name}' for name, count in storm.fallen.items())}; "
        f"{in_storm} of {runs} runs recorded in it",
        flush=True,
    )
    while len(done(site)) < runs and launches < 50:
        launches += 1
        site.type("launch --settled --retry failed")
        site.await_jobs_end()
    return judged(site, runs=runs, launches=launches)


def done(site: Site) -> set[str]:
    return {record["run_id"] for record in site.records() if record["status"] != "failed"}


def judged(site: Site, *, runs: int, launches: int) -> int:
    """Holds the table against the twin's and prints the figures; 1 where they differ."""
    found, twin = Outcome.of(site.runs.path), site.twins.of(site.sweep)
    ids = Counter(record["run_id"] for record in site.records() if record["status"] == "done")
    lost = runs - int((found.table["status"] == "done").sum())
    doubled = sum(count - 1 for count in ids.values())
    differing = 0 if lost else int((found.table.fillna(-1) != twin.table.fillna(-1)).any(axis=1).sum())
    differing += 0 if lost else int((found.curves.fillna(-1) != twin.curves.fillna(-1)).any(axis=1).sum())
    failed = sum(record["status"] == "failed" for record in site.records())
    stops, resumed = len(site.notes("stop")), sum(note["step"] > 0 for note in site.notes("begin"))
    print(
        f"calm: {launches} launches, {len(site.lives())} lives of workers, {stops} runs stopped in order, {resumed} resumed "
        f"amid their steps, {failed} recorded as failed after three deaths and tried again"
    )
    print(f"{len(ids)} records, {lost} lost, {doubled} trained twice, {differing} differing from the undisturbed local launch")
    return int(bool(lost or doubled or differing or len(ids) != runs))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="soak-"))
    cluster = SlurmCluster(memory_or_disk() / base.name)
    devcluster = [sys.executable, str(REPOSITORY / "slurm/devcluster")]
    up = [*devcluster, "up", str(cluster.folder), f"--nodes={NODES_PER_RACK}", "--racks=1", "--no-accounting"]
    subprocess.run(up, check=True, stdout=subprocess.DEVNULL)
    try:
        site = Site(base, Rack(cluster, 1), Twins(base, patience_s=3600), python=sys.executable)
        status = soak(site, runs=asked.runs, minutes=asked.minutes, seed=asked.seed)
    finally:
        subprocess.run([*devcluster, "down", str(cluster.folder)], check=True)
    if status:
        print(f"what there is to look at: {base}")
    else:
        shutil.rmtree(base)
    return status


if __name__ == "__main__":
    sys.exit(main())
