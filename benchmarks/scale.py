"""What commands take with 100 to 100,000 runs, whose outcomes are made up.

    python -m benchmarks.scale                        # plan, status, table and report: benchmarks/results/scale.json and .svg
    python -m benchmarks.scale --runs 10000 --launch  # the launch on a throwaway Slurm (slurm/README.md), until all is recorded

Processor seconds are those of a command's process from its start to its end, imports included: on a machine with other load
they say more than the time on the clock. Limits are the project's; none is asserted by a test.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.circumstances import circumstances
from benchmarks.synthetic_runs import SIZES, make_synthetic_sweep, write_sweep
from benchmarks.tables import print_table, write_json
from study.records.sweep_folder import SweepFolder
from study.reporting.figures.style import MARKS, PAPER, apply_style

REPOSITORY = Path(__file__).resolve().parents[1]
WORKERS = 64
LOAD = """
import sys, time
from study.records.table import load_table
began = time.process_time()
load_table(sys.argv[1])
print(time.process_time() - began)
"""
LIMITS = {
    ("plan", 10_000): 10.0,
    ("launch", 10_000): 20.0,
    ("status", 10_000): 2.0,
    ("load_table", 100_000): 5.0,
    ("load_table again", 100_000): 0.5,
    ("report", 10_000): 60.0,
}
"""Seconds, by step and number of runs; those of `load_table` without the imports."""
MAX_MIB, MAX_PAGE_MB = 1024, 5


@dataclass(frozen=True)
class Measurement:
    """One command with so many runs."""

    step: str
    runs: int
    processor_seconds: float
    seconds: float
    peak_mib: float
    note: str = ""

    @property
    def verdict(self) -> str:
        limit = LIMITS.get((self.step, self.runs))
        if limit is None:
            return ""
        return f"{'kept' if self.processor_seconds <= limit and self.peak_mib <= MAX_MIB else 'EXCEEDED'} ({limit:g} s)"


def measure(step: str, runs: int, *words: str, where: Path, environment: dict[str, str] | None = None) -> Measurement:
    """Run a Python command in a folder to its end."""
    began = time.monotonic()
    path = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    with (where / "output.txt").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *words], cwd=where, stdout=output, stderr=output, env={**os.environ, **path, **(environment or {})}
        )
        peak, (ended, status, used) = 0.0, os.wait4(process.pid, os.WNOHANG)
        while not ended:  # the peak that the kernel reports at the end includes that of this process
            peak = max(peak, _read_peak(process.pid))
            time.sleep(0.02)
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
    if status:
        raise RuntimeError(f"{step} ended with {status}:\n{(where / 'output.txt').read_text()[-2000:]}")
    seconds = used.ru_utime + used.ru_stime
    return Measurement(step, runs, seconds, time.monotonic() - began, peak)


def _read_peak(pid: int) -> float:
    """Peak resident memory of a process so far, MiB; 0 once it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def measure_commands(runs: int, *, report: bool) -> Iterator[Measurement]:
    """Plan, status, the table twice, and the report, of a sweep of which everything is recorded."""
    with tempfile.TemporaryDirectory() as name:
        where = Path(name)
        sweep, folder = str(where / "sweep.yaml"), str(where / "runs" / "sweep")
        write_sweep(Path(sweep), runs)
        yield measure("plan", runs, "-m", "study.plan", sweep, where=where)
        make_synthetic_sweep(where, runs, workers=WORKERS)
        time.sleep(3)  # files that have just changed are not cached
        yield measure("status", runs, "-m", "study.status", sweep, where=where)
        for step in ("load_table", "load_table again"):
            found = measure(step, runs, "-c", LOAD, folder, where=where)
            yield replace(found, processor_seconds=float((where / "output.txt").read_text()))
        if report:
            found = measure("report", runs, "-m", "study.report", sweep, where=where)
            megabytes = (Path(folder) / "report" / "index.html").stat().st_size / 1e6
            yield replace(found, note=f"page {megabytes:.1f} MB of at most {MAX_PAGE_MB}")


def measure_launch(runs: int) -> Measurement:
    """The launch command on a Slurm of its own, then workers that record made-up outcomes until everything is recorded."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, _slurm(Path(name, "cluster")) as environment:
        where = Path(name)
        sweep = write_sweep(where / "sweep.yaml", runs, data="digits", target="200k", patches="1, 2, 4, 8", kernel=1)
        synthetic = REPOSITORY / "benchmarks" / "synthetic_worker"
        profile = where / "profile.yaml"
        setup = f'"export PYTHONPATH={synthetic}:{REPOSITORY}"'
        profile.write_text(f"workers: 16\ngpus_per_node: 0\ncpus_per_task: 1\nmem_gb: null\ntime: 1:00:00\nsetup: [{setup}]\n")
        words = ("-m", "study.launch", str(sweep), "--profile", str(profile), "--cluster", "slurm")
        found = measure("launch", runs, *words, where=where, environment=environment)
        folder, began = SweepFolder(where / "runs" / "sweep"), time.monotonic()
        while _count_records(folder) < runs:
            if time.monotonic() - began > 3600:
                raise RuntimeError(f"{_count_records(folder)} of {runs} runs are recorded after an hour")
            time.sleep(1)
        wait = time.monotonic() - began
        calls = len(list(folder.launches.glob("*/submissions/*.json")))
        files = sum(path.is_file() for path in folder.path.rglob("*") if folder.code not in path.parents)
        note = f"{calls} sbatch call{'s'[: calls != 1]}, {files / runs:.3f} files a run; all recorded {wait:.0f} s later"
        return replace(found, note=note)


def _count_records(folder: SweepFolder) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.records.glob("*.jsonl"))


@contextlib.contextmanager
def _slurm(folder: Path) -> Iterator[dict[str, str]]:
    """A throwaway cluster; yields the variables by which commands find it."""
    devcluster = [sys.executable, str(REPOSITORY / "slurm" / "devcluster")]
    subprocess.run([*devcluster, "up", str(folder), "--nodes=2", "--no-accounting"], check=True, capture_output=True)
    try:
        yield {"SLURM_CONF": f"{folder}/slurm.conf"}
    finally:
        subprocess.run([*devcluster, "down", str(folder)], check=True)


@apply_style
def plot_growth(found: Sequence[Measurement]) -> Figure:
    """Processor seconds over runs, both on log scales; the dotted lines are linear growth."""
    figure = Figure(figsize=(PAPER.width * 1.3, PAPER.height * 1.2))
    ax = figure.subplots()
    for mark, step in zip(MARKS, dict.fromkeys(each.step for each in found), strict=False):
        own = [each for each in found if each.step == step]
        seconds = [max(each.processor_seconds, 0.01) for each in own]
        ax.plot(
            [each.runs for each in own], seconds, color=mark.color, marker=mark.marker, linestyle=mark.linestyle, label=step
        )
    for scale in (1e-5, 1e-4, 1e-3, 1e-2):
        ax.plot([100, 100_000], [100 * scale, 100_000 * scale], color="#dde1e7", linestyle=":", zorder=0)
    ax.set(xscale="log", yscale="log", xlabel="runs", ylabel="processor time (s)", ylim=(0.02, None))
    ax.legend(loc="upper left")
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a row for each measurement; exit status 1 where a limit is exceeded."""
    parser = argparse.ArgumentParser(prog="benchmarks.scale", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--runs", type=int, nargs="+", choices=tuple(SIZES), default=tuple(SIZES))
    parser.add_argument("--launch", action="store_true", help="only the launch on a throwaway Slurm")
    parser.add_argument("--report-up-to", type=int, default=10_000, metavar="RUNS", help="no report of larger sweeps")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scale.json"))
    arguments = parser.parse_args(argv)
    around = circumstances("cpu", threads=1)
    found: list[Measurement] = []
    for runs in arguments.runs:
        found += [measure_launch(runs)] if arguments.launch else measure_commands(runs, report=runs <= arguments.report_up_to)
    earlier = json.loads(arguments.out.read_text())["measurements"] if arguments.out.exists() else []
    kept = {(each["step"], each["runs"]): Measurement(**each) for each in earlier} | {
        (each.step, each.runs): each for each in found
    }
    every = sorted(kept.values(), key=lambda each: (each.step, each.runs))
    rows = [
        [
            each.step,
            f"{each.runs:,}",
            f"{each.processor_seconds:.2f}",
            f"{each.seconds:.1f}",
            f"{each.peak_mib:.0f}",
            each.verdict,
            each.note,
        ]
        for each in every
    ]
    print_table(["step", "runs", "processor s", "s", "peak MiB", "limit", ""], rows)
    write_json(arguments.out, {**around, "measurements": [asdict(each) for each in every]})
    plot_growth(every).savefig(arguments.out.with_suffix(".svg"), metadata={"Date": None})
    return int(any("EXCEEDED" in each.verdict for each in found))


if __name__ == "__main__":
    sys.exit(main())
