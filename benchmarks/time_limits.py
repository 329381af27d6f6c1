"""Limits of time and memory that the harness keeps, measured here: no test asserts them, since test machines are busy.

    python -m benchmarks.time_limits

Planning: CPU seconds to plan and verify 10,000 runs of 200 architectures, solved to a budget.
Statistics: CPU seconds for cells, contrasts and front of 2,000 runs on 10,000 test images, with correctness per image.
Bad files: CPU seconds, and memory in MiB, that the worst of the wrong sweeps and profiles of the tests takes to be refused.
Requeue: wall seconds until a requeued job of the throwaway Slurm (slurm/README.md) runs again; not measured without Slurm.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import chdir, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.circumstances import circumstances
from benchmarks.coverage import as_grid
from benchmarks.tables import print_table, write_json
from study.analysis.cell_means import summarize_cells
from study.analysis.contrast_results import estimate_contrasts
from study.analysis.pareto_front import find_pareto_front
from study.analysis.planned_contrasts import plan_contrasts
from study.config.sweep_file import read_sweep
from study.errors import UserError
from study.launcher.slurm.profile import read_profile
from study.planning.sweep_plan import make_plan
from study.planning.traced_cost import verify_costs

BAD_FILES = Path(__file__).parents[1] / "tests/config/hostile"
DEVCLUSTER = Path(__file__).parents[1] / "slurm" / "devcluster"
SWEEP = """\
question: how long does a plan take?
data: {name: cifar10}
model: {kernel_size: 3}
train: {epochs: 100}
match: {by: params, target: 600k}
axes:
  backbone: [vit, convmixer, mlp_mixer, convnext, metaformer]
  model.patch_size: [2, 4, 8, 16]
  model.depth: [2, 3, 4, 5, 6, 7, 8, 9, 10, 12]
seeds: SEEDS
"""


@dataclass(frozen=True)
class TimeLimit:
    """Something that must not take longer, or more. `measure` returns seconds, or None where it can't be measured."""

    name: str
    seconds: float
    measure: Callable[[], float | None]
    unit: str = "s"


def planning_seconds() -> float:
    """CPU seconds for a plan of 200 architectures times 50 seeds, every architecture's cost traced."""
    with tempfile.TemporaryDirectory() as place, chdir(place):
        path = Path("sweep.yaml")
        path.write_text(SWEEP.replace("SEEDS", str([*range(50)])), encoding="utf-8")
        began = time.process_time()
        plan = make_plan(read_sweep(path))
        verified = verify_costs(planned.run.model for planned in plan.runs)
        seconds = time.process_time() - began
        assert (verified, len(plan.runs)) == (200, 10_000)
        return seconds


def statistics_seconds() -> float:
    """CPU seconds for the tables of 200 cells times 10 seeds and 407 contrasts, correctness per image in memory."""
    levels = {"patch_size": range(1, 21), "backbone": [f"backbone {number}" for number in range(10)]}
    correct = np.random.default_rng(0).random((200, 10, 10_000), dtype=np.float32) < 0.9
    began = time.process_time()
    grid, plan = as_grid(correct, levels), plan_contrasts(levels)
    found = summarize_cells(grid), estimate_contrasts(grid, plan), find_pareto_front(grid, np.arange(200.0) + 1)
    seconds = time.process_time() - began
    assert [*map(len, found)] == [200, 407, 200]
    return seconds


@functools.cache
def measure_bad_files() -> tuple[float, float]:
    """CPU seconds and MiB that the worst of the bad files takes, each read in a process of its own; imports don't count."""
    most = np.zeros(2)
    for path in sorted(BAD_FILES.glob("*/*")):
        receiver, sender = os.pipe()
        if not (child := os.fork()):
            before = resource.getrusage(resource.RUSAGE_SELF)
            with suppress(UserError):
                read_profile(path) if path.parent.name == "profiles" else make_plan(read_sweep(path))
            after = resource.getrusage(resource.RUSAGE_SELF)
            seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            os.write(sender, json.dumps([seconds, (after.ru_maxrss - before.ru_maxrss) / 1024]).encode())
            os._exit(0)
        os.close(sender)
        os.waitpid(child, 0)
        most = np.maximum(most, json.loads(os.read(receiver, 100)))
        os.close(receiver)
    return float(most[0]), float(most[1])


def requeue_seconds() -> float | None:
    """Wall seconds from `scontrol requeue` until the job's script runs again; tests of requeues wait for it."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as place:
        folder, starts = Path(place, "cluster"), Path(place, "starts")
        devcluster = [sys.executable, str(DEVCLUSTER)]
        up = subprocess.run([*devcluster, "up", str(folder), "--nodes=1", "--no-accounting"], capture_output=True, check=False)
        if up.returncode:
            return None
        try:
            environment = {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf"}

            def slurm(*command: str) -> str:
                answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
                return answer.stdout.strip()

            def wait_for_starts(count: int) -> float:
                while not starts.exists() or starts.read_text().count("\n") < count:
                    time.sleep(0.1)
                return time.monotonic()

            job = slurm("sbatch", "--parsable", "--requeue", "--output=/dev/null", f"--wrap=echo >>{starts}; exec sleep 600")
            wait_for_starts(1)
            requeued = time.monotonic()
            slurm("scontrol", "requeue", job)
            return wait_for_starts(2) - requeued
        finally:
            subprocess.run([*devcluster, "down", str(folder)], check=True)


LIMITS = (
    TimeLimit("plan and verify 10,000 runs, CPU", 20.0, planning_seconds),
    TimeLimit("statistics of 2,000 runs on 10,000 images, CPU", 20.0, statistics_seconds),
    TimeLimit("the worst bad file, CPU", 2.0, lambda: measure_bad_files()[0]),
    TimeLimit("the worst bad file, memory", 400.0, lambda: measure_bad_files()[1], unit="MiB"),
    TimeLimit("a requeued job runs again", 20.0, requeue_seconds),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a row for each limit; exit status 1 where one is exceeded."""
    parser = argparse.ArgumentParser(prog="benchmarks.time_limits", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/time_limits.json"))
    arguments = parser.parse_args(argv)
    around = circumstances("cpu", threads=1)
    found = {limit.name: limit.measure() for limit in LIMITS}
    rows = []
    for limit in LIMITS:
        seconds = found[limit.name]
        verdict = "not measured" if seconds is None else "kept" if seconds <= limit.seconds else "EXCEEDED"
        rows.append(
            [limit.name, "" if seconds is None else f"{seconds:.1f} {limit.unit}", f"{limit.seconds:.0f} {limit.unit}", verdict]
        )
    print_table(["", "measured", "limit", "verdict"], rows)
    write_json(arguments.out, {**around, "seconds": found, "limits": {limit.name: limit.seconds for limit in LIMITS}})
    return int(any(row[-1] == "EXCEEDED" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
