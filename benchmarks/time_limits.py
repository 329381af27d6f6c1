"""Limits of time that the harness keeps, each measured here: no test asserts a time, since machines that run tests are busy.

    python -m benchmarks.time_limits

Planning: CPU seconds to plan and verify 10,000 runs of 200 architectures, solved to a budget.
Statistics: CPU seconds for cells, contrasts and front of 2,000 runs on 10,000 test images, with correctness per image.
Requeue: wall seconds until a requeued job of the throwaway Slurm (slurm/README.md) runs again; not measured without Slurm.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import chdir
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
from study.planning.sweep_plan import make_plan
from study.planning.traced_cost import verify_costs

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
    """Something that must not take longer. `measure` returns seconds, or None where it can't be measured."""

    name: str
    seconds: float
    measure: Callable[[], float | None]


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
        rows.append([limit.name, "" if seconds is None else f"{seconds:.1f} s", f"{limit.seconds:.0f} s", verdict])
    print_table(["", "measured", "limit", "verdict"], rows)
    write_json(arguments.out, {**around, "seconds": found, "limits": {limit.name: limit.seconds for limit in LIMITS}})
    return int(any(row[-1] == "EXCEEDED" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
